"""How often the progress of a running stage is written: seldom, whatever its log says."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from simulation.fake_cluster import NAMESPACE
from simulation.scene import Scene, a_scene, stage_is

from embedding_stages.contract import Progress, Stage, progress_line


def running() -> Scene:
    return a_scene().running(Stage.FINETUNE)


def say(scene: Scene, percent: int, step: int) -> None:
    """Another line of progress ends every log."""
    line = progress_line(Progress(percent=percent, step=step, total_steps=10_000, eta_seconds=10_000 - step))
    for pod in list(scene.cluster.logs):
        scene.cluster.logs[pod] = line


@pytest.mark.parametrize(
    ("minutes", "percent", "at_most"),
    [
        (1, 100, 2),  # however much is done
        (100, 100, 21),  # each five percent
        (240, 100, 25),
        (240, 2, 25),  # each ten minutes, so that a slow one does not seem dead
    ],
)
def test_writes_of_a_long_stage(minutes: int, percent: int, at_most: int) -> None:
    scene = running()
    begin, written = scene.clock.now, len(scene.history)
    while (passed := scene.clock.now - begin) < timedelta(minutes=minutes):
        share = passed / timedelta(minutes=minutes)
        say(scene, int(percent * share), int(10_000 * share))
        scene.turn()
    assert stage_is(Stage.FINETUNE, "Running")(scene)
    assert len(scene.history) - written <= at_most
    if minutes > 1:
        assert (scene.status.stage(Stage.FINETUNE).percent or 0) >= percent - 10


def test_what_else_changes_takes_the_newest_progress_along() -> None:
    scene = running()
    say(scene, 51, 2)
    scene.turn()
    assert scene.status.stage(Stage.FINETUNE).percent == 50
    scene.clock.now += timedelta(hours=1)
    say(scene, 52, 3)
    scene.turn()
    entry = scene.status.stage(Stage.FINETUNE)
    assert (entry.percent, entry.step, entry.eta_seconds) == (52, 3, 9997)
    assert entry.progress_at


def test_a_log_that_says_the_same_is_not_written_again() -> None:
    scene = running().settle(3)
    written = len(scene.history)
    scene.settle(90)
    assert len(scene.history) == written


@pytest.mark.parametrize(("later_s", "written"), [(1, False), (4, False), (60, True)])
def test_a_start_that_its_controller_tells_a_moment_later_is_no_news(later_s: int, *, written: bool) -> None:
    scene = running()
    job = scene.attempts(Stage.FINETUNE)[-1]
    told = scene.status.stage(Stage.FINETUNE).started_at
    later = f"{datetime.fromisoformat(told) + timedelta(seconds=later_s):%Y-%m-%dT%H:%M:%SZ}"
    scene.cluster.change("Job", NAMESPACE, job, lambda raw: raw["status"].update(startTime=later))
    before = len(scene.history)
    scene.turn()
    assert (len(scene.history) > before) == written
    assert scene.status.stage(Stage.FINETUNE).started_at == (later if written else told)
