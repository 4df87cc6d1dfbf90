"""Clients were moved, or a server was measured, in a pass whose status was lost: what the next pass makes of it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from simulation.clients import a_spec_of, contract, led_to, servers
from simulation.fake_cluster import NAMESPACE, Call, Crash
from simulation.scene import NAME, Scene, is_ready, stage_is

from embedding_operator.cluster.errors import Forbidden
from embedding_operator.resource.labels import SERVING_LABEL
from embedding_stages.contract import Stage


class EditsAfterTheMove:
    """A hook that edits the resource after clients were moved from `was`, before a status tells of it."""

    def __init__(self, scene: Scene, edited: dict[str, Any], was: str, *, crashes: bool = False) -> None:
        self.scene, self.edited, self.was, self.crashes = scene, edited, was, crashes
        self.moved_to = ""

    def __call__(self, call: Call, when: str) -> None:
        now = led_to(self.scene)
        if (call.verb, when) == ("status", "before") and now not in ("", self.was) and not self.moved_to:
            self.moved_to = now
            self.scene.edit(self.edited)
            if self.crashes:
                raise Crash


def moved_and_edited(scene: Scene, edited: dict[str, Any], was: str = "", *, crashes: bool = False) -> str:
    """The server that clients were moved to."""
    scene.cluster.hook = hook = EditsAfterTheMove(scene, edited, was, crashes=crashes)
    scene.run(lambda _: bool(hook.moved_to))
    scene.cluster.hook = lambda call, when: None
    return hook.moved_to


@pytest.mark.parametrize("strategy", ["BlueGreen", "Recreate", "Shadow"])
def test_the_first_server_goes_on_while_the_edit_trains(strategy: str) -> None:
    deploy = {"strategy": strategy, "drainSeconds": 3600}
    scene = Scene(a_spec_of(3, **deploy))
    first = moved_and_edited(scene, a_spec_of(5, **deploy))
    scene.running(Stage.FINETUNE).settle(5)
    assert first == led_to(scene)
    assert first in servers(scene)
    scene.release()
    if strategy == "Shadow":
        scene.run(lambda scene: scene.condition("Ready") == "Unknown AwaitingAcknowledgement").settle(3)
        assert first == led_to(scene)
        space = scene.status.served.candidate_vector_space
        scene.edit(a_spec_of(5, **deploy, acknowledgedVectorSpace=space))
    scene.run(is_ready).settle(2)
    assert (first in servers(scene)) == (strategy != "Recreate"), "it drains"
    scene.clock.now += timedelta(hours=1)
    scene.settle(5)
    assert servers(scene) == {led_to(scene)}


def test_what_took_the_place_of_the_server_before_goes_on_too() -> None:
    scene = Scene(a_spec_of(3, strategy="Recreate")).run(is_ready).settle(3)
    was = led_to(scene)
    scene.edit(a_spec_of(5, strategy="Recreate"))
    second = moved_and_edited(scene, a_spec_of(7, strategy="Recreate"), was)
    scene.running(Stage.FINETUNE).settle(5)
    assert second == led_to(scene)
    assert second in servers(scene)


def test_the_first_server_goes_on_beside_a_gate_that_blocks() -> None:
    scene = Scene(a_spec_of(3))
    moved_and_edited(scene, {**a_spec_of(3), "gates": {"minRelativeUplift": "5"}})
    scene.settle(40)
    assert scene.status.phase == "Blocked"
    assert led_to(scene) in servers(scene)


@pytest.mark.parametrize("crashes", [False, True], ids=["conflict", "crash"])
def test_nobody_is_told_of_a_server_that_clients_are_led_back_from(*, crashes: bool) -> None:
    scene = Scene(a_spec_of(3, strategy="BlueGreen")).run(is_ready).settle(8)
    was, told = led_to(scene), contract(scene)
    scene.edit(a_spec_of(5, strategy="BlueGreen"))
    moved_and_edited(scene, a_spec_of(7, strategy="BlueGreen"), was, crashes=crashes)
    scene.running(Stage.FINETUNE).settle(20)
    assert led_to(scene) == was
    assert contract(scene) == told
    assert scene.status.served.vector_space == told["vectorSpace"]
    assert ("ConfigMap", NAMESPACE, f"{NAME}-revision-2") not in scene.cluster.objects


def test_no_stranger_is_named_beside_an_edit_that_is_not_valid() -> None:
    scene = Scene(a_spec_of(3, strategy="BlueGreen")).run(is_ready).settle(8)
    was = led_to(scene)
    scene.edit(a_spec_of(5, strategy="BlueGreen"))
    moved_and_edited(scene, a_spec_of(5, strategy="BlueGreen", pinRevision=77), was)
    scene.settle(10)
    assert led_to(scene) == was
    assert "DriftCorrected" not in scene.events()


def test_no_stranger_is_named_for_the_operators_own_move() -> None:
    scene = Scene(a_spec_of(3, strategy="Shadow")).run(is_ready).settle(3)
    was = led_to(scene)
    scene.edit(a_spec_of(5, strategy="Shadow"))
    scene.run(lambda scene: scene.condition("Ready") == "Unknown AwaitingAcknowledgement").settle(3)
    space = scene.status.served.candidate_vector_space
    scene.edit(a_spec_of(5, strategy="Shadow", acknowledgedVectorSpace=space))
    moved_and_edited(scene, a_spec_of(5, strategy="Shadow"), was)
    scene.settle(10)
    assert led_to(scene) == was
    assert "DriftCorrected" not in scene.events()


def test_a_move_that_is_refused_hides_no_loss() -> None:
    scene = Scene(a_spec_of(3)).run(is_ready).settle(3)
    was = led_to(scene)

    def refuses(call: Call, when: str) -> None:
        if (call.verb, call.kind, call.name, when) == ("apply", "Service", NAME, "before"):
            raise Forbidden("patch", "Service", NAMESPACE, call.name, "no right")

    scene.cluster.hook = refuses
    scene.edit(a_spec_of(5))
    scene.run(lambda scene: scene.condition("Validated").startswith("False Forbidden")).settle(3)
    for raw in scene.cluster.find("Deployment"):
        if raw["metadata"]["labels"][SERVING_LABEL] == was:
            scene.cluster.remove("Deployment", NAMESPACE, raw["metadata"]["name"])
    scene.settle(10)
    assert was not in servers(scene)
    assert not scene.status.served.url
    assert scene.status.phase == "Degraded"
    scene.cluster.hook = lambda call, when: None
    scene.run(is_ready)


def test_without_time_to_drain_what_drained_before_goes_too() -> None:
    scene = Scene(a_spec_of(3, drainSeconds=3600)).run(is_ready).settle(3)
    scene.edit(a_spec_of(5, drainSeconds=3600))
    scene.run(is_ready).settle(3)
    assert len(servers(scene)) == 2
    scene.edit(a_spec_of(7, drainSeconds=0))
    scene.run(is_ready).settle(5)
    assert servers(scene) == {led_to(scene)}
    assert stage_is(Stage.DEPLOY, "Succeeded")(scene)


@pytest.mark.parametrize("back", ["Recreate", "BlueGreen", "Shadow"])
def test_what_never_served_makes_room_for_the_way_back(back: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clients' Service still selects the server that Recreate has removed."""
    scene = Scene(a_spec_of(3, strategy="Recreate")).run(is_ready).settle(8)
    was = led_to(scene)
    monkeypatch.setattr(scene.world, "_serve", lambda _: None)  # nothing new starts
    scene.edit(a_spec_of(5, strategy="Recreate"))
    scene.run(lambda scene: bool(servers(scene) - {was}) and was not in servers(scene)).settle(5)
    scene.edit(a_spec_of(3, strategy=back))
    scene.settle(15)
    assert servers(scene) == {was}


