"""What the operator's log says of a step, and what it leaves out."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from unit.operator.builders import IMAGES, a_condition, a_stage

from embedding_operator import journal
from embedding_operator.resource.api import TORCH_SERVER
from embedding_operator.resource.status import StageStatus, Status
from embedding_operator.settings import Settings
from embedding_stages.contract import Stage

WHO = "team-a/handbook"
FAILURE = {
    "stage": "finetune",
    "job": "handbook-finetune-0a1b2c3d-1",
    "reason": "StageCrashed",
    "message": "exit code 1",
    "exitCode": 1,
    "node": "node-1",
    "logTail": "a line of a document",
}
RUNNING = a_stage(Stage.FINETUNE, state="Running", reason="Running", message="attempt 1 is running")


def at(entry: StageStatus, **changes: Any) -> Status:
    return Status(stages=(entry,), phase="Running", **changes)


# What was, what is, and the line that tells of it: level, words in it, fields in it.
STEPS: dict[str, tuple[Status, Status, tuple[int, tuple[str, ...], dict[str, Any]]]] = {
    "a stage starts": (
        at(a_stage(Stage.FINETUNE, state="Waiting", reason="PodStarting")),
        at(RUNNING),
        (
            logging.INFO,
            (WHO, "finetune Running, attempt 1", "attempt 1 is running"),
            {"resource": WHO, "stage": "finetune", "state": "Running", "attempt": 1, "reason": "Running"},
        ),
    ),
    "a stage ends": (
        at(RUNNING),
        at(a_stage(Stage.FINETUNE, reason="Completed", message="60 steps")),
        (logging.INFO, ("finetune Succeeded", "60 steps"), {"state": "Succeeded", "reason": "Completed"}),
    ),
    "a stage fails for good": (
        at(RUNNING),
        at(a_stage(Stage.FINETUNE, state="Failed", reason="CorpusUnreadable", message="no file"), last_failure=FAILURE),
        (logging.WARNING, ("finetune Failed", "CorpusUnreadable", "no file"), {"state": "Failed", "attempt": 1}),
    ),
    "an attempt fails, and another one comes": (
        at(RUNNING),
        at(RUNNING, last_failure=FAILURE),
        (
            logging.WARNING,
            ("finetune attempt 1 failed", "StageCrashed", "exit code 1"),
            {"resource": WHO, "stage": "finetune", "attempt": 1, "reason": "StageCrashed", "exitCode": 1},
        ),
    ),
    "a wait that somebody has to end": (
        at(RUNNING),
        at(a_stage(Stage.FINETUNE, state="Waiting", reason="SecretMissing", message="create it", broken=True)),
        (logging.WARNING, ("Waiting", "SecretMissing", "create it"), {"reason": "SecretMissing"}),
    ),
    "a phase in which somebody has to look": (
        Status(phase="Running"),
        Status(phase="Blocked", conditions=(a_condition("Ready", "False", reason="SecretMissing"),)),
        (logging.WARNING, ("Running -> Blocked", "SecretMissing"), {"phase": "Blocked", "resource": WHO}),
    ),
    "a phase": (
        Status(phase="Verifying"),
        Status(phase="Degraded", conditions=(a_condition("Ready", "False", reason="CanariesDiffer"),)),
        (logging.WARNING, ("Verifying -> Degraded", "CanariesDiffer"), {"phase": "Degraded", "resource": WHO}),
    ),
}


@pytest.mark.parametrize("row", STEPS)
def test_a_step_is_one_line(row: str) -> None:
    old, new, (level, words, fields) = STEPS[row]
    (line,) = journal.lines(WHO, old, new)
    assert line.level == level
    assert [word for word in words if word not in line.message] == []
    assert fields.items() <= line.fields.items()
    assert "a line of a document" not in f"{line.message} {line.fields}"


QUIET: dict[str, tuple[Status, Status]] = {
    "nothing": (at(RUNNING), at(RUNNING)),
    "progress": (at(RUNNING), at(a_stage(Stage.FINETUNE, state="Running", reason="Running", percent=50))),
    "a failure that was told": (at(RUNNING, last_failure=FAILURE), at(RUNNING, last_failure={**FAILURE, "node": "n"})),
    "a stage whose turn has not come": (Status(), Status(stages=(StageStatus(name=Stage.EVAL),))),
}


@pytest.mark.parametrize("row", QUIET)
def test_no_step_is_no_line(row: str) -> None:
    assert list(journal.lines(WHO, *QUIET[row])) == []


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger, as pytest had it afterwards."""
    found = logging.getLogger()
    handlers, level = list(found.handlers), found.level
    levels = {name: logging.getLogger(name).level for name in journal._LIBRARIES}
    yield found
    found.handlers[:] = handlers
    found.setLevel(level)
    for name, was in levels.items():
        logging.getLogger(name).setLevel(was)


