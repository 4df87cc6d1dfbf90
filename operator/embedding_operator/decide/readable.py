"""Can what a stage's result tells be read, and be written into the status? Pure.

Its image may be anybody's. Only what is read is checked: beside it a stage may tell what it likes. A look's drift is
shown as far as it can be, and warnings are; see resource/schedule_status.py and warnings.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from embedding_operator.decide.gates import GUARD
from embedding_stages.contract import Stage, StageResult

_COUNTS: Final = 64  # these are the CRD's, of each stage
_KINDS: Final = 8
_METRICS: Final = 64
_PATH_CHARACTERS: Final = 512
_DIGEST_CHARACTERS: Final = 80
_PRECISION_CHARACTERS: Final = 16
_COMPARED: Final = re.compile(r"(ndcg|recall)(?!@[1-9]\d{0,5}$)(@|$)")  # what is compared needs its cut-off
_COMPARED_KINDS: Final[Mapping[Stage, tuple[str, ...]]] = {
    Stage.EVAL: ("base", "fineTuned"),
    Stage.VERIFY: ("served",),
}
_RATES: Final = ("passagesPerSecond", "tokensPerPassage")
_FIGURES: Final = (2, 4)  # of a comparison: before and after, and how sure the difference is


def unreadable(result: StageResult) -> str:
    """The part of a result that is not what its stage tells there; empty where all is."""
    if len(result.counts) > _COUNTS:
        return "counts"
    sizes = [len(values) <= _METRICS for values in result.metrics.values()]
    names = [name for kind in _COMPARED_KINDS.get(result.stage, ()) for name in result.metrics.get(kind, ())]
    if len(result.metrics) > _KINDS or not all(sizes) or any(_COMPARED.match(name) for name in names):
        return "metrics"
    for ref in result.artefacts.values():
        if len(ref.path) > _PATH_CHARACTERS or len(ref.digest) > _DIGEST_CHARACTERS:
            return "artefacts"
    for name, is_one in _DETAILS.get(result.stage, {}).items():
        said = result.details.get(name)
        if said is not None and not is_one(said):
            return f"details.{name}"
    return ""


def _is_number(said: Any) -> bool:
    """The contract lets no infinite one through."""
    return isinstance(said, int | float) and not isinstance(said, bool)


def _is_whole(said: Any) -> bool:
    return isinstance(said, int) and not isinstance(said, bool)


def _is_interval(said: Any) -> bool:
    return isinstance(said, list) and (not said or (len(said) == 2 and all(map(_is_number, said))))


def _is_precision(said: Any) -> bool:
    return isinstance(said, str) and len(said) <= _PRECISION_CHARACTERS


def _is_encoder(said: Any) -> bool:
    if not isinstance(said, Mapping):
        return False
    sizes = said.get("dimensions") or []
    return isinstance(sizes, list) and all(map(_is_whole, sizes)) and isinstance(said.get("prefixes") or {}, Mapping)


def _is_contract(said: Any) -> bool:
    return isinstance(said, Mapping) and isinstance(said.get("prefixes") or {}, Mapping)


def _is_rate(said: Any) -> bool:
    if not isinstance(said, Mapping):
        return False
    return all(item is None or (_is_number(item) and item >= 0) for item in map(said.get, _RATES))


def _are_comparisons(said: Any) -> bool:
    """By model or guard, and by metric; a guard tells its number of questions beside."""
    if not isinstance(said, Mapping):
        return False
    judged = [item for name, item in said.items() if name in ("base", "active") or name.startswith(GUARD)]
    return all(item is None or (isinstance(item, Mapping) and _is_comparison(item)) for item in judged)


def _is_comparison(said: Mapping[str, Any]) -> bool:
    figures = {name: item for name, item in said.items() if name != "queries"}
    return _is_whole(said.get("queries", 0)) and all(_are_figures(item) for item in figures.values())


def _are_figures(said: Any) -> bool:
    return isinstance(said, list) and len(said) in (0, *_FIGURES) and all(map(_is_number, said))


_DETAILS: Final[Mapping[Stage, Mapping[str, Callable[[Any], bool]]]] = {
    Stage.INPUTS: {"encoder": _is_encoder},
    Stage.FINETUNE: {"side": lambda said: isinstance(said, str)},
    Stage.EVAL: {
        "relativeUplift": _is_number,
        "confidenceInterval": _is_interval,
        "precision": _is_precision,
        "comparisons": _are_comparisons,
    },
    Stage.EXPORT: {"contract": _is_contract},
    Stage.VERIFY: {"rate": _is_rate, "canaryCosine": _is_number},
}
