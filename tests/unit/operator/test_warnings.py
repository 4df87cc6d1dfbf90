"""What finished stages warn of reaches the status, and an Event once in a revision."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from unit.operator.builders import a_ref, a_stage

from embedding_operator.decide.decision import Draft
from embedding_operator.decide.warnings import STAGE_WARNED, warn
from embedding_operator.resource.status import StageStatus, StageWarning, Status
from embedding_stages.contract import Artefact, Stage

FEW_QUESTIONS = "19 evaluation queries: below 50 a metric moves much by chance"
FEW_ROWS = "85 training rows: below 100 little can be learnt"
CHANCE = "the uplift of NDCG@10, +2.0%, may be chance: its 95 % interval, +0.0% to +7.0%, includes 0 with 19 questions"


def of_prep(*said: Any, **changes: Any) -> StageStatus:
    return a_stage(Stage.PREP, details={"warnings": list(said)}, artefacts={Artefact.TRAINING_SET: a_ref()}, **changes)


def evaluated(low: float, high: float) -> StageStatus:
    return a_stage(details={"relativeUplift": 0.02, "confidenceInterval": [low, high]}, counts={"queries": 19})


def warned(*stages: StageStatus, known: tuple[StageWarning, ...] = ()) -> tuple[list[str], list[str]]:
    """(texts of the status, texts of the Events)."""
    draft = Draft(status=Status(stages=stages, warnings=known))
    warn(draft)
    assert {(event.type, event.reason) for event in draft.events} <= {("Warning", STAGE_WARNED)}
    return [f"{item.stage}: {item.message}" for item in draft.status.warnings], [e.message for e in draft.events]


CASES: list[tuple[str, StageStatus, list[str]]] = [
    ("nothing is said", a_stage(Stage.PREP), []),
    ("few questions, few rows", of_prep(FEW_QUESTIONS, FEW_ROWS), [f"prep: {FEW_QUESTIONS}", f"prep: {FEW_ROWS}"]),
    ("work of an older revision", of_prep(FEW_ROWS, state="Reused"), [f"prep: {FEW_ROWS}"]),
    ("the stage runs anew", replace(of_prep(FEW_ROWS), state="Running"), []),
    ("it has failed", replace(of_prep(FEW_ROWS), state="Failed"), []),
    ("a batch scaled down", a_stage(Stage.FINETUNE, details={"warnings": ["scaled"]}), ["finetune: scaled"]),
    ("the same twice", of_prep(FEW_ROWS, FEW_ROWS), [f"prep: {FEW_ROWS}"]),
    ("the first three alone", of_prep("a", "b", "c", "d"), ["prep: a", "prep: b", "prep: c"]),
    ("a very long one", of_prep("w" * 5000), ["prep: " + "w" * 240]),
    ("lines", of_prep("one\n two"), ["prep: one two"]),
    ("not a list", a_stage(Stage.PREP, details={"warnings": "few"}), []),
    ("not texts", of_prep(7, None, {}, "  "), []),
    ("an uplift that may be chance", evaluated(0.0, 0.07), [f"eval: {CHANCE}; evaluate on more (documents, or ev"]),
    ("a loss that may be chance", evaluated(-0.07, 0.0), ["eval: the uplift of NDCG@10, +2.0%, may be chance: its 95"]),
    ("an uplift that is sure", evaluated(0.001, 0.07), []),
    ("a loss that is sure", evaluated(-0.07, -0.001), []),
    (
        "an uplift without an interval that may be chance",
        a_stage(
            details={"relativeUplift": 0.375, "comparisons": {"base": {"ndcg@10": [0.08, 0.11, 0.0, 0.06]}}},
            counts={"queries": 100},
        ),
        ["eval: the uplift of NDCG@10, +37.5%, may be chance: the difference is +0.03000, where differences from 0."],
    ),
    (
        "an uplift without an interval that is sure",
        a_stage(details={"relativeUplift": 0.375, "comparisons": {"base": {"ndcg@10": [0.08, 0.15, 0.01, 0.06]}}}),
        [],
    ),
]


@pytest.mark.parametrize(("entry", "texts"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_finished_stages_warnings_are_told(entry: StageStatus, texts: list[str]) -> None:
    shown, events = warned(entry)
    assert len(shown) == len(texts)
    assert all(found.startswith(text) for found, text in zip(shown, texts, strict=True))
    told = "; ".join(text.removeprefix(f"{entry.name}: ") for text in shown)
    assert events == ([f"{entry.name}: {told}"] if shown else []), "one Event a stage"
    assert all(len(text) <= 256 for text in shown)


def test_a_warning_is_told_once_also_where_the_status_kept_its_beginning() -> None:
    whole = StageWarning(stage=Stage.PREP, message=FEW_ROWS)
    for known in (whole, replace(whole, message=FEW_ROWS[:10])):
        shown, events = warned(of_prep(FEW_ROWS, FEW_QUESTIONS), known=(known,))
        assert shown == [f"prep: {FEW_ROWS}", f"prep: {FEW_QUESTIONS}"]
        assert events == [f"prep: {FEW_QUESTIONS}"]


def test_a_detour_in_one_revision_keeps_what_was_told() -> None:
    known = (StageWarning(stage=Stage.PREP, message=FEW_ROWS),)
    assert warned(of_prep(FEW_ROWS, state="Pending"), known=known) == ([f"prep: {FEW_ROWS}"], [])
    assert warned(of_prep(FEW_ROWS, state="Pending")) == ([], [])


def test_all_stages_together_are_bounded() -> None:
    stages = [a_stage(stage, details={"warnings": ["a", "b", "c"]}) for stage in Stage]
    shown, _ = warned(*stages)
    assert len(shown) == 8
