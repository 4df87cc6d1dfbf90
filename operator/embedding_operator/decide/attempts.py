"""Whether there will be another attempt, when, and with what. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from embedding_operator.decide.outcome import Failure
from embedding_operator.objects.manifests.job import KEPT_S
from embedding_operator.objects.views import JobView
from embedding_operator.resource.api import Spec
from embedding_stages.contract import Stage

_BUG_RETRIES: Final = 1
_OUT_OF_MEMORY_RETRIES: Final = 3
_BACKOFF_S: Final = 10
BACKOFF_MAX_S: Final = 300


def retry_at(failed: Sequence[tuple[JobView, Failure]], retries: int) -> datetime | None:
    """When the next attempt may start, or None when there is none. `failed` is this revision's, oldest first.

    Drains and preemptions cost nothing, however often.
    """
    job, last = failed[-1]
    same = sum(1 for _, failure in failed if failure.kind == last.kind)
    allowed = {"Transient": retries, "OutOfMemory": _OUT_OF_MEMORY_RETRIES, "Bug": min(retries, _BUG_RETRIES)}
    if same > allowed.get(last.kind, 0) and last.kind != "Disrupted":
        return None
    delay = 0 if last.kind == "OutOfMemory" else min(BACKOFF_MAX_S, _BACKOFF_S * 2 ** (same - 1))
    return (job.ended or job.created) + timedelta(seconds=delay)


def kept_s(spec: Spec, stage: Stage) -> int:
    """Seconds after which Kubernetes removes a Job that ended: a day for people, and while later attempts may count it.

    Or longer, where spec.retention says so; what it says shorter is done by retention.py.
    """
    pod = spec.stages[stage].pod
    attempts = max(pod.retries, _OUT_OF_MEMORY_RETRIES)
    counted = KEPT_S + attempts * (pod.timeout_s + spec.start_deadline_s)
    return max(counted, spec.retention.succeeded_s or 0, spec.retention.failed_s or 0)


def micro_batch(configured: int, failed: Sequence[tuple[JobView, Failure]]) -> int:
    """Halved for every attempt that ran out of accelerator memory; the global batch never changes."""
    halvings = sum(1 for _, failure in failed if failure.kind == "OutOfMemory")
    return max(1, configured >> halvings)
