"""Policies that change what the operator applies, and how often it is applied against them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from simulation.fake_cluster import NAMESPACE
from simulation.scene import Scene

from embedding_operator.resource.labels import SERVING_LABEL

Raw = dict[str, Any]
MOST_AN_HOUR = 4 + 8  # at once, and then each ten minutes or less often
NOT_CORRECTED = "False DriftNotCorrected"


def owned(raw: Raw, **fields: Any) -> None:
    """As the API server notes who wrote a field."""
    raw["metadata"]["managedFields"] = [{"manager": "mesh", "fieldsV1": {"f:spec": fields}}]


def select_canary(raw: Raw) -> None:
    raw["spec"]["selector"] = {SERVING_LABEL: "canary"}
    owned(raw, **{"f:selector": {}})


def of(name: Callable[[Raw], bool], change: Callable[[Raw], None]) -> Callable[[Raw], None]:
    """A policy that changes the objects of some names."""
    return lambda raw: change(raw) if name(raw) else None


def policy(scene: Scene, kind: str, change: Callable[[Raw], None]) -> None:
    """One that comes now, and looks at what there is."""
    scene.cluster.policies[kind] = change
    for raw in scene.cluster.find(kind):
        scene.cluster.change(kind, NAMESPACE, raw["metadata"]["name"], lambda raw: None)


def applies(scene: Scene, kind: str) -> int:
    return sum((call.verb, call.kind) == ("apply", kind) for call in scene.cluster.calls)


def an_hour(scene: Scene) -> None:
    start = scene.clock.now
    while scene.clock.now - start < timedelta(hours=1):
        scene.turn()
