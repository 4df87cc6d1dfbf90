"""What `finetune.preset` fills in, and which stages it makes work anew."""

from __future__ import annotations

from typing import Any

import pytest

from embedding_operator.resource.frozen import asked_of_stages
from embedding_stages.contract import Stage
from embedding_stages.contract.presets import scores_candidates, with_preset
from embedding_stages.contract.settings import PRESETS, QUESTION_KINDS, Finetune, Prep, Sdg


def settings_of(stages: dict[str, Any]) -> tuple[Sdg, Prep, Finetune]:
    filled = with_preset(stages)
    return (
        Sdg.parse(filled.get("sdg") or {}),
        Prep.parse(filled.get("prep") or {}),
        Finetune.parse(filled.get("finetune") or {}),
    )


@pytest.mark.parametrize("stages", [{}, {"finetune": None}, {"finetune": {"preset": "recipe"}}])
def test_the_recipe_is_what_is_done_without_a_word(stages: dict[str, Any]) -> None:
    sdg, prep, finetune = settings_of(stages)

    assert (sdg, prep, finetune) == (Sdg(), Prep(), Finetune())
    assert not scores_candidates(stages)


@pytest.mark.parametrize("preset", PRESETS[1:])
def test_a_preset_speaks_where_the_manifest_does_not(preset: str) -> None:
    said = {"finetune": {"preset": preset, "epochs": 7}, "sdg": {"pairsPerDocument": 2, "questionKinds": []}}

    sdg, prep, finetune = settings_of(said)

    assert sdg.questionKinds == tuple(kind for kind in QUESTION_KINDS if kind != "excerpt")
    assert sdg.pairsPerDocument == 2
    assert prep.hardNegatives == finetune.negativesPerQuery == 7
    assert finetune.epochs == 7
    assert finetune.temperature == 0.05
    assert scores_candidates(said)


@pytest.mark.parametrize("preset", PRESETS)
def test_queries_side_alone_learns_in_larger_steps(preset: str) -> None:
    both, query, asked = (
        settings_of({"finetune": {"preset": preset, **said}})
        for said in ({}, {"side": "query"}, {"side": "query", "learningRate": "1e-6"})
    )

    assert query[2].learningRate > 10 * both[2].learningRate
    assert asked[2].learningRate == 1e-6
    assert query[:2] == both[:2]


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("lora", [{}, {"rank": 4}], ids=str)
def test_adapters_learn_in_larger_steps(lora: dict[str, Any], preset: str) -> None:
    without, plain, asked = (
        settings_of({"finetune": {"preset": preset, **said}})
        for said in ({}, {"lora": lora}, {"lora": lora, "learningRate": "1e-6"})
    )

    assert plain[2].learningRate == pytest.approx(10 * without[2].learningRate)
    assert asked[2].learningRate == 1e-6
    assert plain[:2] == without[:2]


def test_another_preset_makes_the_stages_work_anew_that_it_speaks_to() -> None:
    before, after = (
        asked_of_stages({"stages": {"finetune": section}}, served_in="float32") for section in ({}, {"preset": "auto"})
    )

    assert {stage for stage in Stage if before[stage] != after[stage]} == {Stage.SDG, Stage.PREP, Stage.FINETUNE}


@pytest.mark.parametrize(
    ("said", "most"),
    [
        ({}, 4096),
        ({"prep": {"maxTrainingQuestions": 30_000}}, 40_000),
        ({"prep": {"maxTrainingQuestions": 1500, "evalFraction": 0.5}}, 3200),
        ({"prep": {"evalFraction": "0.5"}}, 6554),
        ({"prep": {"maxTrainingQuestions": 30_000}, "sdg": {"maxPairs": 10}}, 10),
        ({"prep": {"maxTrainingQuestions": "many"}}, 1),
        ({"prep": {"evalFraction": 1}}, 1),
    ],
    ids=str,
)
def test_rules_write_the_questions_that_train_and_few_more(said: dict[str, Any], most: int) -> None:
    """What the parser refuses, with the field's name, only must not fail here."""
    for preset in PRESETS[1:]:
        assert with_preset({"finetune": {"preset": preset}, **said})["sdg"]["maxPairs"] == most
    assert "maxPairs" not in with_preset(said).get("sdg", {}).keys() - said.get("sdg", {}).keys()


@pytest.mark.parametrize(
    ("said", "anew"),
    [
        ({"prep": {"maxTrainingQuestions": 9000}}, True),
        ({"prep": {"evalFraction": "0.5"}}, True),
        ({"prep": {"maxTrainingQuestions": 9000}, "sdg": {"maxPairs": 10}}, True),  # maxPairs is sdg's own
        ({"prep": {"margin": "0.9"}}, False),
    ],
    ids=str,
)
def test_sdg_works_anew_where_another_number_of_pairs_is_needed(said: dict[str, Any], anew: bool) -> None:
    before, after = (
        asked_of_stages({"stages": {"finetune": {"preset": "auto"}, **stages}}, served_in="float32")
        for stages in ({}, said)
    )

    assert (before[Stage.SDG] != after[Stage.SDG]) is anew


def test_an_llm_s_questions_are_asked_and_a_change_of_provider_is_seen() -> None:
    by_rules: dict[str, Any] = {"finetune": {"preset": "auto"}}
    by_llm: dict[str, Any] = by_rules | {"sdg": {"provider": {"openAI": {"baseURL": "http://llm/v1"}}}}

    assert settings_of(by_rules)[1].evaluationQueries == "withheld"
    assert settings_of(by_llm)[1].evaluationQueries == "pairs"
    assert settings_of(by_rules)[1].maxTrainingQuestions == 3072
    assert settings_of(by_llm)[1].maxTrainingQuestions is None  # those were paid for
    assert settings_of(by_llm)[0].maxPairs is None
    before, after = (asked_of_stages({"stages": stages}, served_in="float32") for stages in (by_rules, by_llm))
    assert before[Stage.PREP] != after[Stage.PREP]


@pytest.mark.parametrize(
    ("prep", "finetune", "expected"),
    [
        ({}, {}, (7, 7)),
        ({"hardNegatives": 3}, {}, (3, 3)),
        ({"hardNegatives": 9}, {}, (9, 7)),
        ({}, {"negativesPerQuery": 11}, (11, 11)),
        ({}, {"negativesPerQuery": 2}, (7, 2)),
        ({"hardNegatives": 3}, {"negativesPerQuery": 5}, (3, 5)),  # the manifest's own contradiction, to be refused
    ],
)
def test_negatives_used_follow_those_mined(
    prep: dict[str, Any], finetune: dict[str, Any], expected: tuple[int, int]
) -> None:
    _, found, used = settings_of({"prep": prep, "finetune": {"preset": "auto", **finetune}})

    assert (found.hardNegatives, used.negativesPerQuery) == expected


def test_more_negatives_asked_of_a_preset_are_mined() -> None:
    before, after = (
        asked_of_stages({"stages": {"finetune": {"preset": "auto", **more}}}, served_in="float32")
        for more in ({}, {"negativesPerQuery": 11})
    )

    assert before[Stage.PREP] != after[Stage.PREP]
    assert before[Stage.SDG] == after[Stage.SDG]
