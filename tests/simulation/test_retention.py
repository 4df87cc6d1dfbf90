"""spec.retention: how long Jobs that ended stay, and how many revisions can be pinned."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from simulation.endings import BAD_INPUT, BUG, TRANSIENT
from simulation.scene import Scene, a_scene, a_spec, is_ready, is_stalled

from embedding_operator.resource.pipeline import PIPELINE
from embedding_stages.contract import Stage

DAY = 86400


def jobs_of(scene: Scene) -> list[str]:
    return sorted(raw["metadata"]["name"].split("-")[1] for raw in scene.cluster.find("Job"))


@pytest.mark.parametrize("seconds", [0, 600])
def test_a_job_that_succeeded_goes_when_its_time_is_over(seconds: int) -> None:
    scene = a_scene(retention={"succeededSeconds": seconds})
    scene.run(is_ready)
    assert len(scene.cluster.created_jobs) == len(PIPELINE)
    assert ("inputs" in jobs_of(scene)) == (seconds > 0)
    scene.clock.now += timedelta(seconds=seconds)
    scene.settle(5)
    assert jobs_of(scene) == []
    written, writes = len(scene.history), scene.writes()
    scene.settle(30)
    assert (len(scene.history), scene.writes()) == (written, writes)
    scene.edit(a_spec(retention={"succeededSeconds": seconds}, tolerance={"atOne": "0.2"}))
    scene.run(is_ready)
    assert len(scene.cluster.created_jobs) == len(PIPELINE), "nothing is missed"


def test_an_operator_that_is_away_when_a_job_ends_still_takes_its_result() -> None:
    scene = a_scene(retention={"succeededSeconds": 0, "failedSeconds": 0}).running(Stage.FINETUNE)
    scene.release()
    for _ in range(5):
        scene.world.step()
        scene.clock.now += timedelta(hours=4)
    scene.restart()
    scene.run(is_ready)
    assert len(scene.attempts(Stage.FINETUNE)) == 1


def test_attempts_that_failed_are_counted_before_they_go() -> None:
    scene = a_scene(retention={"failedSeconds": 0})
    scene.will(Stage.PREP, *[TRANSIENT] * 9)
    scene.run(is_stalled, turns=300)
    assert len(scene.attempts(Stage.PREP)) == 4
    scene.settle(5)
    assert "prep" not in jobs_of(scene)
    assert "sdg" in jobs_of(scene)
    assert scene.status.last_failure["job"] == scene.attempts(Stage.PREP)[-1]
    scene.world.endings.clear()
    scene.edit(a_spec(retention={"failedSeconds": 0}, retryToken="again"))
    scene.run(is_ready)


@pytest.mark.parametrize(("kept", "left"), [({"failedSeconds": 7 * DAY}, 1), ({"failedSeconds": 60}, 0), ({}, 0)])
def test_what_failed_stays_as_long_as_it_is_to_be_looked_at(kept: dict[str, Any], left: int) -> None:
    scene = a_scene(retention=kept, stages={"prep": {"retries": 0}})
    scene.will(Stage.PREP, BAD_INPUT)
    scene.run(is_stalled)
    scene.clock.now += timedelta(days=6)
    scene.settle(5)
    assert jobs_of(scene).count("prep") == left


def test_a_failure_that_passed_goes_with_its_stage() -> None:
    scene = a_scene(retention={"failedSeconds": 0})
    scene.will(Stage.PREP, BUG)
    scene.run(is_ready)
    assert scene.attempts(Stage.PREP)[0] not in [raw["metadata"]["name"] for raw in scene.cluster.find("Job")]
    assert scene.attempts(Stage.PREP)[1] in [raw["metadata"]["name"] for raw in scene.cluster.find("Job")]


def test_so_many_revisions_can_be_pinned_as_are_kept() -> None:
    scene = a_scene(retention={"revisions": 2}).run(is_ready)
    for epochs in (4, 5, 6):
        scene.edit(a_spec(retention={"revisions": 2}, stages={"finetune": {"epochs": epochs}}))
        scene.run(is_ready)
    assert [item["revision"] for item in scene.status.history] == [3, 4]
    records = [
        raw["metadata"]["name"] for raw in scene.cluster.find("ConfigMap") if "revision" in raw["metadata"]["name"]
    ]
    assert len(records) == 2
    scene.edit(a_spec(retention={"revisions": 1}, stages={"finetune": {"epochs": 6}}))
    scene.run(is_ready).settle(3)
    assert [item["revision"] for item in scene.status.history] == [scene.status.served.active_revision]
