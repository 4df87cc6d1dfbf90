"""Who suspends a Job resumes it: a queue of another controller is not worked around."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from simulation.endings import BAD_INPUT, HANG
from simulation.fake_cluster import NAMESPACE, Ref
from simulation.scene import Scene, a_scene, a_spec, is_ready, stage_is
from simulation.test_refused_passes import refusing

from embedding_operator.cluster.errors import ClusterError, Forbidden, Unavailable
from embedding_operator.resource.labels import QUEUE_LABEL
from embedding_stages.contract import Stage


def others_suspend(scene: Scene, suspend: bool, labels: dict[str, str] | None = None) -> None:
    """Another controller says whether unfinished Jobs may run."""
    for job in scene.cluster.find("Job"):
        if not job.get("status", {}).get("conditions"):
            scene.cluster.change(
                "Job",
                NAMESPACE,
                job["metadata"]["name"],
                lambda raw: (raw["spec"].update(suspend=suspend), raw["metadata"]["labels"].update(labels or {})),
            )


def patches(scene: Scene) -> int:
    """How often the operator has suspended or resumed a Job."""
    return sum(call.verb == "suspend" for call in scene.cluster.calls)


def notes(scene: Scene) -> int:
    """How often it has noted that somebody else let one run."""
    return sum(call.verb == "forget" for call in scene.cluster.calls)


def finetunes_job(scene: Scene) -> Ref:
    return ("Job", NAMESPACE, scene.attempts(Stage.FINETUNE)[-1])


def is_suspended(scene: Scene) -> bool:
    return scene.cluster.objects[finetunes_job(scene)]["spec"].get("suspend") is True


@pytest.mark.parametrize(
    ("labels", "reason", "who"),
    [({}, "Suspended", "not by this operator"), ({QUEUE_LABEL: "gpus"}, "Queued", "Kueue's queue 'gpus'")],
)
def test_a_job_that_somebody_else_suspends_is_waited_for(labels: dict[str, str], reason: str, who: str) -> None:
    scene = a_scene().running(Stage.FINETUNE)
    others_suspend(scene, True, labels)
    scene.run(lambda scene: scene.condition("Trained") == f"Unknown {reason}")
    assert who in scene.message("Trained")
    writes, start = scene.writes(), scene.clock.now
    while (scene.clock.now - start).total_seconds() < 60:
        others_suspend(scene, True, labels)
        scene.turn()
    assert patches(scene) == 0
    assert scene.writes() == writes
    others_suspend(scene, False)
    scene.release()
    scene.run(is_ready)
    assert len(scene.attempts(Stage.FINETUNE)) == 1


def test_a_queue_that_suspends_every_job_at_its_creation_is_waited_for() -> None:
    scene = a_scene()
    for _ in range(30):
        scene.operator.hear()
        scene.operator.reconcile()
        others_suspend(scene, True)
        scene.world.step()
    assert patches(scene) == 0
    assert len(scene.cluster.created_jobs) == 1
    assert scene.world.requests == []


def test_what_the_resource_suspends_it_resumes() -> None:
    scene = a_scene().running(Stage.FINETUNE)
    scene.edit(a_spec(suspend=True))
    scene.run(lambda scene: scene.status.phase == "Suspended").settle(3)
    assert [raw["spec"].get("suspend") for raw in scene.cluster.find("Job")][-1] is True
    scene.edit(a_spec())
    scene.run(is_ready)
    assert patches(scene) == 2
    assert len(scene.attempts(Stage.FINETUNE)) == 1


def test_a_suspended_resource_does_not_fight_who_resumes_its_job() -> None:
    scene = a_scene().running(Stage.FINETUNE)
    scene.edit(a_spec(suspend=True))
    scene.run(lambda scene: scene.status.phase == "Suspended").settle(3)
    scene.will(Stage.FINETUNE, HANG)
    for _ in range(10):
        others_suspend(scene, False)
        scene.turn()
    assert (patches(scene), notes(scene)) == (1, 1)
    scene.edit(a_spec())
    scene.settle(2)
    assert (patches(scene), notes(scene)) == (1, 2), "the note is taken off"
    scene.edit(a_spec(suspend=True))
    scene.settle(2)
    assert (patches(scene), notes(scene)) == (2, 2), "another edit, another suspension"


def test_a_job_that_a_queue_resumed_while_the_resource_was_suspended_is_the_queues_again() -> None:
    scene = a_scene().running(Stage.FINETUNE)
    scene.edit(a_spec(suspend=True))
    scene.run(lambda scene: scene.status.phase == "Suspended").settle(3)
    scene.will(Stage.FINETUNE, HANG)
    others_suspend(scene, False)
    scene.settle(3)
    scene.edit(a_spec())
    scene.run(stage_is(Stage.FINETUNE, "Running")).settle(3)
    before = patches(scene)
    others_suspend(scene, True)
    scene.run(lambda scene: scene.condition("Trained") == "Unknown Suspended").settle(3)
    assert patches(scene) == before


def test_a_job_that_was_queued_before_the_resource_was_suspended_stays_queued_afterwards() -> None:
    scene = a_scene().running(Stage.FINETUNE)
    others_suspend(scene, True)
    scene.run(stage_is(Stage.FINETUNE, "Waiting"))
    scene.edit(a_spec(suspend=True))
    scene.settle(3)
    scene.edit(a_spec())
    scene.run(lambda scene: scene.condition("Trained") == "Unknown Suspended").settle(3)
    assert patches(scene) == 0


def test_what_a_queue_stops_in_the_moment_of_the_edit_is_the_queues() -> None:
    """The Job was heard of a moment ago, and its event is late."""
    scene = a_scene().running(Stage.FINETUNE)
    scene.operator.hear()
    scene.operator.reconcile()
    scene.deaf_to = "Job"
    scene.cluster.change(*finetunes_job(scene), lambda raw: raw["spec"].update(suspend=True))
    scene.edit(a_spec(suspend=True))
    scene.turn()
    scene.deaf_to = ""
    scene.run(lambda scene: scene.status.phase == "Suspended").settle(3)
    scene.edit(a_spec())
    scene.settle(5)
    assert is_suspended(scene)


@pytest.mark.parametrize("late", [True, False])
def test_what_a_queue_resumed_and_stopped_while_the_resource_was_suspended_is_the_queues(late: bool) -> None:
    """`late`: it stops it in the moment of the edit, and the Job's event comes after that."""
    scene = a_scene().running(Stage.FINETUNE)
    scene.edit(a_spec(suspend=True))
    scene.settle(5)
    scene.will(Stage.FINETUNE, HANG)
    others_suspend(scene, False)
    scene.settle(3)
    scene.deaf_to = "Job" if late else ""
    others_suspend(scene, True)
    if not late:
        scene.settle(3)
    scene.edit(a_spec())
    scene.turn()
    scene.deaf_to = ""
    scene.settle(5)
    assert is_suspended(scene)
    others_suspend(scene, False)
    scene.release()
    scene.run(is_ready)


