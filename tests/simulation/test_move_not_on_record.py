"""Clients were moved, or a server was measured, in a pass whose status was lost: what the next pass makes of it."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from simulation.fake_cluster import NAMESPACE, Call, Crash
from simulation.scene import NAME, Scene, a_spec, is_ready, stage_is

from embedding_operator.cluster.errors import Forbidden, QuotaExceeded
from embedding_operator.resource.labels import SERVING_LABEL
from embedding_operator.resource.times import stamp
from embedding_stages.contract import Stage


def a_spec_of(epochs: int, **deploy: Any) -> dict[str, Any]:
    return a_spec(stages={"deploy": deploy, "finetune": {"epochs": epochs}})


def led_to(scene: Scene) -> str:
    """Of the clients' Service."""
    raw = scene.cluster.objects.get(("Service", NAMESPACE, NAME))
    return str(raw["spec"]["selector"][SERVING_LABEL]) if raw is not None else ""


def servers(scene: Scene) -> set[str]:
    metas = [raw["metadata"] for raw in scene.cluster.find("Deployment")]
    return {meta["labels"][SERVING_LABEL] for meta in metas if "deletionTimestamp" not in meta}


def contract(scene: Scene) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(scene.cluster.object("ConfigMap", f"{NAME}-contract")["data"]["contract.json"])
    return found


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


@pytest.mark.parametrize("edited", [False, True], ids=["no edit", "an edit of drainSeconds"])
@pytest.mark.parametrize("on_record", [True, False], ids=["deploy is on record", "nothing is"])
@pytest.mark.parametrize("how", ["new pods", "containers that restart in place"])
def test_a_server_is_not_judged_by_what_measured_another_image(how: str, *, on_record: bool, edited: bool) -> None:
    """The Job of verify was made and is not on record; the operator is away while it measures, and the tag moves."""
    scene = Scene(a_spec_of(3))
    full, crashed = [on_record], [False]

    def hook(call: Call, when: str) -> None:
        making = (call.verb, call.kind) == ("create", "Job") and "-verify-" in call.name
        if making and when == "before" and full[0]:
            raise QuotaExceeded("create", "Job", NAMESPACE, call.name, "exceeded quota")
        crashed[0] |= making and when == "after"
        if (call.verb, when) == ("status", "before") and crashed[0]:
            crashed[0] = False
            raise Crash

    scene.cluster.hook = hook
    if on_record:
        scene.run(lambda scene: scene.status.stage(Stage.VERIFY).reason == "WaitingForQuota").settle(2)
    full[0] = False
    scene.run(lambda scene: scene.crashes > 0)
    assert bool(scene.status.stage(Stage.DEPLOY).image_ids) == on_record
    assert scene.status.stage(Stage.VERIFY).attempt == 0
    _nobody_works(scene)
    scene.world.image_id, scene.world.served_offset = "sha256:moved", -0.3
    for raw in scene.cluster.find("Pod"):
        if SERVING_LABEL not in raw["metadata"]["labels"]:
            continue
        if how == "new pods":
            scene.cluster.remove("Pod", NAMESPACE, raw["metadata"]["name"])
        else:
            scene.cluster.change("Pod", NAMESPACE, raw["metadata"]["name"], lambda pod: _restart(pod, scene))
    _nobody_works(scene)
    if edited and on_record:
        scene.edit(a_spec_of(3, drainSeconds=77))
    scene.settle(40)
    assert len(scene.attempts(Stage.VERIFY)) == 2
    assert scene.condition("Verified") == "False OutsideTolerance"


@pytest.mark.parametrize("strategy", ["BlueGreen", "Recreate"])
def test_a_tag_that_moved_beside_an_edit_is_measured_after_the_way_back(strategy: str) -> None:
    scene = Scene(a_spec_of(3, strategy=strategy)).run(is_ready).settle(3)
    was = led_to(scene)
    scene.edit(a_spec_of(5, strategy=strategy))
    scene.run(lambda scene: scene.status.stage(Stage.DEPLOY).reason == "Starting" and bool(servers(scene) - {was}))
    scene.world.image_id, scene.world.served_offset = "sha256:moved", -0.3
    for raw in scene.cluster.find("Pod"):
        if raw["metadata"]["labels"].get(SERVING_LABEL) == was:
            scene.cluster.remove("Pod", NAMESPACE, raw["metadata"]["name"])
    scene.edit(a_spec_of(3, strategy=strategy))
    scene.settle(60)
    assert scene.condition("Verified") == "False OutsideTolerance"
    assert "ImageMoved" in scene.events()


def _restart(pod: dict[str, Any], scene: Scene) -> None:
    """Its container ended, and the kubelet pulled what the tag stands for by then."""
    for container in pod["status"]["containerStatuses"]:
        container["imageID"] = scene.world.image_id
        container["state"] = {"running": {"startedAt": stamp(scene.clock.now)}}


def _nobody_works(scene: Scene) -> None:
    for _ in range(8):
        scene.step()
        scene.clock.now += timedelta(seconds=10)


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


@pytest.mark.parametrize("lost", [("ConfigMap",), ("ConfigMap", "Deployment")], ids=["record", "record and server"])
def test_a_pinned_revision_serves_on_without_its_record(lost: tuple[str, ...]) -> None:
    scene = Scene(a_spec_of(3)).run(is_ready).settle(3)
    was = led_to(scene)
    scene.edit(a_spec_of(5))
    scene.run(is_ready).settle(20)
    scene.edit(a_spec_of(5, pinRevision=1))
    scene.run(is_ready).settle(20)
    for kind in lost:
        for raw in scene.cluster.find(kind):
            if kind == "Deployment" or raw["metadata"]["name"] == f"{NAME}-revision-1":
                scene.cluster.remove(kind, NAMESPACE, raw["metadata"]["name"])
    scene.settle(3)
    scene.run(is_ready).settle(5)
    assert is_ready(scene)
    assert led_to(scene) == was
    assert was in servers(scene)
    seen = len(scene.history)
    scene.edit(a_spec_of(5, pinRevision=1, drainSeconds=77))
    scene.settle(10)
    assert {status["phase"] for status in scene.history[seen:]} == {"Ready"}
    assert was in servers(scene)


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


def test_a_pinned_revision_without_its_record_outlives_a_suspension() -> None:
    scene = Scene(a_spec_of(3)).run(is_ready).settle(3)
    scene.edit(a_spec_of(5))
    scene.run(is_ready).settle(8)
    pinned = a_spec_of(5, pinRevision=1)
    scene.edit(pinned)
    scene.run(is_ready).settle(8)
    scene.cluster.remove("ConfigMap", NAMESPACE, f"{NAME}-revision-1")
    scene.edit({**pinned, "suspend": True})
    scene.settle(5)
    assert scene.status.phase == "Suspended"
    scene.edit(pinned)
    scene.run(is_ready)
