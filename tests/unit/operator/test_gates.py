"""Which figures of an evaluation let a revision go on, and what the condition says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from unit.operator.builders import IMAGES, a_manifest

from embedding_operator.decide.gates import judge_gates
from embedding_operator.resource.api import SpecError
from embedding_operator.resource.spec import parse_spec
from embedding_operator.resource.status import Served, StageStatus
from embedding_stages.contract import Stage

GOOD = [0.5, 0.55, 0.02, 0.04]  # before, after, lower end, smallest detectable
WORSE = [0.5, 0.25, -0.3, 0.04]
A_LITTLE_WORSE = [0.5, 0.495, -0.02, 0.04]
UNSURE = [0.5, 0.51, -0.01, 0.04]
NOTHING = [0.0, 0.0, 0.0, 0.0]
SERVING = Served(active_fingerprint="f" * 64, active_revision=3)


@dataclass
class Row:
    name: str
    wanted: str  # what the condition says: its status and its reason
    base: dict[str, list[float]] = field(default_factory=lambda: {"ndcg@10": GOOD, "recall@10": GOOD})
    active: dict[str, list[float]] | None = None
    may_know: bool = False  # whether what serves may have trained on the questions
    guard: list[float] | None = None
    gates: dict[str, Any] = field(default_factory=dict)
    queries: int = 100
    served: Served = field(default_factory=Served)
    says: tuple[str, ...] = ()


ROWS = [
    Row("better than the base model", "True Passed", says=("+0.05000", "+0.02000", "n=100", "0.04000")),
    Row(
        "half as good",
        "False WorseThanBase",
        base={"ndcg@10": WORSE, "recall@10": GOOD},
        says=(
            "0.25000",
            "0.50000",
            "-0.25000",
            "-0.30000",
            "n=100",
            "spec.gates.onFail: Warn",
            "nothing is served yet",
        ),
    ),
    Row(
        "half as good while another serves",
        "False WorseThanBase",
        base={"ndcg@10": WORSE, "recall@10": GOOD},
        served=SERVING,
        says=("revision 3 goes on serving",),
    ),
    Row(
        "a second metric fell",
        "False WorseThanBase",
        base={"ndcg@10": GOOD, "recall@10": WORSE},
        says=("recall@10", "spec.gates.maxRegression.base"),
    ),
    Row("the same as the base model", "True Passed", base={"ndcg@10": [0.5, 0.5, 0.0, 0.0], "recall@10": GOOD}),
    Row("a little worse", "False WorseThanBase", base={"ndcg@10": A_LITTLE_WORSE, "recall@10": GOOD}),
    Row(
        "a little worse, which is allowed",
        "True Passed",
        base={"ndcg@10": A_LITTLE_WORSE, "recall@10": A_LITTLE_WORSE},
        gates={"maxRegression": {"base": "0.01"}},
    ),
    Row(
        "a fall is allowed, but an uplift is asked for too",
        "False WorseThanBase",
        base={"ndcg@10": A_LITTLE_WORSE, "recall@10": A_LITTLE_WORSE},
        gates={"maxRegression": {"base": "0.01"}, "minRelativeUplift": "0"},
        says=("spec.gates.minRelativeUplift",),
    ),
    Row(
        "not as much better as asked",
        "False WorseThanBase",
        gates={"minRelativeUplift": "0.2"},
        says=("+0.10000 or more", "spec.gates.minRelativeUplift"),
    ),
    Row(
        "an uplift is asked for of a metric that is not judged otherwise",
        "False WorseThanBase",
        base={"ndcg@10": A_LITTLE_WORSE, "recall@10": GOOD},
        gates={"metrics": ["recall@10"], "minRelativeUplift": "0.05"},
        says=("ndcg@10", "+0.02500 or more", "spec.gates.minRelativeUplift"),
    ),
    Row(
        "an uplift of none is asked for of it",
        "False WorseThanBase",
        base={"ndcg@10": A_LITTLE_WORSE, "recall@10": GOOD},
        gates={"metrics": ["recall@10"], "minRelativeUplift": "0"},
        says=("spec.gates.minRelativeUplift",),
    ),
    Row(
        "that uplift is there, and what serves has more of it",
        "True Passed",
        base={"ndcg@10": GOOD, "recall@10": GOOD},
        active={"ndcg@10": WORSE, "recall@10": GOOD},
        gates={"metrics": ["recall@10"], "minRelativeUplift": "0.05"},
        served=SERVING,
    ),
    Row(
        "that uplift was not measured",
        "False NoQuestions",
        base={"recall@10": GOOD},
        gates={"metrics": ["recall@10"], "minRelativeUplift": "0.05"},
        says=("ndcg@10", "spec.stages.eval.image"),
    ),
    Row(
        "a metric that nobody asks for fell",
        "True Passed",
        base={"ndcg@10": WORSE, "recall@10": GOOD},
        gates={"metrics": ["recall@10"]},
    ),
    Row("a little worse than what serves", "True Passed", active={"ndcg@10": A_LITTLE_WORSE}, served=SERVING),
    Row(
        "worse than what serves",
        "False WorseThanActive",
        active={"ndcg@10": WORSE},
        served=SERVING,
        says=("the serving revision's 0.50000", "spec.gates.maxRegression.active"),
    ),
    Row(
        "worse than what serves, on questions that it may have trained on",
        "True Passed",
        active={"ndcg@10": WORSE, "recall@10": A_LITTLE_WORSE},
        may_know=True,
        served=SERVING,
        says=(
            "ndcg@10 0.25000 against 0.50000 (-0.25000), recall@10 0.49500 against 0.50000 (-0.00500)",
            "not judged",
            "may have trained on",
        ),
    ),
    Row(
        "worse than the base model too, on questions that what serves may have trained on",
        "False WorseThanBase",
        base={"ndcg@10": WORSE, "recall@10": GOOD},
        active={"ndcg@10": WORSE},
        may_know=True,
        served=SERVING,
        says=("not judged", "spec.gates.maxRegression.base"),
    ),
    Row("what serves may have trained on them, and is not compared with", "True Passed", may_know=True),
    Row(
        "better by measure, but not surely not inferior",
        "False NotShownBetter",
        base={"ndcg@10": UNSURE, "recall@10": GOOD},
        gates={"criterion": "NotInferior"},
    ),
    Row(
        "not inferior within the limit",
        "True Passed",
        base={"ndcg@10": UNSURE, "recall@10": GOOD},
        gates={"criterion": "NotInferior", "maxRegression": {"base": "0.02"}},
    ),
    Row("surely better", "True Passed", gates={"criterion": "Better"}),
    Row(
        "better, but not surely",
        "False NotShownBetter",
        base={"ndcg@10": UNSURE, "recall@10": GOOD},
        gates={"criterion": "Better"},
        says=("lower end has to be above 0",),
    ),
    Row(
        "surely better is asked, and it is worse",
        "False WorseThanBase",
        base={"ndcg@10": WORSE, "recall@10": GOOD},
        gates={"criterion": "Better"},
    ),
    Row(
        "no question", "False NoQuestions", base={}, queries=0, says=("spec.evaluation.beir", "spec.evaluation.freeze")
    ),
    Row(
        "no question, which is let go",
        "True Warned",
        base={},
        queries=0,
        gates={"onFail": "Warn"},
        says=("NoQuestions",),
    ),
    Row(
        "half as good, which is let go",
        "True Warned",
        base={"ndcg@10": WORSE, "recall@10": GOOD},
        gates={"onFail": "Warn"},
        says=("WorseThanBase", "spec.gates.onFail is Warn"),
    ),
    Row(
        "half as good, and nobody asks",
        "True GateDisabled",
        base={"ndcg@10": WORSE, "recall@10": GOOD},
        gates={"enabled": False},
    ),
    Row("forgot what the guard asks", "False WorseThanBase", guard=WORSE, says=("guard general", "evaluation.guards")),
    Row("forgot little of what the guard asks", "True Passed", guard=A_LITTLE_WORSE),
    Row(
        "surely better, and forgot little",
        "True Passed",
        guard=A_LITTLE_WORSE,
        gates={"criterion": "Better"},
    ),
    Row(
        "surely better, and not as much as asked",
        "False WorseThanBase",
        gates={"criterion": "Better", "minRelativeUplift": "0.2"},
        says=("spec.gates.minRelativeUplift",),
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
            "spec.evaluation.freeze: false",
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


def judged(row: Row) -> str:
    evaluation = {"guards": [{"name": "general", "beir": {"pvc": {"claimName": "general"}}}]} if row.guard else {}
    spec = parse_spec(a_manifest(gates=row.gates, evaluation=evaluation), IMAGES)
    comparisons: dict[str, Any] = {"base": row.base} if row.base else {}
    if row.active is not None:
        comparisons["active"] = row.active
    if row.guard is not None:
        comparisons["guard:general"] = {"ndcg@10": row.guard, "queries": 30}
    evaluated = StageStatus(
        name=Stage.EVAL,
        revision=4,
        counts={"queries": row.queries},
        details={"comparisons": comparisons},
        active_may_know=row.may_know,
    )
    gate = judge_gates(evaluated, spec.gates, spec.guards, row.served)
    assert gate.blocks is not gate.passed
    assert ("not judged" in gate.message) is (row.may_know and row.active is not None)
    for word in row.says:
        assert word in gate.message, gate.message
    return f"{gate.passed} {gate.reason}"


def test_a_guard_that_was_not_measured_lets_nothing_pass() -> None:
    guards = [{"name": "general", "beir": {"pvc": {"claimName": "general"}}}]
    spec = parse_spec(a_manifest(evaluation={"guards": guards}), IMAGES)
    details = {"comparisons": {"base": {"ndcg@10": GOOD, "recall@10": GOOD}}}
    evaluated = StageStatus(name=Stage.EVAL, revision=4, counts={"queries": 100}, details=details)
    gate = judge_gates(evaluated, spec.gates, spec.guards, Served())
    assert (gate.passed, gate.reason) == (False, "NoQuestions")
    assert "guard general" in gate.message


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_gate_says(row: Row) -> None:
    assert judged(row) == row.wanted


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


BEIR = {"pvc": {"claimName": "general"}}


@pytest.mark.parametrize(
    ("sections", "field", "says"),
    [
        ({"gates": {"metrics": ["ndcg@7"]}}, "spec.gates.metrics", "spec.evaluation.kValues"),
        ({"gates": {"metrics": ["ndcg"]}}, "spec.gates.metrics", "such as ndcg@10"),
        ({"gates": {"criterion": "Nearly"}}, "spec.gates.criterion", "PointEstimate or NotInferior or Better"),
        ({"gates": {"onFail": "Shrug"}}, "spec.gates.onFail", "Stop or Warn"),
        ({"gates": {"enabled": "no"}}, "spec.gates.enabled", "true or false"),
        ({"gates": {"minRelativeUplift": "-1"}}, "spec.gates.minRelativeUplift", "from 0 to 10"),
        ({"gates": {"maxRegression": {"base": "2"}}}, "spec.gates.maxRegression.base", "from 0 to 1"),
        ({"evaluation": {"guards": [{"name": "general"}]}}, "spec.evaluation.guards[0].beir", "pvc or image"),
        (
            {"evaluation": {"guards": [{"name": "a", "beir": BEIR}, {"name": "a", "beir": BEIR}]}},
            "spec.evaluation.guards[1].name",
            "twice",
        ),
        (
            {"evaluation": {"guards": [{"name": name, "beir": BEIR} for name in "abc"]}},
            "spec.evaluation.guards",
            "at most 2",
        ),
    ],
)
def test_a_manifest_that_cannot_be_judged_by_is_refused(sections: dict[str, Any], field: str, says: str) -> None:
    with pytest.raises(SpecError) as found:
        parse_spec(a_manifest(**sections), IMAGES)
    assert found.value.field == field
    assert says in str(found.value)
