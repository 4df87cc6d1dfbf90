"""What a revision's run has used, counted once however it went, and what is told while a stage runs."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from simulation.endings import BUG, DRAINED, HANG
from simulation.fake_cluster import NAMESPACE
from simulation.scene import Scene, a_scene, a_spec, is_ready, stage_is

from embedding_operator import record
from embedding_operator.metrics import Metrics
from embedding_stages.contract import Stage


def seconds_of(scene: Scene, stage: Stage) -> int:
    """That the pods of a stage have run, as they tell themselves."""
    found = 0
    for pod in scene.cluster.find("Pod"):
        if f"-{stage}-" not in pod["metadata"]["name"]:
            continue
        for item in pod["status"].get("containerStatuses", ()):
            state = item["state"].get("terminated") or item["state"]["running"]
            ended = state.get("finishedAt", f"{scene.clock.now:%Y-%m-%dT%H:%M:%SZ}")
            found += int((datetime.fromisoformat(ended) - datetime.fromisoformat(state["startedAt"])).total_seconds())
    return found


def test_every_pod_is_counted_once_over_drains_failures_and_restarts() -> None:
    scene = a_scene(stages={"finetune": {"retries": 9}})
    kept: list[Any] = []
    scene.cluster.collect_garbage = lambda: None  # type: ignore[method-assign]  # pods stay, to be counted by hand
    scene.running(Stage.FINETUNE)
    for ending in (DRAINED, BUG, DRAINED):
        scene.settle(7)
        scene.will(Stage.FINETUNE, HANG)
        scene.release(ending)
        scene.restart()
        scene.run(lambda scene: stage_is(Stage.FINETUNE, "Running")(scene) and _one_hangs(scene))
        kept.append(scene.status.stage(Stage.FINETUNE).usage.spent.gpu_s)
    scene.restart()
    scene.settle(4)
    scene.release()
    scene.run(is_ready)
    assert kept == sorted(kept)
    used = scene.status.stage(Stage.FINETUNE).usage
    assert used.spent.gpu_s == used.spent.active_s == seconds_of(scene, Stage.FINETUNE) > 0
    assert scene.status.stage(Stage.SDG).usage.spent.gpu_s == 0
    assert len(used.parts) <= 2


def _one_hangs(scene: Scene) -> bool:
    running = [pod for pod in scene.cluster.find("Pod") if pod["status"]["phase"] == "Running"]
    return any(scene.world.ending_of.get(pod["metadata"]["uid"]) is HANG for pod in running)


def test_a_pod_that_is_gone_stays_counted() -> None:
    scene = a_scene().running(Stage.FINETUNE)
    scene.clock.now += timedelta(minutes=25)
    scene.turn()
    before = scene.status.stage(Stage.FINETUNE).usage.spent.gpu_s
    assert before >= 600
    (pod,) = [raw["metadata"]["name"] for raw in scene.cluster.find("Pod") if "finetune" in raw["metadata"]["name"]]
    scene.cluster.remove("Pod", NAMESPACE, pod)
    scene.restart()
    scene.run(is_ready)
    assert scene.status.stage(Stage.FINETUNE).usage.spent.gpu_s >= before


def test_metrics_count_what_a_run_used_until_an_edit_ended_it(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Metrics(None)
    monkeypatch.setattr(record, "METRICS", counted)

    def told() -> float:
        (family,) = counted.gpu_seconds.collect()
        return sum(item.value for item in family.samples if item.name.endswith("_total"))

    scene = a_scene().running(Stage.FINETUNE)
    begun, before = scene.clock.now, told()
    scene.clock.now += timedelta(seconds=550)  # less than what is told while a stage runs
    used = (scene.clock.now - begun).total_seconds()
    scene.edit(a_spec(stages={"finetune": {"epochs": 7}}))
    scene.turn()
    assert used <= told() - before <= used + 30


def test_the_status_is_not_written_for_seconds_that_pass() -> None:
    scene = a_scene().running(Stage.FINETUNE)
    begun, written = scene.clock.now, len(scene.history)
    scene.settle(120)
    seconds = (scene.clock.now - begun).total_seconds()
    assert len(scene.history) - written <= seconds / 600 + 1


def test_pace_and_loss_are_told_while_a_stage_runs() -> None:
    scene = a_scene()
    scene.world.progress = {"percent": 50, "step": 1, "totalSteps": 2, "etaSeconds": 70, "loss": 0.51234, "rate": 81.5,
                            "unit": "tokens"}  # fmt: skip
    scene.running(Stage.FINETUNE)
    (told,) = [item["progress"] for item in scene.resource["status"]["stages"] if item["name"] == "finetune"]
    assert (told["loss"], told["rate"]) == ("0.51234", "81.5 tokens/s")
    scene.release()
    scene.run(is_ready)
    assert scene.status.stage(Stage.FINETUNE).rate == ""


def test_the_run_ends_as_soon_as_the_stages_after_this_one_took_before() -> None:
    scene = a_scene()
    scene.world.progress = {"percent": 50, "step": 1, "totalSteps": 2, "etaSeconds": 100}
    scene.running(Stage.FINETUNE)
    assert "etaSeconds" not in scene.status.run  # nobody knows how long eval takes
    scene.release()
    scene.run(is_ready)
    assert "etaSeconds" not in scene.status.run
    scene.edit(a_spec(stages={"finetune": {"epochs": 9}}))
    scene.running(Stage.FINETUNE)
    later = (Stage.EVAL, Stage.EXPORT, Stage.DEPLOY, Stage.VERIFY)
    took = [scene.status.stage(stage).took_s for stage in later]
    assert all(isinstance(seconds, int) for seconds in took), took
    assert scene.status.run["etaSeconds"] == 100 + sum(seconds or 0 for seconds in took)


def test_how_long_stages_took_is_remembered_over_a_pin() -> None:
    scene = a_scene()
    scene.world.progress = {"percent": 50, "step": 1, "totalSteps": 2, "etaSeconds": 100}
    scene.run(is_ready)
    scene.edit(a_spec(stages={"deploy": {"pinRevision": 1}}))
    scene.run(is_ready)
    scene.edit(a_spec())
    scene.run(is_ready)
    scene.edit(a_spec(stages={"finetune": {"epochs": 9}}))
    scene.running(Stage.FINETUNE)
    assert "etaSeconds" in scene.status.run
