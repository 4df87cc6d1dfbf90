"""What is told of the server that clients reach, when it changes, fails a measurement, or another one fails."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from simulation.clients import a_spec_of, led_to
from simulation.endings import failed
from simulation.fake_cluster import NAMESPACE
from simulation.scene import a_scene, a_spec, is_ready, is_stalled, stage_is
from simulation.test_gates_sets import TORCH, keep_training_sets, labelled
from simulation.test_moved_images import MOVED, restart_servers
from simulation.world import World

from embedding_operator.resource.labels import SERVING_LABEL
from embedding_operator.resource_metrics import row_of
from embedding_stages.contract import ExitCode, Stage

DAY = 86_400


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


def test_a_measurement_that_ended_in_the_future_is_no_reason_to_ask_again_and_again() -> None:
    """The clock that the Job's end was told by was ahead, and is set back."""
    hourly = {"intervalSeconds": 3600}
    scene = a_scene(verification=hourly).run(is_ready).settle(20)
    scene.cluster.swapped = "other weights"
    scene.clock.now += timedelta(days=400)
    scene.edit(a_spec(verification=hourly, retryToken="once more"))
    scene.run(lambda scene: len(scene.ran(Stage.VERIFY)) == 2).settle(5)
    scene.clock.now -= timedelta(days=400)
    scene.clock.now += timedelta(hours=1, seconds=5)
    scene.settle(5)
    written = scene.writes()
    scene.settle(60)
    assert scene.writes() - written <= 2
