"""Looks at the sources by spec.schedule: when they come, what they find, and what follows."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from simulation import world
from simulation.endings import BAD_INPUT, TRANSIENT
from simulation.fake_cluster import NAMESPACE, Call, Crash
from simulation.golden import Nth, end_state
from simulation.scene import Scene, a_scene, a_spec, is_ready, stage_is
from simulation.schedules import MONDAYS, NIGHTLY, WEEK, a_corpus, looks, ready, until
from simulation.work import do_work

from embedding_operator.cluster.answers import error_of
from embedding_stages.contract import Stage, StageRequest, StageResult


def ready_words(scene: Scene, since: int) -> set[str]:
    """What Ready said in every status that was written since."""
    return {
        item["status"] for status in scene.history[since:] for item in status["conditions"] if item["type"] == "Ready"
    }


def test_unchanged_sources_are_looked_at_each_week_and_nothing_else_happens() -> None:
    scene = ready()
    began, ran, since = scene.clock.now, len(scene.world.requests), len(scene.history)
    until(scene, began + 6 * WEEK)
    assert looks(scene) == 6
    assert len(scene.world.requests) == ran + 6
    assert scene.status.revision == 1
    assert ready_words(scene, since) == {"True"}
    assert scene.status.schedule.result == "Unchanged"
    assert len(scene.history) - since <= 6 * 4
    # 1 January 2026 is a Thursday; six Mondays later it is three o'clock in Berlin, two by UTC.
    assert scene.status.schedule.next_look == "2026-02-16T02:00:00Z"
    assert scene.status.schedule.last_change == ""


def test_a_changed_corpus_makes_one_revision_and_the_old_one_serves_meanwhile() -> None:
    scene = ready()
    until(scene, scene.clock.now + 2 * WEEK)
    url, before = scene.status.served.active_fingerprint, len(scene.world.requests)
    scene.world.corpus = "second edition"
    until(scene, scene.clock.now + WEEK, lambda scene: scene.status.revision == 2)
    assert scene.status.served.active_fingerprint == url
    scene.run(is_ready)
    stages = [request.stage.value for request in scene.world.requests[before:]]
    assert stages == ["inputs", "sdg", "prep", "finetune", "eval", "export", "verify"]
    assert scene.status.served.active_revision == 2
    assert scene.status.served.active_fingerprint != url
    until(scene, scene.clock.now + 3 * WEEK)
    assert scene.status.revision == 2
    assert scene.status.schedule.result == "Unchanged"
    assert scene.resource["metadata"]["generation"] == 1
    assert scene.events().count("SourcesChanged") == 1


def test_a_corpus_that_changes_back_makes_a_revision_whose_work_is_found_again() -> None:
    scene = ready()
    for number, edition in enumerate(("second edition", "first edition"), start=2):
        scene.world.corpus = edition
        until(scene, scene.clock.now + WEEK)
        scene.run(is_ready)
        assert scene.status.revision == number
        assert scene.status.served.active_revision == number
    names = scene.cluster.created_jobs
    assert len(names) == len(set(names))


def test_where_changes_are_reported_the_status_says_so_and_nothing_runs() -> None:
    scene = ready(onCorpusChange="Report")
    scene.world.corpus = "second edition"
    until(scene, scene.clock.now + 3 * WEEK)
    told = scene.status.schedule
    assert (told.result, scene.status.revision) == ("Changed", 1)
    assert told.message.startswith("the documents changed since revision 1 looked at them; another spec.corpus.version")
    assert told.last_change < told.last_look
    assert scene.events().count("SourcesChanged") == 1
    assert is_ready(scene)
    scene.edit(a_spec(schedule=MONDAYS | {"onCorpusChange": "Report"}, corpus=a_corpus("2")))
    scene.run(is_ready).settle(3)
    assert (scene.status.schedule.result, scene.status.schedule.message) == ("", "")


@pytest.mark.parametrize(
    ("drift", "shown"),
    [
        ({"newText": 0.5, "newDocuments": 2}, {"newDocuments": 2}),
        ({"newDocuments": -1, "goneDocuments": True}, {}),
        ({"newDocuments": 1 << 60, "unseenTerms": "0." + "3" * 40}, {}),
        ({"words": "many", "newText": "0.50000"}, {"newText": "0.50000"}),
        (["newText"], {}),
    ],
)
def test_of_the_drift_that_an_image_tells_is_shown_what_the_status_can_show(
    drift: Any, shown: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = ready(onCorpusChange="Report")

    def work(request: StageRequest, *told: Any) -> tuple[int, StageResult]:
        code, result = do_work(request, *told)
        return code, replace(result, details={**result.details, "drift": drift})

    monkeypatch.setattr(world, "do_work", work)
    scene.world.corpus = "second edition"
    until(scene, scene.clock.now + 2 * WEEK)
    assert scene.status.schedule.result == "Changed"
    assert scene.status.schedule.drift == shown


def test_one_look_catches_up_on_all_that_were_missed() -> None:
    scene = ready()
    scene.clock.now += 5 * WEEK
    scene.restart()
    scene.settle(30)
    assert looks(scene) == 1
    assert scene.status.schedule.next_look > f"{scene.clock.now:%Y-%m-%dT%H:%M:%SZ}"


def test_a_look_that_is_due_waits_for_the_run_in_progress() -> None:
    scene = a_scene(schedule=NIGHTLY).running(Stage.FINETUNE)
    scene.world.corpus = "second edition"
    scene.clock.now = datetime(2026, 1, 1, 3, 0, 1, tzinfo=UTC)
    scene.settle(5)
    assert looks(scene) == 0
    assert scene.status.schedule.waits == "it is due, and waits until revision 1 has come to its end"
    scene.release()
    scene.run(lambda scene: scene.status.revision == 2).run(is_ready).settle(10)
    assert looks(scene) == 1
    assert scene.status.revision == 2


def test_sources_that_cannot_be_read_are_told_and_the_served_model_stays_ready() -> None:
    scene = ready()
    since = len(scene.history)
    scene.will(Stage.INPUTS, BAD_INPUT)
    until(scene, scene.clock.now + WEEK)
    assert ready_words(scene, since) == {"True"}
    (warning,) = scene.status.warnings
    assert warning.message.startswith("the sources could not be looked at (")
    assert scene.status.schedule.result == "Failed"
    assert scene.status.last_failure == {}
    assert scene.events().count("StageWarned") == 1
    until(scene, scene.clock.now + WEEK)
    assert (scene.status.schedule.result, scene.status.warnings) == ("Unchanged", ())


def test_a_look_that_fails_for_a_moment_is_tried_again() -> None:
    scene = ready()
    scene.will(Stage.INPUTS, TRANSIENT, TRANSIENT)
    until(scene, scene.clock.now + WEEK)
    assert scene.status.schedule.result == "Unchanged"
    assert looks(scene) == 3


def test_a_look_whose_job_was_answered_401_once_is_made_a_moment_later() -> None:
    scene = ready()
    answers = iter([error_of(401, "create", ("Job", NAMESPACE, "look"), {}, b'{"message": "Unauthorized"}')])

    def hook(call: Call, when: str) -> None:
        if when == "before" and (call.verb, call.kind) == ("create", "Job") and (error := next(answers, None)):
            raise error

    scene.cluster.hook = hook
    until(scene, scene.clock.now + WEEK)
    assert (looks(scene), scene.status.schedule.result) == (1, "Unchanged")


def test_changed_documents_bring_a_resource_on_that_stood_still() -> None:
    scene = a_scene(schedule=NIGHTLY)
    scene.will(Stage.INPUTS, BAD_INPUT)
    scene.run(stage_is(Stage.INPUTS, "Failed"))
    until(scene, scene.clock.now + timedelta(days=2))
    scene.run(is_ready)
    assert scene.status.revision == 2


def test_of_looks_the_last_ones_job_is_kept() -> None:
    scene = a_scene(schedule={"cron": "0,30 * * * *"}).run(is_ready)
    until(scene, scene.clock.now + timedelta(hours=6))
    assert looks(scene) == 12
    jobs = [raw["metadata"]["name"] for raw in scene.cluster.find("Job") if "-inputs-" in raw["metadata"]["name"]]
    assert len(jobs) == 2  # the revision's own is one of them


def story(scene: Scene) -> Scene:
    """A look that finds nothing, one that finds a change, and the revision that follows."""
    until(scene, datetime(2026, 1, 6, tzinfo=UTC))
    scene.world.corpus = "second edition"
    until(scene, datetime(2026, 1, 14, tzinfo=UTC))
    return scene.run(is_ready).settle(12)


@pytest.mark.parametrize(("when", "first_number"), [("before", 0), ("after", 1)])
def test_a_crash_at_a_write_ends_the_same(when: str, first_number: int) -> None:
    """At each third write: before one, and after its neighbour."""
    start = ready()
    first = start.writes()
    golden = story(start.fork())
    wanted, jobs = end_state(golden), sorted(golden.cluster.created_jobs)
    assert golden.status.revision == 2
    assert golden.writes() - first > 30
    for number in range(first_number, golden.writes() - first, 3):
        scene = start.fork()
        scene.cluster.hook = Nth(number + 1, when, Crash())
        story(scene)
        assert scene.crashes == 1
        assert end_state(scene) == wanted
        assert sorted(scene.cluster.created_jobs) == jobs


def test_a_clock_that_goes_back_by_seconds_makes_no_second_look() -> None:
    scene = ready()
    until(scene, scene.clock.now + WEEK, lambda scene: scene.status.schedule.look is not None)
    begun = scene.status.schedule
    scene.clock.now = datetime.fromisoformat(begun.due) - timedelta(seconds=2)
    scene.operator.hear()
    scene.operator.reconcile()
    assert scene.status.schedule.next_look == begun.next_look
