"""What a delete was to remove is remembered until it is gone: the delete may be refused, or nobody answers it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from simulation.endings import HANG
from simulation.fake_cluster import NAMESPACE
from simulation.scene import NAME, Scene, a_scene, a_spec, is_ready, stage_is
from simulation.schedules import MONDAYS, WEEK
from simulation.test_refused_passes import alive, refusing

from embedding_operator.cluster.errors import ClusterError, Forbidden, Unavailable
from embedding_operator.resource.labels import OWNER_LABEL
from embedding_operator.resource.status import StageStatus, Status
from embedding_stages.contract import Stage

ERRORS = pytest.mark.parametrize("error", [Forbidden, Unavailable])


def no_deletes(scene: Scene, kind: str, error: type[ClusterError]) -> None:
    """For so long that it is told."""
    scene.cluster.hook = refusing("delete", kind, error)
    for _ in range(6):
        scene.turn()
        scene.clock.now += timedelta(seconds=20)


def deletes_again(scene: Scene) -> Scene:
    scene.cluster.hook = lambda call, when: None
    return scene


@ERRORS
def test_records_beyond_retention_go_at_last(error: type[ClusterError]) -> None:
    scene = a_scene().run(is_ready).settle(3)
    for epochs in (5, 6):
        scene.edit(a_spec(stages={"finetune": {"epochs": epochs}}))
        scene.run(is_ready).settle(3)
    scene.edit(a_spec(stages={"finetune": {"epochs": 6}}, retention={"revisions": 1}))
    no_deletes(scene, "ConfigMap", error)
    deletes_again(scene).run(is_ready).settle(5)
    left = {raw["metadata"]["name"] for raw in scene.cluster.find("ConfigMap")}
    assert left == {f"{NAME}-contract", f"{NAME}-revision-3"}
    assert [item["revision"] for item in scene.status.history] == [3]


def a_look_that_hangs() -> Scene:
    scene = a_scene(schedule=MONDAYS, stages={"inputs": {"timeoutSeconds": 3600}}).run(is_ready).settle(5)
    scene.clock.now += WEEK
    scene.will(Stage.INPUTS, HANG)
    scene.run(lambda scene: _look(scene).state == "Running").settle(2)
    assert alive(scene) == ["inputs"]
    return scene


def _look(scene: Scene) -> StageStatus:
    return scene.status.schedule.look or StageStatus(name=Stage.INPUTS)


@ERRORS
def test_the_job_of_a_look_goes_at_last_when_its_schedule_was_removed(error: type[ClusterError]) -> None:
    scene = a_look_that_hangs()
    scene.edit(a_spec(stages={"inputs": {"timeoutSeconds": 3600}}))
    no_deletes(scene, "Job", error)
    deletes_again(scene).run(is_ready).settle(5)
    assert alive(scene) == []
    assert scene.status.schedule.look is None


def test_a_schedule_that_comes_back_begins_with_a_look_of_its_own() -> None:
    """The Job of the look that was under way is still there, and the documents have changed."""
    scene = a_look_that_hangs()
    scene.world.corpus = "second edition"
    schedule = {"schedule": MONDAYS, "stages": {"inputs": {"timeoutSeconds": 3600}}}
    scene.edit(a_spec(stages=schedule["stages"]))
    no_deletes(scene, "Job", Forbidden)
    scene.edit(a_spec(**schedule))
    scene.settle(3)
    scene.release()
    deletes_again(scene).settle(5)
    assert alive(scene) == []
    assert scene.status.schedule.look is None
    before = scene.status.revision
    scene.clock.now += WEEK
    scene.run(lambda scene: scene.status.revision == before + 1).run(is_ready).settle(5)
    assert scene.status.revision == before + 1
    assert scene.status.served.active_revision == before + 1


def test_a_removed_look_that_cannot_go_costs_few_passes() -> None:
    scene = a_look_that_hangs()
    job = next(raw["metadata"]["name"] for raw in scene.cluster.find("Job") if not raw["status"].get("conditions"))
    scene.cluster.change("Job", NAMESPACE, job, lambda raw: raw["metadata"].update(finalizers=["theirs.example/keep"]))
    scene.edit(a_spec(stages={"inputs": {"timeoutSeconds": 3600}}))
    scene.settle(5)
    assert "deletionTimestamp" in scene.cluster.object("Job", job)["metadata"]
    scene.turn()
    assert scene.asked_s == 15.0


@ERRORS
def test_the_job_of_a_look_that_failed_goes_at_last(error: type[ClusterError]) -> None:
    scene = a_look_that_hangs()
    scene.clock.now += timedelta(minutes=70)
    no_deletes(scene, "Job", error)
    assert alive(scene) == ["inputs"]
    deletes_again(scene).settle(5)
    assert alive(scene) == []
    assert scene.status.schedule.look is None
    assert scene.status.schedule.result == "Failed"


def test_the_job_of_a_look_goes_although_its_label_was_taken_off() -> None:
    scene = a_look_that_hangs()
    name = next(raw["metadata"]["name"] for raw in scene.cluster.find("Job") if not raw["status"].get("conditions"))
    scene.cluster.change("Job", NAMESPACE, name, lambda raw: raw["metadata"]["labels"].pop(OWNER_LABEL))
    scene.clock.now += timedelta(minutes=70)
    scene.settle(6)
    assert ("Job", NAMESPACE, name) not in scene.cluster.objects
    assert scene.status.schedule.result == "Failed"


@ERRORS
def test_a_stage_that_was_too_slow_is_tried_anew_although_its_job_is_still_there(error: type[ClusterError]) -> None:
    """An edit gives a stage all of its attempts again."""
    scene = a_scene(stages={"prep": {"timeoutSeconds": 3600}}).running(Stage.PREP)
    scene.clock.now += timedelta(hours=2)
    scene.cluster.hook = refusing("delete", "Job", error)
    scene.run(stage_is(Stage.PREP, "Failed")).settle(2)
    assert alive(scene) == ["prep"]
    scene.edit(a_spec(stages={"prep": {"timeoutSeconds": 3600}}, retryToken="again"))
    scene.settle(2)
    deletes_again(scene).run(is_ready)
    assert len(scene.attempts(Stage.PREP)) == 2
    told = [Status.from_json(status).stage(Stage.PREP) for status in scene.history]
    assert {item.revision for item in told if item.state == "Failed"} == {1}
