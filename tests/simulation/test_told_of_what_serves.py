"""What is told of the server that clients reach, when it changes, fails a measurement, or another one fails."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from simulation.clients import a_spec_of, led_to
from simulation.endings import failed
from simulation.fake_cluster import NAMESPACE
from simulation.scene import Scene, a_scene, a_spec, is_ready, is_stalled, stage_is
from simulation.test_gates_sets import TORCH, keep_training_sets, labelled
from simulation.world import World

from embedding_operator.resource.labels import SERVING_LABEL
from embedding_operator.resource.times import parse_time
from embedding_operator.resource_metrics import row_of
from embedding_stages.contract import ExitCode, Stage

DAY = 86_400
MOVED = "sha256:moved"


def pods_of_servers(scene: Scene) -> list[dict[str, Any]]:
    return [raw for raw in scene.cluster.find("Pod") if SERVING_LABEL in raw["metadata"]["labels"]]


def restart_servers(scene: Scene) -> None:
    """Their pods go, and others come, with what the tag stands for by now."""
    for raw in pods_of_servers(scene):
        scene.cluster.remove("Pod", NAMESPACE, raw["metadata"]["name"])


@pytest.mark.parametrize("room", [3, 2])
def test_an_image_that_comes_with_a_scaling_is_measured(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = a_scene(stages={"deploy": {"replicas": 1}}).run(is_ready).settle(3)
    serve = World._serve

    def while_there_is_room(world: World, pod: dict[str, Any]) -> None:
        fits = [raw["metadata"]["name"] for raw in pods_of_servers(scene)][:room]
        if pod["metadata"]["name"] in fits and pod["status"]["phase"] != "Running":  # who runs keeps his image
            serve(world, pod)

    monkeypatch.setattr(World, "_serve", while_there_is_room)
    scene.world.image_id, scene.world.served_offset = MOVED, -0.3
    scene.edit(a_spec(stages={"deploy": {"replicas": 3}}))
    began = scene.clock.now
    while scene.clock.now - began < timedelta(minutes=10):
        scene.turn()
    assert "ImageMoved" in scene.events()
    assert not is_ready(scene)


@pytest.mark.parametrize("reason", ["InvalidVectors", "RolesSwapped", "EndpointRefused", "ModelNameUnknown"])
def test_what_clients_reach_and_cannot_be_measured_any_more_is_degraded_until_another_serves(reason: str) -> None:
    scene = a_scene().run(is_ready).settle(5)
    scene.will(Stage.VERIFY, failed(ExitCode.STOPPED, reason, "a vector is not finite", "spec.stages.deploy.image"))
    scene.world.image_id = MOVED
    restart_servers(scene)
    scene.run(stage_is(Stage.VERIFY, "Failed")).settle(3)
    first = (scene.status.phase, scene.condition("Verified"))
    scene.edit(a_spec_of(5))
    scene.running(Stage.FINETUNE)
    second = (scene.status.phase, scene.condition("Verified"))
    assert (first, second) == (("Degraded", f"False {reason}"),) * 2
    scene.release()
    scene.run(is_ready)
    assert scene.status.served.refused == {}


@pytest.mark.parametrize("measured", [False, True], ids=["", "and measured once more"])
def test_the_cure_of_canaries_that_differ_is_seen_when_it_is_made_anew_or_measured(*, measured: bool) -> None:
    scene = a_scene(verification={"intervalSeconds": DAY}).run(is_ready).settle(20)
    scene.cluster.swapped = "other weights"
    scene.clock.now += timedelta(seconds=DAY)
    scene.run(lambda scene: scene.condition("Verified") == "False CanariesDiffer")
    assert "delete its Deployment: it is made and checked anew" in scene.message("Verified")
    scene.cluster.swapped = ""
    scene.cluster.mark_deleted("Deployment", NAMESPACE, scene.cluster.find("Deployment")[0]["metadata"]["name"])
    scene.settle(10)
    if measured:
        scene.edit(a_spec(verification={"intervalSeconds": DAY}, retryToken="once more"))
        scene.settle(20)
    for _ in range(12):
        scene.clock.now += timedelta(minutes=5)
        scene.settle(2)
    assert is_ready(scene)


@pytest.mark.parametrize("strategy", ["BlueGreen", "Shadow"])
def test_a_candidate_that_crashes_degrades_nothing(strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = a_scene(stages={"deploy": {"strategy": strategy}}).run(is_ready).settle(3)
    active, serve = led_to(scene), World._serve

    def crash(world: World, pod: dict[str, Any]) -> None:
        world.server = "ready" if pod["metadata"]["labels"][SERVING_LABEL] == active else "crash"
        serve(world, pod)
        world.server = "ready"

    monkeypatch.setattr(World, "_serve", crash)
    scene.edit(a_spec_of(5, strategy=strategy))
    scene.run(stage_is(Stage.DEPLOY, "Failed")).settle(10)
    assert (led_to(scene), row_of(scene.status).available) == (active, True)
    assert scene.condition("Ready") == "False ServerCrashed"
    assert scene.status.phase == "Blocked"


def test_an_image_that_comes_with_a_scaling_is_measured_once_it_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kubelet tells of it minutes before, when its container starts: measured then, only the old pods answer."""
    loads_for(monkeypatch, timedelta(minutes=2))
    scene = a_scene(stages={"deploy": {"replicas": 1}}).run(is_ready).settle(3)
    scene.world.image_id = MOVED
    scene.edit(a_spec(stages={"deploy": {"replicas": 2}}))
    began = scene.clock.now
    while scene.clock.now - began < timedelta(minutes=30):
        scene.turn()
    assert len(pods_of_servers(scene)) == 2
    assert not is_ready(scene)


