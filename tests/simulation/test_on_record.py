"""What a pass deletes it deletes once the reason is on record: a write of the status may be refused, or lost."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from simulation.endings import BAD_INPUT, DONE, HANG, TRANSIENT
from simulation.fake_cluster import Call, Crash
from simulation.scene import Scene, a_scene, a_spec, is_ready, stage_is
from simulation.schedules import MONDAYS, NIGHTLY, looks, ready, until

from embedding_operator.cluster.errors import Conflict, QuotaExceeded, Rejected, Unavailable
from embedding_operator.resource.api import KIND
from embedding_operator.resource.status import Status
from embedding_stages.contract import Stage

LOST = [Conflict("update", KIND, "", "", "somebody was faster"), Crash()]
IDS = ["conflict", "crash"]
_LOST = 25  # writes of the status one after the other: a Job begins and ends meanwhile


class AfterItsDelete:
    """A hook that loses the first write of the status after a Job of finetune was deleted."""

    def __init__(self, error: BaseException) -> None:
        self.error, self.deleted, self.lost = error, False, False

    def __call__(self, call: Call, when: str) -> None:
        if when != "before":
            return
        if call.verb == "delete" and "-finetune-" in call.name:
            self.deleted = True
        elif call.verb == "status" and self.deleted and not self.lost:
            self.lost = True
            raise self.error


def test_a_first_revision_is_told_of_in_one_write_from_its_verification_to_ready() -> None:
    scene = a_scene().run(is_ready)
    before, last = (Status.from_json(status) for status in scene.history[-2:])
    assert not before.stage(Stage.VERIFY).done
    assert (last.phase, last.served.active_revision, len(last.history)) == ("Ready", 1, 1)


def test_an_older_server_goes_once_the_move_is_on_record() -> None:
    scene = a_scene(stages={"deploy": {"drainSeconds": 0}}).run(is_ready).settle(3)
    old = scene.status.served.active_fingerprint
    seen: list[str] = []

    def hook(call: Call, when: str) -> None:
        if (call.verb, call.kind, when) == ("delete", "Deployment", "before"):
            seen.append(scene.status.served.active_fingerprint)

    scene.cluster.hook = hook
    scene.edit(a_spec(stages={"deploy": {"drainSeconds": 0}, "finetune": {"epochs": 5}}))
    scene.run(is_ready).settle(5)
    assert seen
    assert not {"", old} & set(seen)


@pytest.mark.parametrize("error", LOST, ids=IDS)
def test_a_job_that_retention_removes_is_not_run_again(error: BaseException) -> None:
    scene = a_scene(retention={"succeededSeconds": 0})
    scene.cluster.hook = AfterItsDelete(error)
    scene.run(is_ready, turns=300)
    assert len(scene.attempts(Stage.FINETUNE)) == 1


@pytest.mark.parametrize("error", LOST, ids=IDS)
def test_a_failure_that_retention_removes_is_not_tried_again(error: BaseException) -> None:
    scene = a_scene(retention={"failedSeconds": 0})
    scene.cluster.hook = AfterItsDelete(error)
    scene.will(Stage.FINETUNE, BAD_INPUT)
    scene.run(stage_is(Stage.FINETUNE, "Failed")).settle(10)
    assert len(scene.attempts(Stage.FINETUNE)) == 1


@pytest.mark.parametrize("error", LOST, ids=IDS)
@pytest.mark.parametrize(
    "limit",
    [
        {"runPolicy": {"activeDeadlineSeconds": 1000}},
        {"stages": {"finetune": {"timeoutSeconds": 1000}}},
    ],
    ids=["run", "stage"],
)
def test_an_attempt_that_took_too_long_is_not_tried_again(error: BaseException, limit: dict[str, Any]) -> None:
    scene = a_scene(**limit)
    scene.will(Stage.FINETUNE, *[HANG] * 9)
    scene.cluster.hook = AfterItsDelete(error)
    scene.run(stage_is(Stage.FINETUNE, "Failed"), turns=900).settle(10)
    assert len(scene.attempts(Stage.FINETUNE)) == 1
    assert not [raw for raw in scene.cluster.find("Job") if "-finetune-" in raw["metadata"]["name"]]


@pytest.mark.parametrize("seconds", [0, 60, 600])
def test_failed_attempts_of_a_look_are_counted_before_they_go(seconds: int) -> None:
    scene = a_scene(schedule=NIGHTLY, retention={"failedSeconds": seconds}).run(is_ready).settle(5)
    before = len(scene.attempts(Stage.INPUTS))
    scene.will(Stage.INPUTS, *[TRANSIENT] * 20)
    until(scene, scene.clock.now + timedelta(hours=26), lambda scene: scene.status.schedule.result == "Failed")
    assert scene.status.schedule.result == "Failed"
    assert len(scene.attempts(Stage.INPUTS)) - before == 4


@pytest.mark.parametrize(
    "error",
    [QuotaExceeded("create", "Job", "n", "x", "exceeded quota"), Rejected("create", "Job", "n", "x", "no such label")],
    ids=["quota", "policy"],
)
def test_a_look_that_is_refused_takes_nothing_from_what_serves(error: BaseException) -> None:
    scene = ready()
    seen = len(scene.history)

    def refuse(call: Call, when: str) -> None:
        if when == "before" and call.verb == "create" and "-inputs-" in call.name:
            raise error

    scene.cluster.hook = refuse
    until(scene, scene.clock.now + timedelta(weeks=2))
    assert looks(scene) == 0
    assert scene.status.schedule.result == "Failed"
    assert type(error).__name__ in scene.status.schedule.message
    assert {status["phase"] for status in scene.history[seen:]} == {"Ready"}
    scene.cluster.hook = lambda _call, _when: None
    until(scene, scene.clock.now + timedelta(weeks=1))
    assert scene.status.schedule.result == "Unchanged"


def test_a_look_that_nobody_answers_to_is_made_in_a_moment_and_takes_nothing_from_what_serves() -> None:
    scene = ready()
    seen = len(scene.history)

    def away(call: Call, when: str) -> None:
        if when == "before" and call.verb == "create" and "-inputs-" in call.name:
            raise Unavailable("create", "Job", "n", call.name, "failed calling webhook mjob.kb.io: no endpoints")

    scene.cluster.hook = away
    until(scene, scene.clock.now + timedelta(weeks=1), lambda scene: "does not answer" in scene.status.schedule.waits)
    written = len(scene.history)
    for _ in range(20):
        scene.turn()
    assert len(scene.history) == written
    assert {status["phase"] for status in scene.history[seen:]} == {"Ready"}
    assert scene.condition("Ready").startswith("True")
    scene.cluster.hook = lambda _call, _when: None
    scene.run(lambda scene: scene.status.schedule.result == "Unchanged")
    assert looks(scene) == 1


@pytest.mark.parametrize("error", LOST, ids=IDS)
def test_a_look_that_hangs_is_not_begun_again(error: BaseException) -> None:
    scene = ready()
    scene.will(Stage.INPUTS, *[HANG] * 9)
    before, deleted, lost = len(scene.attempts(Stage.INPUTS)), list[str](), list[str]()

    def loses(call: Call, when: str) -> None:
        if (call.verb, when) == ("delete", "after") and "-inputs-" in call.name:
            deleted.append(call.name)
        elif (call.verb, when) == ("status", "before") and deleted and not lost:
            lost.append(call.verb)
            raise error

    scene.cluster.hook = loses
    until(scene, scene.clock.now + timedelta(weeks=3), lambda scene: scene.status.schedule.result == "Failed")
    assert lost
    assert len(scene.attempts(Stage.INPUTS)) - before == 1


def test_what_a_look_finds_waits_while_an_edit_is_on_its_way() -> None:
    scene = ready()
    scene.clock.now += timedelta(weeks=1)
    scene.world.corpus = "second edition"
    scene.will(Stage.INPUTS, HANG)
    scene.run(lambda scene: scene.status.schedule.look is not None).settle(4)
    scene.will(Stage.FINETUNE, HANG)
    scene.edit(a_spec(schedule=MONDAYS, stages={"finetune": {"epochs": 5}}))
    scene.run(stage_is(Stage.FINETUNE, "Running"))
    inputs = next(uid for uid, how in scene.world.ending_of.items() if how is HANG)
    scene.world.ending_of[inputs] = DONE
    scene.settle(10)
    assert (scene.status.revision, scene.states()["finetune"]) == (2, "Running")
    scene.release()
    scene.run(lambda scene: scene.status.revision == 3)
    assert scene.status.served.active_revision == 2, "the edit came to its end first"
    scene.run(is_ready)


@pytest.mark.parametrize("retention", [{}, {"succeededSeconds": 0}], ids=["kept", "removed at once"])
@pytest.mark.parametrize("deaf_to", ["", "Pod"], ids=["all is heard", "pods are not"])
def test_a_job_that_is_not_on_record_when_it_ends_is_not_run_again(retention: dict[str, Any], deaf_to: str) -> None:
    """What is on record of its stage is the revision before, which is done."""
    scene = a_scene(retention=retention).run(is_ready).settle(3)
    scene.edit(a_spec(retention=retention, stages={"finetune": {"epochs": 5}}))
    lost = 0

    def hook(call: Call, when: str) -> None:
        nonlocal lost
        if (call.verb, when) == ("status", "before") and lost < _LOST and len(scene.attempts(Stage.FINETUNE)) == 2:
            lost += 1
            raise Conflict("update", KIND, "", "", "somebody was faster")

    scene.cluster.hook = hook
    scene.deaf_to = deaf_to
    scene.run(lambda _: lost == _LOST)
    scene.deaf_to = ""
    scene.run(is_ready)
    assert len(scene.attempts(Stage.FINETUNE)) == 2


class FromItsJobOn:
    """A hook that loses writes of the status while the newest Job of a stage begins and ends."""

    def __init__(self, scene: Scene, stage: Stage, jobs: int) -> None:
        self.scene, self.stage, self.jobs, self.lost = scene, stage, jobs, 0

    def __call__(self, call: Call, when: str) -> None:
        under_way = self.lost < _LOST and len(self.scene.attempts(self.stage)) == self.jobs
        if (call.verb, when) == ("status", "before") and under_way:
            self.lost += 1
            raise Conflict("update", KIND, "", "", "somebody was faster")


@pytest.mark.parametrize("retention", [{}, {"succeededSeconds": 0}], ids=["kept", "removed at once"])
@pytest.mark.parametrize("deaf_to", ["", "Pod"], ids=["all is heard", "pods are not"])
def test_a_cured_stage_whose_job_is_not_on_record_when_it_ends_is_not_run_again(
    retention: dict[str, Any], deaf_to: str
) -> None:
    """The cure asks for the same work, which is on record as Failed, in the revision before."""
    scene = a_scene(retention=retention)
    scene.will(Stage.FINETUNE, BAD_INPUT)
    scene.run(stage_is(Stage.FINETUNE, "Failed")).settle(3)
    hook = FromItsJobOn(scene, Stage.FINETUNE, 2)
    scene.cluster.hook, scene.deaf_to = hook, deaf_to
    scene.edit(a_spec(retention=retention, retryToken="again"))
    scene.run(lambda _: hook.lost == _LOST)
    scene.deaf_to = ""
    scene.run(is_ready)
    assert len(scene.attempts(Stage.FINETUNE)) == 2


@pytest.mark.parametrize("retention", [{}, {"succeededSeconds": 0}], ids=["kept", "removed at once"])
@pytest.mark.parametrize("deaf_to", ["", "Pod"], ids=["all is heard", "pods are not"])
def test_a_look_whose_job_is_not_on_record_when_it_ends_is_not_made_again(
    retention: dict[str, Any], deaf_to: str
) -> None:
    scene = a_scene(schedule=NIGHTLY, retention=retention).run(is_ready).settle(5)
    before = len(scene.attempts(Stage.INPUTS))
    hook = FromItsJobOn(scene, Stage.INPUTS, before + 1)
    scene.cluster.hook, scene.deaf_to = hook, deaf_to
    until(scene, scene.clock.now + timedelta(hours=26), lambda _: hook.lost == _LOST)
    scene.deaf_to = ""
    until(scene, scene.clock.now + timedelta(minutes=30), lambda scene: scene.status.schedule.result == "Unchanged")
    assert scene.status.schedule.result == "Unchanged"
    assert len(scene.attempts(Stage.INPUTS)) == before + 1
