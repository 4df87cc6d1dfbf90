"""What the gates say where there is nothing to judge by: no question, no figure, no interval, or nothing is found."""

from __future__ import annotations

import pytest
from unit.operator.builders import IMAGES, a_manifest
from unit.operator.gate_rows import GOOD, SERVING, Row, judged

from embedding_operator.decide.gates import judge_gates
from embedding_operator.resource.spec import parse_spec
from embedding_operator.resource.status import Served, StageStatus
from embedding_stages.contract import Stage

NOTHING = [0.0, 0.0, 0.0, 0.0]
ROWS = [
    Row("no question", "False NoQuestions", base={}, queries=0, says=("spec.evaluation.beir", "add documents")),
    Row(
        "no question, which is let go",
        "True Warned",
        base={},
        queries=0,
        gates={"onFail": "Warn"},
        says=("NoQuestions",),
    ),
    Row(
        "nothing is found",
        "False NothingFound",
        base={"ndcg@10": NOTHING, "recall@10": NOTHING},
        says=(
            "ndcg@10, recall@10",
            "n=100",
            "not about these documents",
            "spec.evaluation.beir",
            "spec.gates.onFail: Warn",
        ),
    ),
    Row(
        "nothing is found, and a fall is allowed",
        "False NothingFound",
        base={"ndcg@10": NOTHING, "recall@10": NOTHING},
        gates={"maxRegression": {"base": "0.1"}, "criterion": "NotInferior"},
    ),
    Row(
        "nothing is found, which is let go",
        "True Warned",
        base={"ndcg@10": NOTHING, "recall@10": NOTHING},
        gates={"onFail": "Warn"},
        says=("NothingFound: ", "spec.gates.onFail is Warn"),
    ),
    Row(
        "nothing is found, and nobody asks",
        "True GateDisabled",
        base={"ndcg@10": NOTHING, "recall@10": NOTHING},
        gates={"enabled": False},
    ),
    Row("something is found by one metric", "True Passed", base={"ndcg@10": NOTHING, "recall@10": GOOD}),
    Row(
        "the tuned model finds what the base model does not",
        "True Passed",
        base={"ndcg@10": [0.0, 0.1, 0.05, 0.05], "recall@10": [0.0, 0.1, 0.05, 0.05]},
    ),
    Row(
        "nothing is found of what the guard asks",
        "False NothingFound",
        guard=NOTHING,
        says=("guard general", "spec.evaluation.guards", "n=30"),
    ),
    Row("a metric that is judged was not measured", "False NoQuestions", base={"ndcg@10": GOOD}, says=("recall@10",)),
    Row("no figure of the metrics that are judged", "False NoQuestions", base={}, says=("spec.stages.eval.image",)),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_gate_says(row: Row) -> None:
    assert judged(row) == row.wanted


def test_a_guard_that_was_not_measured_lets_nothing_pass() -> None:
    guards = [{"name": "general", "beir": {"pvc": {"claimName": "general"}}}]
    spec = parse_spec(a_manifest(evaluation={"guards": guards}), IMAGES)
    details = {"comparisons": {"base": {"ndcg@10": GOOD, "recall@10": GOOD}}}
    evaluated = StageStatus(name=Stage.EVAL, revision=4, counts={"queries": 100}, details=details)
    gate = judge_gates(evaluated, spec.gates, spec.guards, Served())
    assert (gate.passed, gate.reason) == (False, "NoQuestions")
    assert "guard general" in gate.message


OLD = StageStatus(
    name=Stage.EVAL,
    revision=3,
    counts={"queries": 100},
    metrics={"base": {"ndcg@10": 0.5, "recall@10": 0.5}, "fineTuned": {"ndcg@10": 0.25, "recall@10": 0.6}},
)


@pytest.mark.parametrize(
    ("served", "wanted"),
    [
        (Served(), "False WorseThanBase"),
        (Served(active_fingerprint="f" * 64, active_revision=2), "False WorseThanBase"),
        (SERVING, "True GateDisabled"),
    ],
    ids=["it never served", "another serves", "it serves already"],
)
def test_an_evaluation_without_intervals_is_judged_by_its_figures_unless_it_serves(served: Served, wanted: str) -> None:
    spec = parse_spec(a_manifest(), IMAGES)
    gate = judge_gates(OLD, spec.gates, spec.guards, served)
    assert f"{gate.passed} {gate.reason}" == wanted


@pytest.mark.parametrize("is_frozen", [False, True])
def test_a_new_set_is_a_cure_where_an_earlier_one_is_frozen(*, is_frozen: bool) -> None:
    spec = parse_spec(a_manifest(), IMAGES)
    evaluated = StageStatus(name=Stage.EVAL, revision=4, counts={"queries": 0}, details={"comparisons": {}})
    gate = judge_gates(evaluated, spec.gates, spec.guards, Served(), is_frozen=is_frozen)
    assert ("spec.evaluation.freeze: false" in gate.message) is is_frozen
