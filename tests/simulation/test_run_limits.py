"""What a revision's run may use: its time, its GPUs, its tokens. What is over is stopped, kept and said."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from simulation.endings import BUG, HANG, PENDING
from simulation.fake_cluster import NAMESPACE
from simulation.scene import Scene, a_scene, a_spec, is_ready, is_stalled, stage_is
from simulation.test_refused_passes import refusing

from embedding_operator.cluster.errors import ClusterError, Forbidden, Unavailable
from embedding_stages.contract import Stage

LLM = {"sdg": {"provider": {"openAI": {"baseURL": "http://llm/v1", "model": "m"}}}}
HOUR = 3600


@pytest.mark.parametrize(
    ("section", "reason", "field"),
    [
        ({"runPolicy": {"activeDeadlineSeconds": HOUR}}, "DeadlineExceeded", "spec.runPolicy.activeDeadlineSeconds"),
        ({"limits": {"gpuSeconds": HOUR}}, "GPUBudgetSpent", "spec.limits.gpuSeconds"),
    ],
)
def test_a_run_that_is_over_its_limit_is_stopped_in_time_and_goes_on_by_a_token(
    section: dict[str, Any], reason: str, field: str
) -> None:
    scene = a_scene(**section).running(Stage.FINETUNE)
    begun = scene.clock.now
    scene.run(is_stalled, turns=500)
    used = (scene.clock.now - begun).total_seconds()
    assert HOUR - 60 <= used <= HOUR + 15
    assert scene.condition("Trained") == f"False {reason}"
    assert scene.message("Trained").startswith(f"finetune: {field}: this revision's run has used 36")
    assert f" of {HOUR} " in scene.message("Trained")
    assert "finetune 3" in scene.message("Trained")
    assert "spec.retryToken" in scene.message("Trained")
    assert scene.events().count(reason) == 1
    assert scene.status.last_failure["reason"] == reason
    assert scene.states()["prep"] == "Succeeded"
    scene.settle(3)
    assert not [raw for raw in scene.cluster.find("Job") if "finetune" in raw["metadata"]["name"]]
    written = len(scene.history)
    scene.settle(30)
    assert len(scene.history) == written
    scene.edit(a_spec(**section, retryToken="again"))
    scene.run(is_ready)
    again = [name.split("-")[1] for name in scene.cluster.created_jobs[4:]]
    assert again == ["finetune", "eval", "export", "verify"]


@pytest.mark.parametrize("progress", [{"etaSeconds": float("inf")}, {"percent": float("nan")}, {"llmTokens": 10**400}])
def test_a_run_whose_stage_prints_what_is_no_number_is_stopped_in_time(progress: dict[str, Any]) -> None:
    scene = a_scene(limits={"gpuSeconds": HOUR})
    scene.world.progress = {"percent": 0, "step": 0, "totalSteps": 9, **progress}
    scene.running(Stage.FINETUNE).run(is_stalled, turns=500)
    assert scene.condition("Trained") == "False GPUBudgetSpent"


def test_a_higher_limit_is_another_run_too() -> None:
    scene = a_scene(limits={"gpuSeconds": HOUR}).running(Stage.FINETUNE)
    scene.run(is_stalled, turns=500).settle(2)  # the Job goes once it is on record that it has used too much
    scene.edit(a_spec(limits={"gpuSeconds": 2 * HOUR}))
    scene.run(is_ready)
    assert len(scene.attempts(Stage.FINETUNE)) == 2


def test_what_serves_goes_on_when_a_run_is_stopped() -> None:
    scene = a_scene().run(is_ready)
    edited = {"stages": {"finetune": {"epochs": 9}}, "limits": {"gpuSeconds": HOUR}}
    scene.edit(a_spec(**edited))
    scene.running(Stage.FINETUNE)
    scene.run(is_stalled, turns=500)
    assert scene.status.served.active_revision == 1
    assert scene.status.served.url
    assert scene.status.phase == "Blocked"


def test_a_run_that_is_over_makes_no_further_attempt() -> None:
    scene = a_scene(limits={"gpuSeconds": HOUR}).running(Stage.FINETUNE)
    scene.clock.now += timedelta(seconds=HOUR)
    scene.release(BUG)
    scene.world.step()  # it ends by itself, before anybody sees that it is over
    scene.run(is_stalled)
    assert scene.condition("Trained") == "False GPUBudgetSpent"
    assert len(scene.attempts(Stage.FINETUNE)) == 1


def test_a_stage_that_is_done_is_done_and_the_next_one_on_a_gpu_does_not_begin() -> None:
    scene = a_scene(limits={"gpuSeconds": HOUR}).running(Stage.FINETUNE)
    scene.clock.now += timedelta(seconds=HOUR)
    scene.release()
    scene.world.step()
    scene.run(is_stalled)
    assert scene.states()["finetune"] == "Succeeded"
    assert scene.condition("Evaluated") == "False GPUBudgetSpent"
    assert scene.attempts(Stage.EVAL) == []


def test_a_stage_without_gpus_goes_on_where_they_are_spent() -> None:
    cpus = {"resources": {"limits": {"nvidia.com/gpu": "0"}}}
    scene = a_scene(limits={"gpuSeconds": HOUR}, stages={"eval": cpus}).running(Stage.FINETUNE)
    scene.clock.now += timedelta(seconds=HOUR)
    scene.release()
    scene.world.step()
    scene.run(is_ready)
    assert float(scene.status.run["gpuHours"]) >= 1


@pytest.mark.parametrize("told", ["progress", "result"])
def test_tokens_are_counted_as_they_are_told(told: str) -> None:
    scene = a_scene(limits={"llmTokens": 5000}, stages=LLM)
    if told == "progress":
        scene.will(Stage.SDG, HANG)
        scene.run(stage_is(Stage.INPUTS, "Succeeded"))
        scene.world.progress = {"percent": 10, "step": 1, "totalSteps": 10, "llmTokens": 5200}
        scene.run(is_stalled).settle(2)
        assert scene.condition("DataReady") == "False TokenBudgetSpent"
        message = scene.message("DataReady")
        assert "spec.limits.llmTokens: this revision's run has used 5200 of 5000 tokens (sdg 5200)" in message
        scene.world.progress = {"percent": 10}
        scene.edit(a_spec(limits={"llmTokens": 5000}, stages=LLM, retryToken="again"))
        scene.run(is_ready)
        assert "llmTokens" not in scene.status.run
    else:
        scene.world.llm_tokens = 7000
        scene.run(is_ready)  # it was done before it was over, and nothing asks after it
        assert scene.status.run["llmTokens"] == 7000


def test_waiting_and_suspension_cost_nothing() -> None:
    section = {"runPolicy": {"activeDeadlineSeconds": HOUR, "startDeadlineSeconds": 86400}}
    scene = a_scene(**section)
    scene.will(Stage.PREP, PENDING)
    scene.run(stage_is(Stage.PREP, "Waiting"))
    scene.clock.now += timedelta(hours=20)
    scene.turn()
    assert scene.states()["prep"] == "Waiting"
    scene.world.ending_of.update({raw["metadata"]["uid"]: HANG for raw in scene.cluster.find("Pod")})
    scene.run(stage_is(Stage.PREP, "Running"))
    scene.edit(a_spec(**section, suspend=True))
    scene.settle(3)
    scene.clock.now += timedelta(hours=20)
    scene.settle(3)
    scene.edit(a_spec(**section))
    scene.run(is_ready)
    assert scene.status.run["activeSeconds"] < 600


def test_an_attempt_that_an_edit_lets_go_on_costs_the_new_run_what_it_takes_from_then_on() -> None:
    scene = a_scene().running(Stage.FINETUNE)
    scene.clock.now += timedelta(hours=5)
    scene.turn()
    assert scene.status.run["gpuHours"].startswith("5.0")
    scene.edit(a_spec(limits={"gpuSeconds": HOUR}))
    scene.settle(20)
    assert scene.states()["finetune"] == "Running"
    assert float(scene.status.run.get("gpuHours", "0")) < 0.2
    scene.release()
    scene.run(is_ready)
    assert len(scene.attempts(Stage.FINETUNE)) == 1


def scaled(replicas: int, **sections: Any) -> dict[str, Any]:
    return a_spec(stages={"deploy": {"replicas": replicas}}, **sections)


def test_scaling_gives_a_run_none_of_its_limits_anew() -> None:
    limits = {"runPolicy": {"activeDeadlineSeconds": HOUR}, "limits": {"gpuSeconds": HOUR}}
    scene = a_scene(stages={"deploy": {"replicas": 1}}, **limits).running(Stage.FINETUNE)
    begun, revision = scene.clock.now, scene.status.revision
    for replicas in (2, 3, 2, 5):
        scene.clock.now += timedelta(seconds=600)
        scene.edit(scaled(replicas, **limits))
        scene.settle(3)
        assert scene.status.observed_generation == scene.resource["metadata"]["generation"]
        assert scene.status.revision == revision
    scene.run(is_stalled, turns=500)
    assert (scene.clock.now - begun).total_seconds() <= HOUR + 15
    failed = scene.status.stage(Stage.FINETUNE)
    scene.edit(scaled(1, **limits))
    scene.settle(5)
    assert scene.status.stage(Stage.FINETUNE) == failed, "a failed stage is not tried again for it"
    scene.edit(scaled(1, **limits, retryToken="again"))
    scene.run(lambda scene: scene.status.stage(Stage.FINETUNE).state == "Running")
    assert scene.status.revision == revision + 1
    scene.edit(scaled(4, **limits, retryToken="again"))
    scene.release()
    scene.run(is_ready)
    assert scene.status.revision == revision + 1


@pytest.mark.parametrize("error", [Forbidden, Unavailable])
def test_scaling_makes_no_revision_while_nothing_can_be_read(error: type[ClusterError]) -> None:
    """A scaling that was only heard of, and another one when something can be decided again."""
    scene = a_scene(stages={"deploy": {"replicas": 1}}).running(Stage.FINETUNE)
    revision = scene.status.revision
    scene.cluster.hook = refusing("get", "Job", error)
    for replicas in (2, 3):
        scene.edit(scaled(replicas))
        scene.settle(20)
    assert scene.status.observed_generation == scene.resource["metadata"]["generation"]
    scene.cluster.hook = lambda call, when: None
    scene.edit(scaled(5))
    scene.run(lambda scene: scene.states()["finetune"] == "Running").settle(3)
    assert scene.status.revision == revision


def test_a_moved_image_is_measured_though_the_run_that_came_to_ready_has_used_what_it_may() -> None:
    scene = a_scene(runPolicy={"activeDeadlineSeconds": HOUR}).running(Stage.EXPORT)
    scene.clock.now += timedelta(seconds=HOUR - 60)
    scene.release()
    scene.world.step()
    scene.run(is_ready).settle(5)
    assert scene.status.run["activeSeconds"] > HOUR - 60
    begun = scene.status.run["startedAt"]
    scene.clock.now += timedelta(days=30)
    scene.world.image_id = "sha256:def"
    scene.will(Stage.VERIFY, HANG)
    _end_server_pods(scene)
    scene.settle(30)
    scene.release()
    scene.run(is_ready)
    assert scene.events().count("ImageMoved") == 1
    assert scene.status.revision == 1
    assert scene.status.run["startedAt"] > begun
    assert scene.status.run["activeSeconds"] < HOUR / 2


def test_measuring_a_moved_image_has_the_limits_of_a_run() -> None:
    scene = a_scene(runPolicy={"activeDeadlineSeconds": HOUR}).run(is_ready).settle(5)
    scene.world.image_id = "sha256:def"
    scene.will(Stage.VERIFY, HANG)
    _end_server_pods(scene)
    scene.run(stage_is(Stage.VERIFY, "Running"))
    begun = scene.clock.now
    scene.clock.now += timedelta(seconds=HOUR / 2)
    scene.world.image_id = "sha256:123"  # while it is measured: that is no other run
    _end_server_pods(scene)
    scene.will(Stage.VERIFY, HANG)
    scene.run(is_stalled, turns=500)
    assert scene.status.stage(Stage.VERIFY).reason == "DeadlineExceeded"
    assert (scene.clock.now - begun).total_seconds() < HOUR + 120


def _end_server_pods(scene: Scene) -> None:
    for raw in scene.cluster.find("Pod"):
        if raw["metadata"]["ownerReferences"][0]["kind"] == "Deployment":
            scene.cluster.remove("Pod", NAMESPACE, raw["metadata"]["name"])
