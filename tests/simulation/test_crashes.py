"""The operator dies at every single write, before the reply and after it: the end is always the same."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

import pytest
from simulation.endings import OUT_OF_MEMORY, TRANSIENT
from simulation.fake_cluster import Call, Crash
from simulation.scene import Scene, a_scene, a_spec, is_ready

from embedding_operator.errors import ClusterError, Conflict, Forbidden, Unavailable
from embedding_operator.views import OWNER_LABEL
from embedding_stages.contract import Stage

EDITED = a_spec(stages={"finetune": {"epochs": 5}})
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


class Nth:
    """A hook that raises at the nth write, once: before it takes effect, or after."""

    def __init__(self, number: int, when: str, error: BaseException) -> None:
        self.left, self.when, self.error = number, when, error

    def __call__(self, call: Call, when: str) -> None:
        if call.writes and when == self.when:
            self.left -= 1
            if self.left == 0:
                raise self.error


def story(scene: Scene) -> Scene:
    """To Ready, through an edit, to Ready again, with two failures on the way."""
    scene.will(Stage.PREP, TRANSIENT)
    scene.will(Stage.FINETUNE, OUT_OF_MEMORY)
    scene.run(is_ready).edit(EDITED)
    return scene.run(is_ready).settle(5)


def end_state(scene: Scene) -> str:
    """Everything that is left, without times and what the server numbers."""
    objects = [
        [raw["kind"], raw["metadata"]["name"], raw.get("spec", {}).get("selector")]
        for raw in scene.cluster.objects.values()
        if OWNER_LABEL in raw["metadata"].get("labels", {}) and raw["kind"] != "Pod"
    ]
    status: dict[str, Any] = {k: v for k, v in scene.resource["status"].items() if k != "lastFailure"}
    text = json.dumps([sorted(objects, key=str), status], sort_keys=True, indent=1)
    return TIME.sub("<time>", text)


@dataclass
class Golden:
    """The story without a fault, and copies of the scene from before each write."""

    end: Scene
    before: list[Scene]
    wanted: str


@pytest.fixture(scope="module")
def golden() -> Golden:
    scene, before = a_scene(), []
    scene.will(Stage.PREP, TRANSIENT)
    scene.will(Stage.FINETUNE, OUT_OF_MEMORY)
    for change in (None, EDITED):
        if change is not None:
            scene.edit(change)
        while not is_ready(scene):
            earlier = scene.fork()
            scene.turn()
            before += [earlier] * (scene.writes() - len(before))
    scene.settle(5)
    assert scene.writes() == len(before)
    return Golden(scene, before, end_state(scene))


def with_error(golden: Golden, number: int, when: str, error: BaseException) -> Scene:
    """The story with an error at one write, told from the pass before it."""
    scene = golden.before[number].fork()
    scene.cluster.hook = Nth(number + 1 - scene.writes(), when, error)
    if scene.resource["spec"] != EDITED:
        scene.run(is_ready).edit(EDITED)
    return scene.run(is_ready).settle(5)


def check_end(golden: Golden, scene: Scene) -> None:
    assert end_state(scene) == golden.wanted
    assert sorted(scene.cluster.created_jobs) == sorted(golden.end.cluster.created_jobs)
    assert scene.writes() <= golden.end.writes() + 3


def test_a_crash_after_any_write_changes_nothing_in_the_end(golden: Golden) -> None:
    for number in range(len(golden.before)):
        scene = with_error(golden, number, "after", Crash())
        assert scene.crashes == 1, f"write {number}"
        check_end(golden, scene)


def test_a_crash_before_a_write_changes_nothing_in_the_end(golden: Golden) -> None:
    for number in range(0, len(golden.before), 5):
        scene = with_error(golden, number, "before", Crash())
        assert scene.crashes == 1, f"write {number}"
        check_end(golden, scene)


@pytest.mark.parametrize(
    ("when", "error"),
    [
        ("before", Unavailable("any", "Any", "", "", "429 too many requests", 5)),
        ("after", Unavailable("any", "Any", "", "", "504 the reply was lost")),
        ("before", Conflict("any", "Any", "", "", "409")),
    ],
    ids=["overload", "lost reply", "conflict"],
)
def test_an_error_at_a_write_changes_nothing_in_the_end(golden: Golden, when: str, error: ClusterError) -> None:
    for number in range(len(when) % 2, len(golden.before), 6):
        check_end(golden, with_error(golden, number, when, error))


def test_it_gets_there_when_every_seventh_call_fails() -> None:
    scene = a_scene()
    calls = 0

    def hook(call: Call, when: str) -> None:
        nonlocal calls
        calls += when == "before"
        if when == "before" and calls % 7 == 0:
            raise Unavailable(call.verb, call.kind, "", call.name, "503")

    scene.cluster.hook = hook
    scene.run(is_ready, turns=300)
    assert len(scene.cluster.created_jobs) == 7
    assert len(scene.refusals) > 10


def test_a_permission_that_is_missing_is_named_and_work_goes_on_when_it_is_given(golden: Golden) -> None:
    scene = a_scene()
    allowed = False

    def hook(call: Call, when: str) -> None:
        if call.verb == "create" and not allowed:
            raise Forbidden("create", "Job", "team-a", call.name, "jobs.batch is forbidden")

    scene.cluster.hook = hook
    scene.settle(10)
    assert scene.condition("Validated") == "False Forbidden"
    assert "cannot create Job" in scene.message("Ready")
    writes = scene.writes()
    scene.settle(10)
    assert scene.writes() == writes
    allowed = True
    scene.run(is_ready)
    assert len(scene.cluster.created_jobs) == 7


@pytest.mark.parametrize("lag", [1, 2, 3, 5, 8])
def test_a_watch_that_lags_behind_never_makes_a_stage_run_twice(golden: Golden, lag: int) -> None:
    scene = a_scene()
    scene.lag = lag
    story(scene)
    assert sorted(scene.cluster.created_jobs) == sorted(golden.end.cluster.created_jobs)


def test_pods_that_are_heard_of_later_than_their_jobs_are_no_lost_results(golden: Golden) -> None:
    scene = a_scene()
    scene.deaf_to = "Pod"
    story(scene)
    assert sorted(scene.cluster.created_jobs) == sorted(golden.end.cluster.created_jobs)
    assert end_state(scene) == golden.wanted


def test_events_that_come_twice_and_in_another_order_change_nothing(golden: Golden) -> None:
    scene = a_scene()
    scene.stutter = True
    story(scene)
    assert sorted(scene.cluster.created_jobs) == sorted(golden.end.cluster.created_jobs)
