"""Metrics of single resources: what their status says, in numbers. Nothing here reads a clock.

About 25 series a resource, for as many resources as the chart allows; of the others only the counts by phase are told.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from heapq import nsmallest
from typing import Any, Final

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from embedding_operator.resource.conditions import ORDER
from embedding_operator.resource.status import Status
from embedding_operator.resource.times import noted_time
from embedding_stages.contract import Stage

Key = tuple[str, str]  # namespace, name
_MODELS: Final = ("base", "fineTuned", "served")
_REASON_CHARACTERS: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What is told of one resource. None and missing keys: it is not known, so no series tells it."""

    phase: str
    available: bool | None  # whether something answers where clients were sent
    conditions: Sequence[tuple[str, str, str]]  # type, status, reason
    uplift: float | None  # of NDCG@10, relative to the base model
    ndcg: Mapping[str, float]  # NDCG@10 by model
    verified_at: datetime | None  # when what serves was last measured, or found to answer the same
    running: Mapping[str, datetime]  # since when each stage runs
    stage_seconds: Mapping[str, float]  # that the stages took which made what serves
    cosine: float | None  # the least, of the canaries' last comparison


def row_of(status: Status) -> Row:
    """Damaged values of a status that somebody edited are left out."""
    figures = {model: _mapping(status.metrics.get(model)).get("ndcg@10") for model in _MODELS}
    return Row(
        phase=status.phase,
        available=bool(status.served.url) if status.served.active_fingerprint or status.served.is_gap else None,
        conditions=tuple(
            (item.type, item.status, item.reason[:_REASON_CHARACTERS])
            for item in status.conditions
            if item.type in ORDER
        ),
        uplift=_number(status.metrics.get("relativeUplift")),
        ndcg={model: value for model, text in figures.items() if (value := _number(text)) is not None},
        verified_at=_verified_at(status),
        running={
            item.name.value: since
            for item in status.stages
            if item.state == "Running" and (since := noted_time(item.started_at)) is not None
        },
        stage_seconds=_stage_seconds(status),
        cosine=_number(status.served.canaries.get("cosine")),
    )


def families(rows: Mapping[Key, Row], now: datetime, most: int) -> list[Metric]:
    """The metrics of at most `most` resources, the first by namespace and name; ages are those at `now`."""
    told = {key: rows[key] for key in nsmallest(most, rows)}
    left_out = GaugeMetricFamily(
        "embedding_operator_resources_left_out", "Resources without metrics of their own: there are too many"
    )
    left_out.add_metric((), len(rows) - len(told))
    return [left_out, *_states(told), *_figures(told), *_times(told, now)]


class ResourceMetrics(Collector):
    """Rows as the last passes left them, told at each scrape. Thread-safe. `clock` gives the time, UTC."""

    def __init__(self, *, most: int, clock: Callable[[], datetime]) -> None:
        self._most, self._clock = most, clock
        self._lock = threading.Lock()
        self._rows: dict[Key, Row] = {}

    def put(self, key: Key, status: Status) -> None:
        row = row_of(status)
        with self._lock:
            self._rows[key] = row

    def forget(self, key: Key) -> None:
        with self._lock:
            self._rows.pop(key, None)

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            rows = dict(self._rows)
        yield from families(rows, self._clock(), self._most)

    def describe(self) -> Iterator[Metric]:
        """The names, for the registry's check that nobody else has them."""
        yield from families({}, self._clock(), 0)


def _gauge(name: str, says: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"embedding_operator_{name}", says, labels=("namespace", "name", *labels))


def _states(rows: Mapping[Key, Row]) -> Iterator[Metric]:
    info = _gauge("resource_info", "1 for each resource, with its phase", "phase")
    condition = _gauge("resource_condition", "1 for each condition, as it is", "type", "status", "reason")
    available = _gauge("resource_available", "1 while what clients talk to has an available server, else 0")
    for key, row in rows.items():
        if row.available is not None:
            available.add_metric(key, float(row.available))
        info.add_metric((*key, row.phase), 1)
        for item in row.conditions:
            condition.add_metric((*key, *item), 1)
    yield from (info, condition, available)


def _figures(rows: Mapping[Key, Row]) -> Iterator[Metric]:
    uplift = _gauge("resource_uplift_ratio", "Relative uplift of NDCG@10 by tuning; 0.04 is 4 %")
    ndcg = _gauge("resource_ndcg_at_10", "NDCG@10 on the evaluation set, 0 to 1", "model")
    cosine = _gauge(
        "canary_cosine", "Least cosine of what serves to what it answered when it was verified, at the last comparison"
    )
    for key, row in rows.items():
        if row.uplift is not None:
            uplift.add_metric(key, row.uplift)
        for model, value in row.ndcg.items():
            ndcg.add_metric((*key, model), value)
        if row.cosine is not None:
            cosine.add_metric(key, row.cosine)
    yield from (uplift, ndcg, cosine)


def _times(rows: Mapping[Key, Row], now: datetime) -> Iterator[Metric]:
    age = _gauge(
        "resource_verification_age_seconds", "Since what serves was measured, or its canaries compared, seconds"
    )
    running = _gauge("resource_stage_running_seconds", "Since the stage that runs has started, seconds", "stage")
    took = _gauge("resource_stage_seconds", "Duration of the stage that made what serves, seconds", "stage")
    for key, row in rows.items():
        if row.verified_at is not None:
            age.add_metric(key, _since(row.verified_at, now))
        for stage, started in row.running.items():
            running.add_metric((*key, stage), _since(started, now))
        for stage, seconds in row.stage_seconds.items():
            took.add_metric((*key, stage), seconds)
    yield from (age, running, took)


def _verified_at(status: Status) -> datetime | None:
    """Of what clients talk to; a later comparison of its canaries counts, a candidate's verification does not."""
    served = status.served
    if not served.active_fingerprint:
        return None
    told = [served.canaries.get("takenAt"), served.canaries.get("checkedAt")]
    verified = status.stage(Stage.VERIFY)
    if verified.done and not served.candidate_fingerprint:
        told.append(verified.finished_at)
    return max((time for text in told if (time := noted_time(text)) is not None), default=None)


def _stage_seconds(status: Status) -> dict[str, float]:
    """Empty while the manifest's revision is not what serves: the stages are that revision's."""
    serves = status.stage(Stage.DEPLOY).fingerprint == status.served.active_fingerprint != ""
    if not serves or not all(status.stage(stage).done for stage in Stage):
        return {}
    spans = {item.name.value: (noted_time(item.started_at), noted_time(item.finished_at)) for item in status.stages}
    return {name: _since(begun, ended) for name, (begun, ended) in spans.items() if begun and ended}


def _since(then: datetime, now: datetime) -> float:
    """Seconds; 0 where the clocks disagree about what came first."""
    return max(0.0, (now - then).total_seconds())


def _number(text: Any) -> float | None:
    try:
        found = float(text)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


def _mapping(raw: Any) -> Mapping[str, Any]:
    return raw if isinstance(raw, Mapping) else {}
