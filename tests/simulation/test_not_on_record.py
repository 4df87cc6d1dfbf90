"""What was done in a pass whose status was lost, when the next pass is about something else by then."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from simulation.endings import HANG
from simulation.fake_cluster import Call, Crash
from simulation.scene import Scene, a_scene, a_spec, is_ready, is_stalled, stage_is
from simulation.schedules import MONDAYS, looks, until

from embedding_operator.cluster.errors import Conflict, Rejected, Unavailable
from embedding_operator.resource.api import KIND
from embedding_operator.resource.status import DAMAGED
from embedding_stages.contract import Artefact, Stage

LOST = [
    Conflict("update", KIND, "", "", "somebody was faster"),
    Unavailable("update", KIND, "", "", "away"),
    Crash(),
]
IDS = ["conflict", "away", "crash"]


class LosesAfterCreating:
    """A hook that loses the status of the pass that creates a stage's Job, in the moment of an edit."""

    def __init__(self, scene: Scene, stage: Stage, error: BaseException, edit: dict[str, Any]) -> None:
        self.scene, self.stage, self.error, self.edit = scene, stage, error, edit
        self.created = self.lost = ""

    def __call__(self, call: Call, when: str) -> None:
        if (call.verb, call.kind, when) == ("create", "Job", "after") and f"-{self.stage}-" in call.name:
            self.created = call.name
        elif (call.verb, when) == ("status", "before") and self.created and not self.lost:
            self.lost = self.created
            self.scene.edit(self.edit)
            raise self.error


@pytest.mark.parametrize("error", LOST, ids=IDS)
@pytest.mark.parametrize(
    ("stage", "edit"),
    [
        (Stage.FINETUNE, {"finetune": {"epochs": 5}}),
        (Stage.SDG, {"sdg": {"provider": {"extractive": {}}, "pairsPerDocument": 9}}),
    ],
    ids=["finetune", "sdg"],
)
def test_the_job_of_an_edit_that_was_taken_back_ends(stage: Stage, edit: dict[str, Any], error: BaseException) -> None:
    scene = a_scene().run(is_ready).settle(3)
    scene.will(stage, *[HANG] * 3)
    scene.cluster.hook = hook = LosesAfterCreating(scene, stage, error, a_spec())
    scene.edit(a_spec(stages=edit))
    scene.run(lambda _: bool(hook.lost)).run(is_ready).settle(5)
    assert hook.lost not in [raw["metadata"]["name"] for raw in scene.cluster.find("Job")]


class LosesAStatus:
    """A hook that loses the first status after the creation of a stage's Job."""

    def __init__(self, stage: Stage, error: BaseException | None) -> None:
        self.stage, self.error, self.created = stage, error, False

    def __call__(self, call: Call, when: str) -> None:
        if (call.verb, call.kind, when) == ("create", "Job", "after") and f"-{self.stage}-" in call.name:
            self.created = True
        elif (call.verb, when) == ("status", "before") and self.created and self.error is not None:
            error, self.error = self.error, None
            raise error


def a_damaged_export(scene: Scene, spec: dict[str, Any]) -> None:
    """An edit whose export somebody changes before it is served."""
    scene.edit(spec)
    scene.running(Stage.EXPORT).release()
    scene.run(stage_is(Stage.EXPORT, "Succeeded"))
    exported = scene.status.stage(Stage.EXPORT).artefacts[Artefact.SERVING_MODEL].path
    scene.world.volume[exported] = "sha256:other"
    scene.run(stage_is(Stage.DEPLOY, "Failed"))
    assert scene.status.stage(Stage.DEPLOY).reason in DAMAGED


@pytest.mark.parametrize("stage", [Stage.INPUTS, Stage.SDG, Stage.EXPORT])
@pytest.mark.parametrize("error", LOST, ids=IDS)
def test_what_was_damaged_is_asked_once(stage: Stage, error: BaseException) -> None:
    scene = a_scene().run(is_ready).settle(3)
    spec = a_spec(stages={"finetune": {"epochs": 5}})
    a_damaged_export(scene, spec)
    before = len(scene.attempts(stage))
    scene.cluster.hook = hook = LosesAStatus(stage, error)
    scene.edit({**spec, "retryToken": "again"})
    scene.run(is_ready).settle(3)
    assert hook.error is None
    assert len(scene.attempts(stage)) == before + 1


