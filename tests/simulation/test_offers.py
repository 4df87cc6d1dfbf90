"""A candidate is offered beside the server that clients reach: its word goes with it."""

from __future__ import annotations

from typing import Any

import pytest
from simulation.clients import a_spec_of, led_to, servers
from simulation.fake_cluster import NAMESPACE, Call, Crash
from simulation.scene import NAME, Scene, is_ready

from embedding_operator.cluster.errors import QuotaExceeded
from embedding_operator.resource.labels import SERVING_LABEL


def waits_to_be_acknowledged() -> tuple[Scene, str]:
    """The server that clients reach, beside it a candidate that is offered."""
    scene = Scene(a_spec_of(3, strategy="Shadow")).run(is_ready).settle(3)
    was = led_to(scene)
    scene.edit(a_spec_of(5, strategy="Shadow"))
    scene.run(lambda scene: scene.condition("Ready") == "Unknown AwaitingAcknowledgement").settle(3)
    return scene, was


def test_an_offer_goes_with_its_server_while_the_clients_service_is_fought_over() -> None:
    scene, was = waits_to_be_acknowledged()

    def bends(raw: dict[str, Any]) -> None:
        if raw["metadata"]["name"] == NAME:
            raw["spec"]["ports"][0]["targetPort"] = 9999

    scene.cluster.policies["Service"] = bends
    scene.cluster.change("Service", NAMESPACE, NAME, bends)
    scene.edit(a_spec_of(3, strategy="Shadow"))
    scene.settle(30)
    assert servers(scene) == {was}
    assert not scene.status.served.next_url
    assert ("Service", NAMESPACE, f"{NAME}-next") not in scene.cluster.objects


@pytest.mark.parametrize("how", ["quota", "suspend", "invalid"])
def test_nobody_is_told_of_a_candidate_that_is_gone(how: str) -> None:
    scene, was = waits_to_be_acknowledged()

    def full(call: Call, when: str) -> None:
        if (call.verb, call.kind, when) == ("apply", "Deployment", "before"):
            raise QuotaExceeded("create", "Deployment", NAMESPACE, call.name, "exceeded quota")

    if how == "quota":
        scene.cluster.hook = full
    elif how == "suspend":
        scene.edit({**a_spec_of(5, strategy="Shadow"), "suspend": True})
    else:
        scene.edit(a_spec_of(5, strategy="Shadow", pinRevision=77))
    scene.settle(3)
    for raw in scene.cluster.find("Deployment"):
        if raw["metadata"]["labels"][SERVING_LABEL] != was:
            scene.cluster.remove("Deployment", NAMESPACE, raw["metadata"]["name"])
    scene.settle(20)
    assert servers(scene) == {was}
    assert not scene.status.served.next_url
    scene.cluster.hook = lambda call, when: None
    scene.edit(a_spec_of(5, strategy="Shadow"))
    scene.run(lambda scene: scene.condition("Ready") == "Unknown AwaitingAcknowledgement").settle(3)
    assert scene.status.served.next_url


def test_an_offer_that_is_not_on_record_is_told() -> None:
    scene = Scene(a_spec_of(3, strategy="Shadow")).run(is_ready).settle(3)
    scene.edit(a_spec_of(5, strategy="Shadow"))
    made, crashed = [False], [False]

    def hook(call: Call, when: str) -> None:
        made[0] |= (call.verb, call.kind, call.name, when) == ("apply", "Service", f"{NAME}-next", "after")
        if (call.verb, when) == ("status", "before") and made[0] and not crashed[0]:
            crashed[0] = True
            raise Crash

    scene.cluster.hook = hook
    scene.run(lambda scene: scene.condition("Ready") == "Unknown AwaitingAcknowledgement").settle(3)
    assert crashed[0]
    assert scene.events().count("AwaitingAcknowledgement") == 1
