"""A status that an earlier release wrote is taken up as it is, and what it does not say is not needed."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from simulation.endings import HANG
from simulation.fake_cluster import NAMESPACE
from simulation.scene import NAME, a_scene, a_spec, is_ready
from simulation.upgrades import as_first_written, jobs

from embedding_operator.resource.api import KIND
from embedding_operator.resource.labels import SERVING_LABEL
from embedding_stages.contract import Stage


@pytest.mark.parametrize("edit", [None, {"tolerance": {"atOne": "0.05"}}], ids=["untouched", "edited"])
def test_a_status_that_the_first_release_wrote_is_taken_up(edit: dict[str, Any] | None) -> None:
    scene = a_scene()
    scene.world.canary_cosine = None  # nobody asked for canaries then
    scene.run(is_ready).settle(2)
    before, jobs_before = scene.status, len(scene.cluster.created_jobs)
    scene.cluster.change(KIND, NAMESPACE, NAME, lambda raw: raw.update(status=as_first_written(raw["status"])))
    scene.restart()
    if edit is not None:
        scene.edit(a_spec(**edit))
    scene.settle(5)
    assert is_ready(scene)
    assert jobs(scene, jobs_before) == []
    assert (scene.status.ndcg, scene.status.uplift) == (before.ndcg, before.uplift)
    if edit is None:
        assert scene.status == before


@pytest.mark.parametrize("stage", [Stage.SDG, Stage.FINETUNE, Stage.VERIFY])
def test_a_run_that_the_first_release_began_is_ended(stage: Stage) -> None:
    scene = a_scene().running(stage)
    scene.cluster.change(KIND, NAMESPACE, NAME, lambda raw: raw.update(status=as_first_written(raw["status"])))
    scene.restart()
    scene.release()
    scene.run(is_ready)
    assert {len(scene.attempts(item)) for item in Stage if item is not Stage.DEPLOY} == {1}


def test_recreate_does_not_judge_what_was_served_before_there_were_gates() -> None:
    deploy: dict[str, Any] = {"strategy": "Recreate"}
    scene = a_scene(stages={"deploy": deploy}, gates={"onFail": "Warn"})
    scene.world.tuned_quality = 0.4
    scene.run(is_ready).settle(3)

    def as_before(raw: dict[str, Any]) -> None:
        status = as_first_written(raw["status"])
        for key in ("history", "evaluationSet"):
            del status[key]
        evaluated = next(entry for entry in status["stages"] if entry["name"] == "eval")
        del evaluated["details"]["comparisons"]
        raw["status"] = status

    scene.cluster.change(KIND, NAMESPACE, NAME, as_before)
    scene.edit(a_spec(stages={"deploy": deploy | {"modelName": "other"}}))
    scene.run(is_ready)
    assert scene.condition("QualityGatePassed") == "True GateDisabled"


def without_what_is_resolved(*names: str) -> Callable[[dict[str, Any]], None]:
    """As a release wrote the record that did not know these parts."""

    def strip(raw: dict[str, Any]) -> None:
        record = json.loads(raw["status"]["record"])
        for name in names:
            record["resolved"].pop(name, None)
        raw["status"]["record"] = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    return strip


def test_an_upgrade_writes_nothing_to_thousands_that_are_ready() -> None:
    scene = a_scene(limits={"gpuSeconds": 99999}).run(is_ready).settle(5)
    scene.cluster.change(KIND, NAMESPACE, NAME, without_what_is_resolved("measured", "limits"))
    scene.restart()
    written = len(scene.history)
    scene.settle(5)
    assert len(scene.history) == written


@pytest.mark.parametrize("upgraded", [False, True])
def test_an_image_that_moved_after_a_gap_is_measured_in_a_run_of_its_own(upgraded: bool) -> None:
    hour = 3600
    scene = a_scene(runPolicy={"activeDeadlineSeconds": hour}).running(Stage.EXPORT)
    scene.clock.now += timedelta(seconds=hour - 60)
    scene.release()
    scene.world.step()
    scene.run(is_ready).settle(5)
    if upgraded:
        scene.cluster.change(KIND, NAMESPACE, NAME, without_what_is_resolved("measured"))
        scene.restart()
        scene.settle(5)
    scene.clock.now += timedelta(days=30)
    scene.world.server = "loading"  # as while its node is drained
    scene.settle(5)
    scene.world.server, scene.world.image_id = "ready", "sha256:def"
    scene.will(Stage.VERIFY, HANG)
    for pod in scene.cluster.find("Pod"):
        if SERVING_LABEL in pod["metadata"]["labels"]:
            scene.world._remove(pod)
    scene.settle(30)
    scene.release()
    scene.run(is_ready)
