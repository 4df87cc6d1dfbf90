"""The operator dies at every single write, before the reply and after it: the end is always the same."""

from __future__ import annotations

from random import Random

import pytest
from simulation.fake_cluster import Call, Crash
from simulation.golden import Golden, end_state, story
from simulation.scene import a_scene, a_spec, is_ready

from embedding_operator.cluster.errors import ClusterError, Conflict, Forbidden, Unavailable
from embedding_operator.resource.pipeline import PIPELINE

EDITED = a_spec(stages={"finetune": {"epochs": 5}})


@pytest.fixture(scope="module")
def golden() -> Golden:
    return Golden.of(a_scene(), EDITED)


def test_a_crash_after_any_write_changes_nothing_in_the_end(golden: Golden) -> None:
    for number in range(len(golden.before)):
        scene = golden.with_error(number, "after", Crash())
        assert scene.crashes == 1, f"write {number}"
        golden.check_end(scene)


def test_a_crash_before_a_write_changes_nothing_in_the_end(golden: Golden) -> None:
    for number in range(0, len(golden.before), 5):
        scene = golden.with_error(number, "before", Crash())
        assert scene.crashes == 1, f"write {number}"
        golden.check_end(scene)


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
        golden.check_end(golden.with_error(number, when, error))


@pytest.mark.parametrize("seed", range(5))
def test_it_gets_there_when_a_quarter_of_all_calls_fails(seed: int) -> None:
    scene = a_scene()
    chance = Random(seed)

    def hook(call: Call, when: str) -> None:
        if when == "before" and chance.random() < 0.25:
            raise Unavailable(call.verb, call.kind, "", call.name, "503")

    scene.cluster.hook = hook
    scene.run(is_ready, turns=300)
    assert len(scene.cluster.created_jobs) == len(PIPELINE)
    assert len(scene.refusals) > 5


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
    assert len(scene.cluster.created_jobs) == len(PIPELINE)


@pytest.mark.parametrize("lag", [1, 2, 3, 5, 8])
def test_a_watch_that_lags_behind_never_makes_a_stage_run_twice(golden: Golden, lag: int) -> None:
    scene = a_scene()
    scene.lag = lag
    story(scene, EDITED)
    assert sorted(scene.cluster.created_jobs) == sorted(golden.end.cluster.created_jobs)


def test_pods_that_are_heard_of_later_than_their_jobs_are_no_lost_results(golden: Golden) -> None:
    scene = a_scene()
    scene.deaf_to = "Pod"
    story(scene, EDITED)
    assert sorted(scene.cluster.created_jobs) == sorted(golden.end.cluster.created_jobs)
    assert end_state(scene) == golden.wanted


def test_events_that_come_twice_and_in_another_order_change_nothing(golden: Golden) -> None:
    scene = a_scene()
    scene.stutter = True
    story(scene, EDITED)
    assert sorted(scene.cluster.created_jobs) == sorted(golden.end.cluster.created_jobs)
