"""What clients are sent to, and what they are told."""

from __future__ import annotations

import json
from typing import Any

from simulation.fake_cluster import NAMESPACE
from simulation.scene import NAME, Scene, a_spec

from embedding_operator.resource.labels import SERVING_LABEL


def a_spec_of(epochs: int, **deploy: Any) -> dict[str, Any]:
    """Another number of epochs is another vector space, and another server."""
    return a_spec(stages={"deploy": deploy, "finetune": {"epochs": epochs}})


def led_to(scene: Scene, service: str = NAME) -> str:
    """The label of the server that a Service selects; empty where there is no such Service."""
    raw = scene.cluster.objects.get(("Service", NAMESPACE, service))
    return str(raw["spec"]["selector"][SERVING_LABEL]) if raw is not None else ""


def servers(scene: Scene) -> set[str]:
    """Labels of those that are not being removed."""
    metas = [raw["metadata"] for raw in scene.cluster.find("Deployment")]
    return {meta["labels"][SERVING_LABEL] for meta in metas if "deletionTimestamp" not in meta}


def contract(scene: Scene) -> dict[str, Any]:
    """What clients read of the vector space."""
    raw = scene.cluster.object("ConfigMap", f"{NAME}-contract")
    found: dict[str, Any] = json.loads(raw["data"]["contract.json"])
    return found
