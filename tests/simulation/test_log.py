"""The operator's log over a whole run: each end of a stage is one line, and so is each attempt that failed."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from simulation.endings import BAD_INPUT, BUG, DRAINED, OOM_KILLED, TRANSIENT, Ending
from simulation.scene import Scene, a_scene, is_ready, is_stalled, stage_is

from embedding_operator.metrics import METRICS
from embedding_stages.contract import Stage

Told = tuple[str, int, str]  # level, attempt, reason
CASES: dict[str, tuple[tuple[Ending, ...], list[Told]]] = {
    "nothing goes wrong": ((), []),
    "the endpoint is away, then it is not": (
        (TRANSIENT, TRANSIENT),
        [("WARNING", 1, "EndpointUnavailable"), ("WARNING", 2, "EndpointUnavailable")],
    ),
    "memory runs out once": ((OOM_KILLED,), [("WARNING", 1, "OOMKilled")]),
    "a defect that stays": ((BUG, BUG, BUG), [("WARNING", 1, "StageCrashed"), ("WARNING", 2, "StageCrashed")]),
    "what no other attempt would cure": ((BAD_INPUT,), [("WARNING", 1, "CorpusEmpty")]),
    "a node is drained, which costs no attempt": ((DRAINED,), []),
}


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.INFO, logger="embedding_operator"):
        yield caplog


def failures(log: pytest.LogCaptureFixture, stage: Stage) -> list[Told]:
    told = [vars(record) for record in log.records if getattr(record, "stage", "") == stage]
    bad = [line for line in told if line["levelno"] >= logging.WARNING]
    return [(line["levelname"], line["attempt"], line["reason"]) for line in bad]


def ends(log: pytest.LogCaptureFixture) -> list[str]:
    told = [vars(record) for record in log.records]
    return [line["stage"] for line in told if line.get("state") in ("Succeeded", "Reused", "Failed")]


@pytest.mark.parametrize("row", CASES)
def test_each_failure_is_told_once(log: pytest.LogCaptureFixture, row: str) -> None:
    endings, expected = CASES[row]
    scene = a_scene()
    scene.will(Stage.SDG, *endings)
    scene.run(lambda now: bool(now.history) and (is_ready(now) or is_stalled(now))).settle(10)
    assert failures(log, Stage.SDG) == expected
    done = [stage.value for stage in Stage if scene.status.stage(stage).state in ("Succeeded", "Failed")]
    assert sorted(ends(log)) == sorted(done)


def test_every_line_about_a_resource_says_which(log: pytest.LogCaptureFixture) -> None:
    scene: Scene = a_scene()
    scene.run(stage_is(Stage.FINETUNE, "Running"))
    assert {getattr(record, "resource", "") for record in log.records} == {"team-a/handbook"}
    assert all(record.getMessage().startswith("team-a/handbook: ") for record in log.records)


def test_a_dry_run_is_told_and_counted_as_no_write(log: pytest.LogCaptureFixture) -> None:
    scene = a_scene()
    before = METRICS.actions.labels(action="TryOut")._value.get()
    scene.run(stage_is(Stage.INPUTS, "Running"))
    assert any(call.verb == "try" for call in scene.cluster.calls)
    assert not [record for record in log.records if "try out" in record.getMessage()]
    assert METRICS.actions.labels(action="TryOut")._value.get() == before
