"""Of revisions whose truth is known, how many worse ones get traffic and how many better ones are stopped.

The bootstrap is the eval stage's, the judge the operator's; only the scores are made up. bench/gates.py says how, what
truly worse and truly better mean where a base model and a serving revision are compared with, and prints the table of
docs/reliability.md for other numbers of questions and the other criteria.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from bench.gates import OF_A_RESOURCE, Shape, a_spec, judge, normal, random_resources, ranks, shares

from embedding_stages.evaluate.bootstrap import SAMPLES

QUESTIONS = 300
REVISIONS = 500
FEW_SAMPLES = 10  # the default criterion does not read the interval that they are for; a test below holds that


@dataclass
class Row:
    name: str
    shape: Shape = normal
    of_each: int = OF_A_RESOURCE  # revisions of one resource
    gates: dict[str, Any] = field(default_factory=dict)
    worse_that_pass: tuple[float, float] = (0.0, 0.02)  # share of the truly worse: at least, at most
    better_blocked: float = 0.05  # share of the truly better, at most
    fewest: tuple[int, int] = (200, 100)  # truly worse, truly better: enough to speak of a share


ROWS = [
    Row("the differences have a standard deviation of 0.25"),
    Row("the scores follow from the rank of one relevant passage", shape=ranks),
    # What serves is soon nearly as good as any revision can be, so hardly one is truly better.
    Row("one resource has all 500 revisions", of_each=REVISIONS, fewest=(400, 0)),
    Row("without gates every worse revision gets traffic", gates={"enabled": False}, worse_that_pass=(1.0, 1.0)),
    Row("with a warning only, too", gates={"onFail": "Warn"}, worse_that_pass=(1.0, 1.0)),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_of_500_revisions_few_are_judged_wrongly(row: Row) -> None:
    resources = random_resources(row.shape, QUESTIONS, REVISIONS, of_each=row.of_each)
    verdicts = list(judge(resources, a_spec(**row.gates), samples=FEW_SAMPLES))
    assert len(verdicts) == REVISIONS
    worse, passed, better, blocked = shares(verdicts)
    assert len(worse) >= row.fewest[0]
    assert len(better) >= row.fewest[1]
    least, most = row.worse_that_pass
    assert least <= passed <= most, f"{passed:.1%} of {len(worse)} truly worse revisions got traffic"
    assert blocked <= row.better_blocked, f"{blocked:.1%} of {len(better)} truly better revisions were blocked"


def test_the_default_criterion_judges_the_same_with_few_samples_of_the_bootstrap() -> None:
    resources = random_resources(normal, QUESTIONS, 15)
    few = [item.passed for item in judge(resources, a_spec(), samples=FEW_SAMPLES)]
    all_of_them = [item.passed for item in judge(resources, a_spec(), samples=SAMPLES)]
    assert few == all_of_them
    assert {True, False} == set(few)
