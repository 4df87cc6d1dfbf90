"""Admission policies and other controllers that change the server's Deployment: accepted, or undone further apart."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from simulation.fake_cluster import NAMESPACE
from simulation.scene import Scene, a_scene, is_ready

Raw = dict[str, Any]
PROXY = {"name": "HTTPS_PROXY", "value": "http://proxy.test:3128"}


def put(items: list[Raw], new: Raw) -> None:
    if new["name"] not in [item["name"] for item in items]:
        items.append(new)


def pod_of(raw: Raw) -> Raw:
    found: Raw = raw["spec"]["template"]["spec"]
    return found


def add_variable(raw: Raw) -> None:
    for container in (*pod_of(raw)["initContainers"], *pod_of(raw)["containers"]):
        put(container.setdefault("env", []), PROXY)


def add_sidecar(raw: Raw) -> None:
    pod = pod_of(raw)
    put(pod["containers"], {"name": "proxy", "image": "proxy:1"})
    put(pod["initContainers"], {"name": "proxy-init", "image": "proxy:1"})
    put(pod["volumes"], {"name": "proxy", "emptyDir": {}})


def add_placement(raw: Raw) -> None:
    pod_of(raw)["tolerations"] = [{"operator": "Exists"}]
    pod_of(raw)["hostAliases"] = [{"ip": "10.0.0.9", "hostnames": ["mirror"]}]
    raw["spec"]["template"]["metadata"]["labels"]["team"] = "a"


ADDITIONS: dict[str, Callable[[Raw], None]] = {
    "a variable": add_variable,
    "a sidecar": add_sidecar,
    "tolerations, host aliases and labels": add_placement,
}


@pytest.mark.parametrize("addition", ADDITIONS)
def test_what_a_policy_adds_is_accepted(addition: str) -> None:
    scene = a_scene()
    scene.cluster.admit = ADDITIONS[addition]
    scene.run(is_ready).settle(3)
    writes = scene.writes()
    scene.settle(20)
    assert scene.writes() == writes


@pytest.mark.parametrize("addition", ADDITIONS)
def test_a_policy_that_comes_later_takes_ready_away_only_while_pods_are_replaced(addition: str) -> None:
    scene = a_scene().run(is_ready)
    scene.cluster.admit = ADDITIONS[addition]
    name = scene.cluster.find("Deployment")[0]["metadata"]["name"]
    scene.cluster.change(
        "Deployment",
        NAMESPACE,
        name,
        lambda raw: raw["metadata"].update(annotations={**raw["metadata"]["annotations"], "touched": "yes"}),
    )
    scene.turn()
    scene.run(is_ready).settle(3)
    writes = scene.writes()
    scene.settle(20)
    assert scene.writes() == writes
    assert "DriftCorrected" not in scene.events()


def other_image(raw: Raw) -> None:
    pod_of(raw)["containers"][0]["image"] = "mirror.test/server:1"


def other_variable(raw: Raw) -> None:
    variables = pod_of(raw)["containers"][0]["env"]
    variables[:] = [item for item in variables if item["name"] != "NIM_SERVED_MODEL_NAME"]


def no_replica(raw: Raw) -> None:
    raw["spec"]["replicas"] = 3


def applies(scene: Scene) -> int:
    return sum((call.verb, call.kind) == ("apply", "Deployment") for call in scene.cluster.calls)


def an_hour(scene: Scene) -> None:
    start = scene.clock.now
    while scene.clock.now - start < timedelta(hours=1):
        scene.turn()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (other_image, "spec.template.spec.containers[server].image"),
        (other_variable, "spec.template.spec.containers[server].env[NIM_SERVED_MODEL_NAME]"),
        (no_replica, "spec.replicas"),
    ],
)
@pytest.mark.parametrize("late", [False, True])
def test_what_is_changed_back_for_ever_is_corrected_further_and_further_apart(
    change: Callable[[Raw], None], field: str, late: bool
) -> None:
    scene = a_scene(stages={"deploy": {"replicas": 1}})
    if late:
        scene.run(is_ready)
    scene.cluster.admit = change
    if late:
        name = scene.cluster.find("Deployment")[0]["metadata"]["name"]
        scene.cluster.change("Deployment", NAMESPACE, name, lambda raw: raw["metadata"]["labels"].update(touched="yes"))
    scene.run(lambda scene: scene.condition("Deployed") == "False DriftNotCorrected")
    assert field in scene.message("Deployed")
    assert scene.condition("Ready") == "False DriftNotCorrected"
    applied, told = applies(scene), len(scene.events())
    an_hour(scene)
    assert 1 <= applies(scene) - applied <= 12
    assert len(scene.events()) == told
    assert scene.condition("Deployed") == "False DriftNotCorrected"
    assert scene.events().count("DriftNotCorrected") == 1
    scene.cluster.admit = lambda raw: None
    scene.run(is_ready, turns=400)
    assert applies(scene) - applied <= 13


def test_a_controller_that_takes_turns_with_the_operator_is_noticed() -> None:
    """Between its changes the Deployment is as it was asked for."""
    scene = a_scene(stages={"deploy": {"replicas": 1}}).run(is_ready)
    name = scene.cluster.find("Deployment")[0]["metadata"]["name"]
    for _ in range(40):
        scene.cluster.change("Deployment", NAMESPACE, name, no_replica)
        scene.settle(2)
    assert applies(scene) <= 20
    assert scene.condition("Deployed") == "False DriftNotCorrected"
