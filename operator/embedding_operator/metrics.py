"""Prometheus metrics. Names follow the project's words: stage, phase, attempt, action."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from datetime import datetime

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from embedding_operator.resource.status import StageStatus, Status
from embedding_operator.resource.times import noted_time
from embedding_operator.resource.usage import Spent
from embedding_operator.resource_metrics import ResourceMetrics
from embedding_stages.contract import Stage

_MOST_REASONS = 100  # the project's own are fewer
_STAGE_BUCKETS = (1, 5, 15, 60, 300, 900, 3600, 14400, 43200)


class Metrics:
    """The operator's own metrics; one instance a process."""

    def __init__(self, registry: CollectorRegistry | None = REGISTRY) -> None:
        self._lock = threading.Lock()
        self._phase_of: dict[tuple[str, str], str] = {}
        self._reasons: set[str] = set()
        self.passes = Counter("embedding_operator_reconcile", "Passes over a resource", ["result"], registry=registry)
        self.pass_seconds = Histogram(
            "embedding_operator_reconcile_seconds", "Duration of a pass, seconds", registry=registry
        )
        self.queue_depth = Gauge("embedding_operator_queue_depth", "Resources waiting for a pass", registry=registry)
        self.actions = Counter("embedding_operator_actions", "Writes to the cluster", ["action"], registry=registry)
        self.phases = Gauge("embedding_operator_resources", "Resources by phase", ["phase"], registry=registry)
        self.stage_seconds = Histogram(
            "embedding_operator_stage_seconds",
            "Duration of a completed stage, seconds",
            ["stage"],
            buckets=_STAGE_BUCKETS,
            registry=registry,
        )
        self.stage_ends = Counter(
            "embedding_operator_stage_ends", "Stages that ended", ["stage", "state", "reason"], registry=registry
        )
        self.gpu_seconds = Counter(
            "embedding_operator_gpu_seconds",
            "GPUs that pods of stages had, times seconds",
            ["stage"],
            registry=registry,
        )
        self.llm_tokens = Counter(
            "embedding_operator_llm_tokens", "Tokens that stages used of language models", ["stage"], registry=registry
        )
        self.last_resync = Gauge(
            "embedding_operator_last_resync_timestamp_seconds", "Unix time of the last resync", registry=registry
        )
        self.resync_interval = Gauge(
            "embedding_operator_resync_interval_seconds", "How often resyncs are due, seconds", registry=registry
        )
        self.queue_oldest = Gauge(
            "embedding_operator_queue_oldest_seconds",
            "How long the first resource in the queue waits, seconds",
            registry=registry,
        )
        self.api_requests = Counter(
            "embedding_operator_api_requests",
            "Answers of the API server; code none: no answer",
            ["method", "code"],
            registry=registry,
        )
        self.leader = Gauge("embedding_operator_leader", "1 while this replica leads, else 0", registry=registry)
        self._each: ResourceMetrics | None = None

    def export_resources(
        self, most: int, clock: Callable[[], datetime], registry: CollectorRegistry = REGISTRY
    ) -> None:
        """Tell of single resources from now on, of `most` at most. `clock` gives the time, UTC."""
        self._each = ResourceMetrics(most=most, clock=clock)
        registry.register(self._each)

    def action(self, name: str) -> None:
        self.actions.labels(action=name).inc()

    def api_answered(self, method: str, code: int | None) -> None:
        """`code` is HTTP's, None where nobody answered."""
        self.api_requests.labels(method=method, code="none" if code is None else str(code)).inc()

    def resource(self, key: tuple[str, str], status: Status) -> None:
        if self._each is not None:
            self._each.put(key, status)
        with self._lock:
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
        if self._each is not None:
            self._each.forget(key)
        with self._lock:
            old = self._phase_of.pop(key, None)
            if old is not None:
                self.phases.labels(phase=old).dec()

    def forget_all(self) -> None:
        """Another replica tells of the resources now."""
        with self._lock:
            known = list(self._phase_of)
        for key in known:
            self.forget(key)

    def used(self, old: Status, new: Status, ended_run: Mapping[Stage, Spent]) -> None:
        """Count what the status says of a run beyond what it said before, and what a run used before it was ended."""
        for item in new.stages:
            known = old.stage(item.name).usage.spent if old.revision == new.revision else Spent()
            more = item.usage.spent.beyond(known) + ended_run.get(item.name, Spent())
            self.gpu_seconds.labels(stage=item.name.value).inc(more.gpu_s)
            self.llm_tokens.labels(stage=item.name.value).inc(more.llm_tokens)

    def stage_ended(self, old: StageStatus, new: StageStatus) -> None:
        """Count a stage once, when it reaches its end."""
        if old.state == new.state and old.job_name == new.job_name:
            return
        if new.state in ("Succeeded", "Reused", "Failed"):
            self.stage_ends.labels(stage=new.name.value, state=new.state, reason=self._bounded(new.reason)).inc()
        started, finished = noted_time(new.started_at), noted_time(new.finished_at)
        if new.state == "Succeeded" and started and finished:
            self.stage_seconds.labels(stage=new.name.value).observe((finished - started).total_seconds())


METRICS = Metrics()
