"""Prometheus metrics. Names follow the project's words: stage, phase, attempt, action."""

from __future__ import annotations

import threading
from datetime import datetime

from prometheus_client import Counter, Gauge, Histogram

from embedding_operator.resource.status import StageStatus, Status

_MOST_REASONS = 100  # the project's own are fewer
_STAGE_BUCKETS = (1, 5, 15, 60, 300, 900, 3600, 14400, 43200)


class Metrics:
    """The operator's own metrics; one instance a process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._phase_of: dict[tuple[str, str], str] = {}
        self._reasons: set[str] = set()
        self._watched: set[tuple[str, str]] = set()  # with a canary_cosine
        self.passes = Counter("embedding_operator_reconcile", "Passes over a resource", ["result"])
        self.pass_seconds = Histogram("embedding_operator_reconcile_seconds", "Duration of a pass, seconds")
        self.queue_depth = Gauge("embedding_operator_queue_depth", "Resources waiting for a pass")
        self.actions = Counter("embedding_operator_actions", "Writes to the cluster", ["action"])
        self.phases = Gauge("embedding_operator_resources", "Resources by phase", ["phase"])
        self.stage_seconds = Histogram(
            "embedding_operator_stage_seconds",
            "Duration of a completed stage, seconds",
            ["stage"],
            buckets=_STAGE_BUCKETS,
        )
        self.stage_ends = Counter("embedding_operator_stage_ends", "Stages that ended", ["stage", "state", "reason"])
        self.canary_cosine = Gauge(
            "embedding_operator_canary_cosine",
            "Least cosine of what serves to what it answered when it was verified, at the last comparison",
            ["namespace", "name"],
        )
        self.last_resync = Gauge("embedding_operator_last_resync_timestamp_seconds", "Unix time of the last resync")

    def action(self, name: str) -> None:
        self.actions.labels(action=name).inc()

    def resource(self, key: tuple[str, str], status: Status) -> None:
        cosine = status.served.canaries.get("cosine")
        if cosine is not None:
            self.canary_cosine.labels(*key).set(float(cosine))
        with self._lock:
            if cosine is None and key in self._watched:
                self.canary_cosine.remove(*key)
            (self._watched.add if cosine is not None else self._watched.discard)(key)
            old = self._phase_of.get(key)
            if old == status.phase:
                return
            if old is not None:
                self.phases.labels(phase=old).dec()
            self._phase_of[key] = status.phase
            self.phases.labels(phase=status.phase).inc()

    def _bounded(self, reason: str) -> str:
        """Stages print their own reasons, and one of somebody else's making may print another every time."""
        with self._lock:
            if reason in self._reasons or len(self._reasons) < _MOST_REASONS:
                self._reasons.add(reason)
                return reason
        return "Other"

    def forget(self, key: tuple[str, str]) -> None:
        with self._lock:
            if key in self._watched:
                self._watched.discard(key)
                self.canary_cosine.remove(*key)
            old = self._phase_of.pop(key, None)
            if old is not None:
                self.phases.labels(phase=old).dec()

    def stage_ended(self, old: StageStatus, new: StageStatus) -> None:
        """Count a stage once, when it reaches its end."""
        if old.state == new.state and old.job_name == new.job_name:
            return
        if new.state in ("Succeeded", "Reused", "Failed"):
            self.stage_ends.labels(stage=new.name.value, state=new.state, reason=self._bounded(new.reason)).inc()
        if new.state == "Succeeded" and new.started_at and new.finished_at:
            seconds = datetime.fromisoformat(new.finished_at) - datetime.fromisoformat(new.started_at)
            self.stage_seconds.labels(stage=new.name.value).observe(seconds.total_seconds())


METRICS = Metrics()
