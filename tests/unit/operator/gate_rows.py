"""Figures of an evaluation, and a row of them that the gates judge."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from unit.operator.builders import IMAGES, a_manifest

from embedding_operator.decide.gates import judge_gates
from embedding_operator.resource.spec import parse_spec
from embedding_operator.resource.status import Served, StageStatus
from embedding_stages.contract import Stage

GOOD = [0.5, 0.55, 0.02, 0.04]  # before, after, lower end, smallest detectable
WORSE = [0.5, 0.25, -0.3, 0.04]
A_LITTLE_WORSE = [0.5, 0.495, -0.02, 0.04]
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
