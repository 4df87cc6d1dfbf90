"""Policies that change each object at each write: the operator takes what it gets, and rests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from simulation.scene import Scene, a_scene, a_spec, is_ready

Raw = dict[str, Any]
Policy = Callable[[Raw], object]


def put(items: list[Raw], new: Raw) -> None:
    def name(item: Raw) -> Any:
        return item.get("name") or item["key"]

    if name(new) not in map(name, items):
        items.append(new)


def note(raw: Raw) -> None:
    raw["metadata"].setdefault("labels", {})["team"] = "a"
    raw["metadata"].setdefault("annotations", {})["policy.test/seen"] = "yes"


def inject(raw: Raw) -> None:
    """What meshes, agents and placement policies do to pods."""
    template = raw["spec"]["template"]
    template["metadata"].setdefault("annotations", {})["sidecar.test/injected"] = "yes"
    template["metadata"]["labels"]["team"] = "a"
    pod = template["spec"]
    put(pod["containers"], {"name": "proxy", "image": "proxy:1"})
    put(pod.setdefault("initContainers", []), {"name": "proxy-init", "image": "proxy:1"})
    put(pod["volumes"], {"name": "proxy", "emptyDir": {}})
    put(pod["containers"][0].setdefault("env", []), {"name": "HTTPS_PROXY", "value": "http://proxy.test"})


def place(raw: Raw) -> None:
    pod = raw["spec"]["template"]["spec"]
    put(pod.setdefault("tolerations", []), {"key": "spot", "operator": "Exists"})
    pod.setdefault("nodeSelector", {})["zone"] = "b"
    pod["schedulingGates"] = [{"name": "queue.test/admission"}]
    pod["priorityClassName"] = "of-the-team"


def more_ports(raw: Raw) -> None:
    put(raw["spec"]["ports"], {"name": "metrics", "port": 9000, "targetPort": "metrics", "protocol": "TCP"})
    note(raw)


def more_data(raw: Raw) -> None:
    raw["data"]["policy"] = "seen"
    note(raw)


def other_class(raw: Raw) -> None:
    raw["spec"]["storageClassName"] = "of-the-team"
    note(raw)


POLICIES: dict[str, tuple[str, Policy]] = {
    f"{kind}: {policy.__name__}": (kind, policy)
    for kind, policies in {
        "Job": (note, inject, place),
        "Deployment": (note, inject, place),
        "Service": (note, more_ports),
        "ConfigMap": (note, more_data),
        "PersistentVolumeClaim": (note, other_class),
        "Pod": (note,),
    }.items()
    for policy in policies
}
PLACED = {
    stage: {"tolerations": [{"key": "gpu", "operator": "Exists"}], "nodeSelector": {"pool": "a"}}
    for stage in ("finetune", "deploy")
}


def others_calls(scene: Scene) -> int:
    """Writes but for the status and its Events, which tell of what happens."""
    return sum(call.writes and call.verb not in ("status", "event") for call in scene.cluster.calls)


@pytest.fixture(scope="module")
def undisturbed() -> int:
    """Writes of a run and of an edit of the server, with nobody else there."""
    scene = a_scene(stages=PLACED).run(is_ready).settle(15)
    scene.edit(a_spec(stages={**PLACED, "deploy": {**PLACED["deploy"], "replicas": 3}}))
    return others_calls(scene.run(is_ready).settle(15))


@pytest.mark.parametrize("name", POLICIES)
def test_what_a_policy_adds_costs_no_write(name: str, undisturbed: int) -> None:
    scene = a_scene(stages=PLACED)
    kind, policy = POLICIES[name]
    scene.cluster.policies[kind] = policy
    scene.run(is_ready).settle(15)
    scene.edit(a_spec(stages={**PLACED, "deploy": {**PLACED["deploy"], "replicas": 3}}))
    scene.run(is_ready).settle(15)
    writes = scene.writes()
    scene.settle(20)
    assert scene.writes() == writes
    assert others_calls(scene) <= undisturbed + 2
    assert {"DriftCorrected", "DriftNotCorrected"}.isdisjoint(scene.events())
    for raw in scene.cluster.find(kind):
        before = repr(raw)
        policy(raw)
        assert repr(raw) == before, f"{kind} {raw['metadata']['name']} has lost what the policy added"