@pytest.mark.parametrize("error", LOST, ids=IDS)
def test_what_serves_is_measured_once_more_for_a_retry_token(error: BaseException) -> None:
    scene = a_scene().run(is_ready).settle(3)
    before = len(scene.attempts(Stage.VERIFY))
    scene.cluster.hook = hook = LosesAStatus(Stage.VERIFY, error)
    scene.edit(a_spec(retryToken="again"))
    scene.run(is_ready).settle(3)
    assert hook.error is None
    assert len(scene.attempts(Stage.VERIFY)) == before + 1


def test_what_was_damaged_is_asked_again_after_a_revision_was_pinned_meanwhile() -> None:
    scene = a_scene().run(is_ready).settle(3)
    bad, good = a_spec(stages={"finetune": {"epochs": 5}}), a_spec(stages={"deploy": {"pinRevision": 1}})
    a_damaged_export(scene, bad)
    before = len(scene.attempts(Stage.EXPORT))
    scene.edit(good)
    scene.run(is_ready).settle(3)
    scene.edit(bad)
    scene.run(is_ready)
    assert len(scene.attempts(Stage.EXPORT)) > before
    ran = len(scene.cluster.created_jobs)
    for spec in (good, bad):
        scene.edit(spec)
        scene.run(is_ready).settle(3)
    assert len(scene.cluster.created_jobs) - ran <= 2, "verifications alone: all of it is believed by now"


@pytest.mark.parametrize("stage", [Stage.PREP, Stage.EVAL])
def test_a_job_that_ends_unrecorded_before_a_suspension_is_not_run_again(stage: Stage) -> None:
    retention = {"succeededSeconds": 0}
    scene = a_scene(retention=retention)
    scene.cluster.hook = hook = LosesAfterCreating(scene, stage, Crash(), a_spec(retention=retention, suspend=True))
    scene.run(lambda _: bool(hook.lost))
    for _ in range(8):
        scene.step()
    scene.settle(10)
    scene.edit(a_spec(retention=retention))
    scene.run(is_ready)
    assert len(scene.attempts(stage)) == 1


def test_a_look_that_is_not_on_record_is_made_once_beside_an_edit() -> None:
    retention = {"succeededSeconds": 0}
    scene = a_scene(schedule=MONDAYS, retention=retention).run(is_ready).settle(5)
    epochs = a_spec(schedule=MONDAYS, retention=retention, stages={"finetune": {"epochs": 5}})
    scene.cluster.hook = hook = LosesAfterCreating(scene, Stage.INPUTS, Crash(), epochs)
    until(scene, scene.clock.now + timedelta(weeks=1), lambda _: bool(hook.lost))
    assert hook.lost
    scene.running(Stage.FINETUNE).settle(10).release()
    scene.run(is_ready).settle(10)
    assert looks(scene) == 1
    assert scene.attempts(Stage.INPUTS).count(hook.lost) == 1


def test_a_job_that_a_refused_edit_spares_is_not_run_again_when_that_is_taken_back() -> None:
    retention = {"succeededSeconds": 0}
    scene = a_scene(retention=retention).running(Stage.FINETUNE)

    def refuse(call: Call, when: str) -> None:
        if (call.verb, when) == ("try", "before") and "finetune" in scene.resource["spec"]["stages"]:
            raise Rejected("try", call.kind, "", call.name, "no PriorityClass with name soon was found")

    scene.cluster.hook = refuse
    scene.edit(a_spec(retention=retention, stages={"finetune": {"epochs": 5}}))
    scene.run(is_stalled).release()
    scene.settle(10)
    scene.edit(a_spec(retention=retention))
    scene.run(is_ready)
    assert len(scene.attempts(Stage.FINETUNE)) == 1


def test_the_job_of_a_look_that_failed_ends_also_beside_an_edit() -> None:
    scene = a_scene(schedule=MONDAYS).run(is_ready).settle(5)
    scene.will(Stage.INPUTS, HANG)
    until(scene, scene.clock.now + timedelta(weeks=2), lambda scene: _look_is(scene, "Failed"))
    scene.will(Stage.FINETUNE, HANG)
    scene.edit(a_spec(schedule=MONDAYS, stages={"finetune": {"epochs": 5}}))
    scene.run(stage_is(Stage.FINETUNE, "Running"))
    left = [raw["metadata"]["name"] for raw in scene.cluster.find("Job") if not raw["status"].get("conditions")]
    assert [name for name in left if "-inputs-" in name] == []
    scene.release()
    scene.run(is_ready).settle(5)
    assert scene.status.schedule.result == "Failed"


def _look_is(scene: Scene, state: str) -> bool:
    look = scene.status.schedule.look
    return look is not None and look.state == state