NOT_VALID = {"schedule": {"cron": "0 3 * * 1", "timeZone": "Europe/Berlim"}}


@pytest.mark.parametrize("edit", [{"suspend": True}, NOT_VALID], ids=["suspended", "not-valid"])
@pytest.mark.parametrize("stage", [Stage.INPUTS, Stage.FINETUNE, Stage.VERIFY])
def test_what_ended_in_the_moment_of_an_edit_is_not_run_again_after_its_job_is_gone(
    stage: Stage, edit: dict[str, Any]
) -> None:
    scene = a_scene().running(stage)
    scene.release()
    scene.world.step()
    scene.edit(a_spec(**edit))
    scene.settle(5)
    written = len(scene.history)
    scene.settle(10)
    assert len(scene.history) == written
    scene.clock.now += timedelta(days=10)
    scene.settle(5)
    assert not [raw for raw in scene.cluster.find("Job") if f"-{stage}-" in raw["metadata"]["name"]]
    scene.edit(a_spec())
    scene.run(is_ready)
    assert len(scene.attempts(stage)) == 1
    assert scene.events().count("Completed") == len(Stage) - 1, "each is told once"


def test_what_ended_behind_a_stage_that_failed_is_not_run_again_after_its_job_is_gone() -> None:
    def asked(version: str) -> dict[str, Any]:
        return a_spec(corpus={"source": {"configMap": {"name": "docs"}}, "version": version})

    scene = a_scene().running(Stage.FINETUNE)
    scene.will(Stage.INPUTS, BAD_INPUT)
    scene.edit(asked("2"))
    scene.run(stage_is(Stage.INPUTS, "Failed"))
    scene.release()
    scene.settle(3)
    assert scene.status.stage(Stage.FINETUNE).state == "Pending"
    scene.clock.now += timedelta(days=10)
    scene.settle(5)
    assert not [raw for raw in scene.cluster.find("Job") if "-finetune-" in raw["metadata"]["name"]]
    scene.edit(asked("3"))
    scene.run(is_ready)
    assert len(scene.attempts(Stage.FINETUNE)) == 1


def test_what_ended_before_an_edit_that_suspends_and_asks_for_other_work_is_not_taken_for_that() -> None:
    scene = a_scene().running(Stage.FINETUNE)
    scene.release()
    scene.world.step()
    scene.edit(a_spec(suspend=True, stages={"finetune": {"epochs": 9}}))
    scene.settle(5)
    assert scene.status.stage(Stage.FINETUNE).state == "Pending"
    scene.edit(a_spec(stages={"finetune": {"epochs": 9}}))
    scene.run(is_ready)
    assert len(scene.attempts(Stage.FINETUNE)) == 2


@pytest.mark.parametrize("error", [Forbidden, Unavailable])
def test_a_note_that_cannot_be_taken_off_stops_nothing(error: type[ClusterError]) -> None:
    scene = a_scene().running(Stage.FINETUNE)
    scene.edit(a_spec(suspend=True))
    scene.settle(5)
    scene.will(Stage.FINETUNE, HANG)
    scene.cluster.hook = refusing("forget", "Job", error)
    others_suspend(scene, False)
    scene.settle(3)
    scene.edit(a_spec())
    scene.settle(45)
    assert scene.status.phase == "Running"


def test_a_refused_measurement_that_ended_before_a_suspension_is_made_again_after_it() -> None:
    scene = a_scene().running(Stage.VERIFY)
    scene.world.served_offset = -0.3
    scene.release()
    scene.world.step()
    scene.edit(a_spec(suspend=True))
    scene.settle(8)
    scene.world.served_offset = 0.0
    scene.clock.now += timedelta(days=10)
    scene.settle(3)
    scene.edit(a_spec())
    scene.run(is_ready)
