"""The operator's log: how it is written, and one line for each step of a stage. No framework, no clock.

A line's fields come from the status alone, which anybody with the right to view a resource may read. Libraries say
nothing below a warning, at any level: Kubernetes' client would write whole answers, and Kopf a line for each probe.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

from embedding_operator.resource.conditions import READY
from embedding_operator.resource.status import StageStatus, Status

LEVELS: Final = ("debug", "info", "warning", "error")
FORMATS: Final = ("json", "text")
_LIBRARIES: Final = ("aiohttp", "asyncio", "kopf", "kubernetes", "urllib3")
_TEXT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_KOPFS: Final = ("settings", "k8s_skip")  # that Kopf puts into its records for itself
# asyncio's words where the event loop ends while a watch of Kopf's waits for its next attempt: nothing is lost by it.
_WATCH_AT_THE_END: Final = ("an error occurred during closing of asynchronous generator", "infinite_watch")
_BAD_PHASES: Final = frozenset({"Blocked", "Degraded"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line; `fields` has the same for machines."""

    level: int
    message: str
    fields: Mapping[str, Any]

    def write(self, log: logging.Logger) -> None:
        log.log(self.level, "%s", self.message, extra=dict(self.fields))


class _Text(logging.Formatter):
    """One line a record, but for a traceback: what a stage says of itself must not look like lines of the operator."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is logging's
        return super().formatMessage(record).replace("\r", "").replace("\n", " ")


def _is_news(record: logging.LogRecord) -> bool:
    return not all(words in record.getMessage() for words in _WATCH_AT_THE_END)


def configure(level: str, form: str) -> None:
    """`level` is one of LEVELS, `form` one of FORMATS; replaces what was configured before."""
    handler = logging.StreamHandler()
    handler.setFormatter(_json() if form == "json" else _Text(_TEXT))
    handler.addFilter(_is_news)
    root = logging.getLogger()
    for old in tuple(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    number = logging.getLevelNamesMapping()[level.upper()]
    root.setLevel(number)
    for name in _LIBRARIES:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))


def _json() -> JsonFormatter:
    """One object a line: timestamp (RFC 3339, UTC), severity, logger, message, and the fields of the line."""
    return JsonFormatter(
        "%(levelname)s %(name)s %(message)s",
        rename_fields={"levelname": "severity", "name": "logger", "exc_info": "exception", "k8s_ref": "object"},
        reserved_attrs=(*RESERVED_ATTRS, *_KOPFS),
        timestamp=True,
        json_ensure_ascii=False,
    )


def lines(resource: str, old: Status, new: Status) -> Iterator[Line]:
    """What happened between two statuses. `resource` is namespace/name."""
    failure = new.last_failure
    if failure and any(failure.get(key) != old.last_failure.get(key) for key in ("job", "reason")):
        failed = [item for item in new.stages if item.name.value == failure.get("stage") and item.state == "Failed"]
        if not failed:  # else the stage's own line tells it
            yield _attempt_failed(resource, failure)
    for stage in new.stages:
        before = old.stage(stage.name)
        moved = (before.state, before.reason, before.attempt) != (stage.state, stage.reason, stage.attempt)
        if moved and stage.reason != "NotStarted":
            yield _stage_moved(resource, stage)
    if new.phase != old.phase:
        yield _phase_moved(resource, old, new)


def _stage_moved(resource: str, stage: StageStatus) -> Line:
    told = {
        "resource": resource,
        "stage": stage.name.value,
        "state": stage.state,
        "attempt": stage.attempt,
        "reason": stage.reason,
        "revision": stage.revision,
    }
    bad = stage.state == "Failed" or stage.broken
    message = f"{resource}: {stage.name} {stage.state}, attempt {stage.attempt}: {stage.reason}: {stage.message}"
    return Line(level=logging.WARNING if bad else logging.INFO, message=message, fields=told)


def _attempt_failed(resource: str, failure: Mapping[str, Any]) -> Line:
    """An attempt that another one follows. The end of its log stays in the status: it may quote documents."""
    told = {key: failure.get(key, "") for key in ("stage", "job", "reason", "exitCode", "node")}
    attempt = str(told["job"]).rpartition("-")[2]  # see job_name
    message = f"{resource}: {told['stage']} attempt {attempt} failed: {told['reason']}: {failure.get('message', '')}"
    numbered = {"attempt": int(attempt)} if attempt.isdigit() else {}
    return Line(level=logging.WARNING, message=message, fields={"resource": resource, **numbered, **told})


def _phase_moved(resource: str, old: Status, new: Status) -> Line:
    ready = new.condition(READY)
    reason, words = (ready.reason, ready.message) if ready is not None else ("", "")
    return Line(
        level=logging.WARNING if new.phase in _BAD_PHASES else logging.INFO,
        message=f"{resource}: {old.phase} -> {new.phase}: {reason}: {words}",
        fields={"resource": resource, "phase": new.phase, "reason": reason, "revision": new.revision},
    )