def loads_for(patch: pytest.MonkeyPatch, time: timedelta) -> None:
    """A server's container runs at once, and answers when it has loaded the model; with a moved image otherwise."""
    serve, work = World._serve, World._work

    def answers(world: World, pod: dict[str, Any]) -> bool:
        state = (pod["status"].get("containerStatuses") or [{}])[0].get("state", {})
        began = parse_time((state.get("running") or {}).get("startedAt"))
        return pod["status"]["phase"] == "Running" and began is not None and world.cluster.clock() - began >= time

    def answering(world: World, pods: list[dict[str, Any]]) -> int:
        return sum(answers(world, pod) for pod in pods)

    def keep_image(world: World, pod: dict[str, Any]) -> None:
        if pod["status"]["phase"] != "Running":
            serve(world, pod)

    def measure(world: World, request: Any) -> Any:
        servers = [raw for raw in world.cluster.find("Pod") if SERVING_LABEL in raw["metadata"]["labels"]]
        moved = [raw for raw in servers if raw["status"].get("containerStatuses", [{}])[0].get("imageID") == MOVED]
        world.served_offset = -0.3 if any(answers(world, raw) for raw in moved) else 0.0
        return work(world, request)

    patch.setattr(World, "_answering", answering)
    patch.setattr(World, "_serve", keep_image)
    patch.setattr(World, "_work", measure)


def test_an_edit_of_the_set_and_back_is_no_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    """The old measurement's Job may still be there: what it found is no word against the new one."""
    keep_training_sets(monkeypatch)
    scene = a_scene(**labelled("first"), stages=TORCH).run(is_ready).settle(3)
    scene.will(
        Stage.VERIFY, *[failed(ExitCode.STOPPED, "InvalidVectors", "not finite", "spec.stages.deploy.image")] * 9
    )
    scene.edit(a_spec(**labelled("corrected"), stages=TORCH))
    scene.turn()
    scene.run(is_stalled).settle(3)
    assert (scene.status.phase, scene.condition("Verified")) == ("Degraded", "False InvalidVectors")
    ran = len(scene.ran(Stage.VERIFY))
    scene.edit(a_spec(**labelled("first"), stages=TORCH))
    scene.turn()
    scene.settle(20)
    assert len(scene.ran(Stage.VERIFY)) > ran
