"""What `finetune.preset` and `finetune.side` stand for: settings that the manifest does not give. Pure.

A preset is a set of defaults: a value in the manifest wins. The figures behind them are in docs/quality.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from embedding_stages.contract import Stage
from embedding_stages.contract.settings import PRESETS, QUERY_SIDE, QUESTION_KINDS, Finetune, Prep

FIELD: Final = f"{Finetune.FIELD}.preset"
RECIPE, CONSERVATIVE, AUTO = PRESETS
_RANKING: Final[Mapping[Stage, Mapping[str, Any]]] = {
    Stage.SDG: {"questionKinds": [kind for kind in QUESTION_KINDS if kind != "excerpt"], "pairsPerDocument": 3},
    Stage.PREP: {"hardNegatives": 7},
    Stage.FINETUNE: {"epochs": 1, "negativesPerQuery": 7, "temperature": "0.05"},
}
_DEFAULTS: Final[Mapping[str, Mapping[Stage, Mapping[str, Any]]]] = {
    RECIPE: {},
    CONSERVATIVE: {**_RANKING, Stage.FINETUNE: {**_RANKING[Stage.FINETUNE], "learningRate": "1e-5"}},
    AUTO: {**_RANKING, Stage.FINETUNE: {**_RANKING[Stage.FINETUNE], "epochs": 2, "learningRate": "5e-5"}},
}

# Rules write as many questions as they are asked for. A ranking is learnt from few: what more cost is time alone.
_WITHOUT_LLM: Final[Mapping[str, Any]] = {"evaluationQueries": "withheld", "maxTrainingQuestions": 3072}
_SPARE_PAIRS: Final = 16 / 15  # of near-duplicates, which do not train

# A matrix moves in larger steps than a model's weights, and by all of its numbers at once; see docs/quality.md.
# Adapters begin at zero and are few: they move in larger steps than the weights would.
_LORA: Final[Mapping[str, Mapping[str, Any]]] = {
    RECIPE: {"learningRate": "1e-4"},
    CONSERVATIVE: {"learningRate": "1e-4"},
    AUTO: {"learningRate": "5e-4"},
}
_QUERY_SIDE: Final[Mapping[str, Mapping[str, Any]]] = {
    RECIPE: {"learningRate": "5e-4"},
    CONSERVATIVE: {"learningRate": "5e-4"},
    AUTO: {"epochs": 5, "learningRate": "1e-3"},
}


def preset_of(stages: Mapping[str, Any]) -> str:
    """The preset that the section `spec.stages` of a manifest asks for; an unknown word is the parser's to refuse."""
    return str((stages.get(Stage.FINETUNE.value) or {}).get("preset") or RECIPE)


def with_preset(stages: Mapping[str, Any]) -> dict[str, Any]:
    """The section `spec.stages` of a manifest with its preset's defaults, where it says nothing itself."""
    defaults = dict(_DEFAULTS.get(preset_of(stages), {}))
    if defaults and not an_llm_asks(stages):
        defaults[Stage.PREP] = {**defaults[Stage.PREP], **_WITHOUT_LLM}
        defaults[Stage.SDG] = {**defaults[Stage.SDG], "maxPairs": _pairs_needed(_said(stages.get(Stage.PREP.value)))}
    if _said(stages.get(Stage.FINETUNE.value)).get("side") == QUERY_SIDE:
        defaults[Stage.FINETUNE] = {**defaults.get(Stage.FINETUNE, {}), **_QUERY_SIDE.get(preset_of(stages), {})}
    if isinstance(_said(stages.get(Stage.FINETUNE.value)).get("lora"), Mapping):
        defaults[Stage.FINETUNE] = {**defaults.get(Stage.FINETUNE, {}), **_LORA.get(preset_of(stages), {})}
    filled = {stage.value: {**more, **_said(stages.get(stage.value))} for stage, more in defaults.items()}
    _fit_negatives(filled, stages)
    return {**stages, **filled}


def _pairs_needed(prep: Mapping[str, Any]) -> int:
    """How many pairs give the training questions that are drawn, beside those of the documents that are held out."""
    questions = prep.get("maxTrainingQuestions", _WITHOUT_LLM["maxTrainingQuestions"])
    held_out = prep.get("evalFraction", Prep.settings()["evalFraction"].default)
    try:
        questions, held_out = int(questions), float(held_out)  # a decimal may stand in quotes
    except (TypeError, ValueError):
        return 1  # the parser refuses these
    if not (questions > 0 and 0 < held_out < 1):
        return 1
    return round(_SPARE_PAIRS * questions / (1 - held_out))


def _fit_negatives(filled: dict[str, dict[str, Any]], stages: Mapping[str, Any]) -> None:
    """Where the manifest gives one of the two numbers, the preset's other one follows: used are at most those mined."""
    prep, finetune = (filled.get(stage.value, {}) for stage in (Stage.PREP, Stage.FINETUNE))
    mined, used = prep.get("hardNegatives"), finetune.get("negativesPerQuery")
    if not isinstance(mined, int) or not isinstance(used, int) or used <= mined:
        return
    if "negativesPerQuery" not in _said(stages.get(Stage.FINETUNE.value)):
        finetune["negativesPerQuery"] = mined
    elif "hardNegatives" not in _said(stages.get(Stage.PREP.value)):
        prep["hardNegatives"] = used


def scores_candidates(stages: Mapping[str, Any]) -> bool:
    """Whether prep has to score the candidates of each query."""
    return preset_of(stages) in (CONSERVATIVE, AUTO)


def an_llm_asks(stages: Mapping[str, Any]) -> bool:
    """Whether the section `spec.stages` has an LLM write: its questions are of a kind that people ask."""
    provider = (stages.get(Stage.SDG.value) or {}).get("provider") or {}
    return not isinstance(provider, Mapping) or any(kind != "extractive" for kind in provider)


def _said(section: Any) -> dict[str, Any]:
    return {name: value for name, value in (section or {}).items() if value not in (None, [])}
