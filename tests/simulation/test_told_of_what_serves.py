"""What is told of the server that clients reach, when it changes, fails a measurement, or another one fails."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from simulation.clients import a_spec_of, led_to
from simulation.endings import failed
from simulation.fake_cluster import NAMESPACE
from simulation.scene import Scene, a_scene, a_spec, is_ready, is_stalled, stage_is
from simulation.world import World

from embedding_operator.resource.labels import SERVING_LABEL
from embedding_operator.resource_metrics import row_of
from embedding_stages.contract import ExitCode, Stage

DAY = 86_400
WIDE = {"atOne": "0.2", "atFiveAndAbove": "0.2"}


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
    scene.world.image_id, scene.world.served_offset = "sha256:moved", -0.3
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
    scene.world.image_id = "sha256:moved"
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
def test_the_cure_of_canaries_that_differ_is_seen_within_the_hour(*, measured: bool) -> None:
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


def test_a_tolerance_that_is_taken_back_beside_another_edit_accepts_what_serves() -> None:
    scene = a_scene(tolerance=WIDE)
    scene.world.served_offset = -0.1
    scene.run(is_ready)
    scene.edit(a_spec())
    scene.run(is_stalled)
    assert scene.status.phase == "Degraded"
    scene.edit(a_spec(tolerance=WIDE, stages={"finetune": {"epochs": 5}}))
    scene.running(Stage.FINETUNE)
    assert (scene.status.phase, scene.condition("Verified")) == ("Running", "Unknown Pending")