def written(root: logging.Logger, level: str, form: str) -> io.StringIO:
    journal.configure(level, form)
    (handler,) = root.handlers
    assert isinstance(handler, logging.StreamHandler)
    out = io.StringIO()
    handler.setStream(out)
    return out


def test_json_has_the_fields_and_the_loggers_name(root: logging.Logger) -> None:
    out = written(root, "info", "json")
    old, new, _ = STEPS["a stage starts"]
    for line in journal.lines(WHO, old, new):
        line.write(logging.getLogger("embedding_operator.reconcile"))
    told = json.loads(out.getvalue())
    assert told["severity"] == "INFO"
    assert told["logger"] == "embedding_operator.reconcile"
    assert told["timestamp"].endswith("+00:00")
    assert (told["resource"], told["stage"], told["attempt"], told["reason"]) == (WHO, "finetune", 1, "Running")


def test_text_is_one_line_for_people(root: logging.Logger) -> None:
    out = written(root, "info", "text")
    logging.getLogger("embedding_operator.reconcile").warning("%s: eval Failed", WHO)
    assert out.getvalue().endswith(f"WARNING embedding_operator.reconcile: {WHO}: eval Failed\n")


def test_what_a_stage_says_cannot_look_like_a_line_of_the_operator(root: logging.Logger) -> None:
    out = written(root, "info", "text")
    forged = at(a_stage(Stage.FINETUNE, state="Failed", reason="X", message="no\n2026-01-01 ERROR it is lost"))
    for line in journal.lines(WHO, at(RUNNING), forged):
        line.write(logging.getLogger("embedding_operator.reconcile"))
    assert len(out.getvalue().splitlines()) == 1


PROBES = {
    "a probe that Kopf answers": ("kopf.activities.probe", logging.INFO),
    "the request of a probe": ("aiohttp.access", logging.INFO),
    "Kopf's own steps": ("kopf._core.engines.activities", logging.INFO),
    "an answer of the API server, whatever is in it": ("kubernetes.client.rest", logging.DEBUG),
    "a request's address": ("urllib3.connectionpool", logging.DEBUG),
}


@pytest.mark.parametrize("level", journal.LEVELS)
@pytest.mark.parametrize("row", PROBES)
def test_libraries_are_quiet_at_every_level(root: logging.Logger, row: str, level: str) -> None:
    out = written(root, level, "json")
    name, at_level = PROBES[row]
    logging.getLogger(name).log(at_level, "chatter")
    assert out.getvalue() == ""


def test_libraries_errors_are_told(root: logging.Logger) -> None:
    out = written(root, "info", "json")
    logging.getLogger("kopf.activities.probe").error("the probe failed", extra={"k8s_skip": True, "settings": object()})
    told = json.loads(out.getvalue())
    assert told["message"] == "the probe failed"
    assert not {"settings", "k8s_skip"} & told.keys()


def test_a_watch_that_waits_when_the_process_ends_writes_no_traceback(root: logging.Logger) -> None:
    out = written(root, "info", "json")
    for name in ("infinite_watch", "another"):
        logging.getLogger("asyncio").error(
            "an error occurred during closing of asynchronous generator <async_generator object %s at 0x7f>", name
        )
    (line,) = out.getvalue().splitlines()
    assert "another" in json.loads(line)["message"]


@pytest.mark.parametrize(("level", "heard"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_a_level_leaves_out_what_is_below_it(root: logging.Logger, level: str, heard: int) -> None:
    out = written(root, level, "text")
    for number in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
        logging.getLogger("embedding_operator.x").log(number, "a line")
    assert len(out.getvalue().splitlines()) == heard


@pytest.mark.parametrize("variable", ["LOG_LEVEL", "LOG_FORMAT"])
def test_a_wrong_value_names_its_variable(variable: str) -> None:
    images = dict.fromkeys(("IMAGE_SDG", "IMAGE_PREP", "IMAGE_FINETUNE", "IMAGE_EVALUATE"), "image:1")
    images |= dict.fromkeys(("IMAGE_EXPORT", "IMAGE_SERVE", "IMAGE_SERVE_TORCH"), "image:1")
    assert Settings.from_env(images).images.keys() == {*IMAGES, TORCH_SERVER}
    with pytest.raises(ValueError, match=f"{variable}='loud' must be one of"):
        Settings.from_env({**images, variable: "loud"})
