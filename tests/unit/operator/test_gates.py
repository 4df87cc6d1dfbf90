"""Which figures of an evaluation let a revision go on, and what the condition says; what a manifest may ask for."""

from __future__ import annotations

from typing import Any

import pytest
from unit.operator.builders import IMAGES, a_manifest
from unit.operator.gate_rows import A_LITTLE_WORSE, GOOD, SERVING, WORSE, Row, judged

from embedding_operator.resource.api import SpecError
from embedding_operator.resource.spec import parse_spec

UNSURE = [0.5, 0.51, -0.01, 0.04]
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
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_gate_says(row: Row) -> None:
    assert judged(row) == row.wanted


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
