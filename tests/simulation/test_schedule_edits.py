"""Looks at the sources beside edits and suspensions: which of them go on, and which end, on record or not."""

from __future__ import annotations

from typing import Any

import pytest
from simulation.endings import HANG
from simulation.fake_cluster import Call, Crash
from simulation.scene import Scene, a_spec, is_ready
from simulation.schedules import MONDAYS, NIGHTLY, WEEK, a_corpus, looks, ready, until

from embedding_stages.contract import Stage


def test_after_an_edit_revisions_go_on_from_those_that_looks_made() -> None:
    scene = ready()
    scene.world.corpus = "second edition"
    until(scene, scene.clock.now + WEEK)
    scene.run(is_ready)
    scene.edit(a_spec(schedule=MONDAYS, stages={"finetune": {"epochs": 5}}))
    before = len(scene.world.requests)
    scene.run(is_ready)
    assert scene.status.revision == 3
    assert [request.stage.value for request in scene.world.requests[before:]] == [
        "finetune",
        "eval",
        "export",
        "verify",
    ]
    scene.edit(a_spec(stages={"finetune": {"epochs": 5}}))  # without a schedule
    scene.run(is_ready).settle(3)
    assert scene.status.revision == 4
    assert scene.resource["status"]["schedule"] == {"revisions": 1}


def test_while_suspended_there_is_no_look_and_one_when_it_ends() -> None:
    scene = ready()
    scene.edit(a_spec(schedule=MONDAYS, suspend=True))
    until(scene, scene.clock.now + 3 * WEEK)
    assert looks(scene) == 0
    assert scene.status.schedule.waits == "no looks while spec.suspend is true"
    scene.edit(a_spec(schedule=MONDAYS))
    scene.run(is_ready).settle(20)
    assert looks(scene) == 1
    assert scene.status.schedule.waits == ""


def test_a_run_that_read_the_sources_after_the_due_time_was_the_look() -> None:
    scene = ready()
    scene.edit(a_spec(schedule=MONDAYS, suspend=True))
    scene.settle(3)
    scene.clock.now += WEEK
    scene.edit(a_spec(schedule=MONDAYS, corpus=a_corpus("2")))
    scene.run(is_ready).settle(20)
    assert looks(scene) == 0
    assert scene.status.schedule.next_look > f"{scene.clock.now:%Y-%m-%dT%H:%M:%SZ}"


def test_an_edit_of_the_sources_takes_the_place_of_the_look_under_way() -> None:
    scene = ready()
    scene.clock.now += WEEK
    scene.will(Stage.INPUTS, HANG)
    scene.run(lambda scene: scene.status.schedule.look is not None).settle(4)
    scene.edit(a_spec(schedule=MONDAYS, corpus=a_corpus("2")))
    scene.run(is_ready).settle(10)
    assert scene.status.schedule.look is None
    assert scene.status.revision == 2


def test_taking_the_schedule_away_ends_the_look_under_way() -> None:
    scene = ready()
    scene.clock.now += WEEK
    scene.will(Stage.INPUTS, HANG)
    scene.run(lambda scene: scene.status.schedule.look is not None).settle(4)
    scene.edit(a_spec())
    scene.run(is_ready).settle(5)
    assert "schedule" not in scene.resource["status"]
    jobs = [raw for raw in scene.cluster.find("Job") if not raw.get("status", {}).get("conditions")]
    assert jobs == []


def unfinished(scene: Scene) -> list[str]:
    jobs = scene.cluster.find("Job")
    return [raw["metadata"]["name"] for raw in jobs if not raw.get("status", {}).get("conditions")]


@pytest.mark.parametrize("schedule", [{"schedule": MONDAYS}, {}], ids=["with a schedule", "without one"])
def test_a_look_that_an_edit_suspends_and_forgets_ends_when_that_is_taken_back(schedule: dict[str, Any]) -> None:
    scene = ready()
    scene.clock.now += WEEK
    scene.will(Stage.INPUTS, HANG)
    scene.run(lambda scene: scene.status.schedule.look is not None).settle(4)
    assert len(unfinished(scene)) == 1
    scene.edit(a_spec(schedule=MONDAYS, suspend=True, stages={"deploy": {"pinRevision": 1}}))
    scene.settle(5)
    scene.edit(a_spec(**schedule))
    scene.run(is_ready).settle(10)
    assert unfinished(scene) == []


def test_a_look_that_is_not_on_record_ends_where_its_schedule_is_removed_beside_a_suspension() -> None:
    scene = ready()
    scene.will(Stage.INPUTS, HANG)
    before = len(scene.attempts(Stage.INPUTS))

    def lose(call: Call, when: str) -> None:
        if (call.verb, when) == ("status", "before") and len(scene.attempts(Stage.INPUTS)) > before:
            scene.cluster.hook = lambda call, when: None
            scene.edit(a_spec(suspend=True))
            raise Crash

    scene.cluster.hook = lose
    until(scene, scene.clock.now + 2 * WEEK, lambda scene: scene.crashes > 0)
    assert len(unfinished(scene)) == 1
    scene.settle(5)
    scene.edit(a_spec())
    scene.run(is_ready).settle(10)
    assert unfinished(scene) == []


@pytest.mark.parametrize(
    "asked", [{"schedule": MONDAYS}, {"schedule": NIGHTLY}, {}], ids=["as before", "other", "none"]
)
def test_a_look_that_is_not_on_record_is_found_again_or_ends_beside_an_edit(asked: dict[str, Any]) -> None:
    scene = ready()
    scene.will(Stage.INPUTS, HANG)
    before = len(scene.attempts(Stage.INPUTS))
    edit = a_spec(**asked, stages={"finetune": {"epochs": 5}})

    def lose(call: Call, when: str) -> None:
        if (call.verb, when) == ("status", "before") and len(scene.attempts(Stage.INPUTS)) > before:
            scene.cluster.hook = lambda call, when: None
            scene.edit(edit)
            raise Crash

    scene.cluster.hook = lose
    until(scene, scene.clock.now + 2 * WEEK, lambda scene: scene.crashes > 0)
    (lost,) = unfinished(scene)
    scene.running(Stage.FINETUNE).settle(5)
    assert (lost in unfinished(scene)) == (asked == {"schedule": MONDAYS})
    scene.release()
    scene.run(is_ready).settle(10)
    assert [name for name in unfinished(scene) if "-inputs-" in name] == []
    assert scene.attempts(Stage.INPUTS).count(lost) == 1