def test_what_never_served_does_not_drain() -> None:
    deploy = {"strategy": "BlueGreen", "drainSeconds": 3600}
    scene = Scene(a_spec_of(3, **deploy))
    first = moved_and_edited(scene, a_spec_of(5, **deploy))
    scene.run(lambda scene: bool(servers(scene) - {first}))
    scene.edit(a_spec_of(3, **deploy))
    scene.run(is_ready).settle(8)
    assert servers(scene) == {first}


def test_a_first_server_that_clients_come_back_to_stays_at_the_end_of_its_drain() -> None:
    deploy = {"strategy": "Shadow", "drainSeconds": 600}
    scene = Scene(a_spec_of(3, **deploy))
    first = moved_and_edited(scene, a_spec_of(5, **deploy))
    scene.run(lambda scene: scene.condition("Ready") == "Unknown AwaitingAcknowledgement").settle(3)
    space = scene.status.served.candidate_vector_space
    scene.edit(a_spec_of(5, **deploy, acknowledgedVectorSpace=space))
    scene.run(is_ready).settle(2)
    scene.edit(a_spec_of(3, **deploy, acknowledgedVectorSpace=space))
    scene.run(lambda scene: scene.condition("Ready") == "Unknown AwaitingAcknowledgement").settle(3)
    seen = len(scene.events())
    scene.clock.now += timedelta(seconds=700)
    scene.settle(10)
    assert first in servers(scene)
    assert "Unavailable" not in scene.events()[seen:]
