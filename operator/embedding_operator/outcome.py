"""How an attempt ended and whether there will be another. Pure.

The exit code says what to do (`contract.ExitCode`); what never reached an exit code (evicted, out of memory, past
its deadline) is sorted here too. Every failure has a CamelCase reason and a message that names the next action.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from embedding_operator.api import Spec
from embedding_operator.manifests.job import COPY_PREFIX
from embedding_operator.stages import BY_STAGE
from embedding_operator.views import JobView, PodView
from embedding_stages import contract
from embedding_stages.contract import ExitCode, StageResult

FailureClass = Literal["BadInput", "Transient", "OutOfMemory", "Stopped", "Bug"]
_KINDS: Final[Mapping[int, FailureClass]] = {
    ExitCode.BAD_INPUT: "BadInput",
    ExitCode.TRANSIENT: "Transient",
    ExitCode.OUT_OF_MEMORY: "OutOfMemory",
    ExitCode.STOPPED: "Stopped",
}
_OUT_OF_MEMORY_RETRIES: Final = 3
_BUG_RETRIES: Final = 1
_BACKOFF_S: Final = 10
_BACKOFF_MAX_S: Final = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One failed attempt."""

    kind: FailureClass
    reason: str
    message: str
    field: str = ""
    exit_code: int | None = None

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


def outcome_of(job: JobView, spec: Spec) -> StageResult | Failure:
    """What a finished Job means. A Job that succeeded without a complete result has failed."""
    result = _result(job.pod)
    if job.succeeded:
        wanted = BY_STAGE[job.stage].outputs
        if result is None or result.fingerprint != job.fingerprint or any(a not in result.artefacts for a in wanted):
            return Failure(
                kind="Bug",
                reason="NoResult",
                message=f"Job {job.name} ended without a valid result; exit 0 without artefacts is a failure",
                exit_code=0,
            )
        return result
    return _failure(job, result, spec)


def _result(pod: PodView | None) -> StageResult | None:
    if pod is None or not pod.termination_message or pod.failed_init:
        return None
    try:
        return StageResult.from_json(pod.termination_message)
    except ValueError:
        return None


def _failure(job: JobView, result: StageResult | None, spec: Spec) -> Failure:
    if job.failure_reason == "DeadlineExceeded":
        field = f"spec.stages.{job.stage}.timeoutSeconds"
        timeout_s = spec.stages[job.stage].pod.timeout_s
        return Failure(kind="Stopped", reason="Timeout", field=field, message=f"not done after {timeout_s} s: raise it")
    pod = job.pod
    if pod is None or pod.exit_code is None:
        return Failure(kind="Transient", reason="PodLost", message=f"the pod of Job {job.name} is gone")
    if pod.failed_init.startswith(COPY_PREFIX):
        return _copy_failure(pod, spec)
    if result is not None:
        return Failure(
            kind=_KINDS.get(pod.exit_code, "Bug"),
            reason=result.reason[:64] or "StageFailed",
            message=result.message,
            field=result.field,
            exit_code=pod.exit_code,
        )
    if pod.termination_reason == "OOMKilled":
        field = f"spec.stages.{job.stage}.resources.limits.memory"
        return Failure(
            kind="Bug",
            reason="OOMKilled",
            field=field,
            message="the container ran out of memory: raise it",
            exit_code=pod.exit_code,
        )
    return Failure(
        kind=_KINDS.get(pod.exit_code, "Bug"),
        reason="StageCrashed",
        message=f"exit code {pod.exit_code}: {pod.termination_message.strip()[-600:]}",
        exit_code=pod.exit_code,
    )


def _copy_failure(pod: PodView, spec: Spec) -> Failure:
    source = {
        contract.SOURCE_CORPUS: spec.corpus_source,
        contract.SOURCE_MODEL: spec.model_source,
        contract.SOURCE_BEIR: spec.labelled_source,
    }[pod.failed_init.removeprefix(COPY_PREFIX)]
    if source is None:  # an init container exists only for a source that the manifest names
        raise ValueError(f"unknown init container {pod.failed_init}")
    return Failure(
        kind="BadInput",
        reason="SourceImagePathMissing",
        field=f"{source.field}.path",
        message=f"image {source.name} has nothing readable at {source.path!r}; correct the path or the image: "
        f"{pod.termination_message.strip()[-300:]}",
        exit_code=pod.exit_code,
    )


def retry_at(failed: Sequence[tuple[JobView, Failure]], retries: int) -> datetime | None:
    """When the next attempt may start, or None when there is none. `failed` is this revision's, oldest first."""
    job, last = failed[-1]
    same = sum(1 for _, failure in failed if failure.kind == last.kind)
    allowed = {"Transient": retries, "OutOfMemory": _OUT_OF_MEMORY_RETRIES, "Bug": min(retries, _BUG_RETRIES)}
    if same > allowed.get(last.kind, 0):
        return None
    delay = 0 if last.kind == "OutOfMemory" else min(_BACKOFF_MAX_S, _BACKOFF_S * 2 ** (same - 1))
    return (job.ended or job.created) + timedelta(seconds=delay)


def micro_batch(configured: int, failed: Sequence[tuple[JobView, Failure]]) -> int:
    """Halved for every attempt that ran out of accelerator memory; the global batch never changes."""
    halvings = sum(1 for _, failure in failed if failure.kind == "OutOfMemory")
    return max(1, configured >> halvings)


__all__ = ["Failure", "micro_batch", "outcome_of", "retry_at"]
