"""How an attempt ended and whether there will be another. Pure.

The exit code says what to do (`contract.ExitCode`); what never reached an exit code (evicted, out of memory, past
its deadline) is sorted here too. Every failure has a CamelCase reason and a message that names the next action.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from embedding_operator.decide.decision import Observed
from embedding_operator.decide.waiting import INJECTED_BLOCKS, injected_message
from embedding_operator.objects.manifests.job import KEPT_S
from embedding_operator.objects.manifests.sources import COPY_PREFIX, SOURCE_VOLUME_PREFIX
from embedding_operator.objects.views import JobView, PodView
from embedding_operator.resource.api import PodSettings, Spec
from embedding_operator.resource.pipeline import BY_STAGE
from embedding_stages import contract
from embedding_stages.contract import ExitCode, Stage, StageResult

FailureClass = Literal["BadInput", "Transient", "OutOfMemory", "Stopped", "Bug", "Disrupted"]
_KINDS: Final[Mapping[int, FailureClass]] = {
    ExitCode.BAD_INPUT: "BadInput",
    ExitCode.TRANSIENT: "Transient",
    ExitCode.OUT_OF_MEMORY: "OutOfMemory",
    ExitCode.STOPPED: "Stopped",
}
# Reasons that a stage gives when it was asked to stop, or when a peer of it is gone.
_FOLLOWED: Final = frozenset({contract.INTERRUPTED, contract.PEER_LOST})
# In the kubelet's words, of a volume into which an image is copied.
_FULL_VOLUME: Final = re.compile(rf'EmptyDir volume "{SOURCE_VOLUME_PREFIX}([\w-]+)" exceeds the limit')
_BUG_RETRIES: Final = 1
_OUT_OF_MEMORY_RETRIES: Final = 3
_BACKOFF_S: Final = 10
_BACKOFF_MAX_S: Final = 300
_LOG_TAIL_BYTES: Final = 4096


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
    # A pod fails with any of its containers, also one that is not the operator's, and its Job with it.
    all_done = len(job.pods) >= job.nodes and all(pod.exit_code == 0 for pod in job.pods)
    if result is not None and _is_of(job, result) and (job.succeeded or all_done):
        return result
    if job.succeeded:
        return Failure(
            kind="Bug",
            reason="NoResult",
            message=f"Job {job.name} ended without a valid result; exit 0 without artefacts is a failure",
            exit_code=0,
        )
    return _failure(job, spec)


def _is_of(job: JobView, result: StageResult) -> bool:
    """Whether a result is that of the Job's own work, with everything that its stage writes."""
    wanted = BY_STAGE[job.stage].outputs
    return result.fingerprint == job.fingerprint and all(name in result.artefacts for name in wanted)


def culprit(job: JobView) -> PodView | None:
    """The pod that explains why its Job failed.

    One failed pod takes its peers with it, often within the same second, and timestamps have no finer resolution.
    So the failed pods are ranked, best first:

    1. not drained, preempted or being deleted;
    2. does not report that it only followed a peer (`INTERRUPTED`, `PEER_LOST`);
    3. failed of something that no peer can cause: bad input, out of memory;
    4. left a result in its termination message;
    5. ended earlier.
    """

    def order(pod: PodView) -> tuple[bool, bool, bool, bool, float]:
        said = _result(pod)
        followed = said is not None and said.reason in _FOLLOWED
        ended = pod.ended.timestamp() if pod.ended is not None else float("inf")
        return pod.deleting or pod.disrupted, followed, not _own_fault(pod), said is None, ended

    failed = [pod for pod in job.pods if pod.exit_code not in (None, 0)]
    return min(failed, key=order, default=job.pod)


def _own_fault(pod: PodView) -> bool:
    """Whether no peer can have caused the pod's failure. Losing a peer can also end in a crash."""
    return pod.exit_code in (ExitCode.BAD_INPUT, ExitCode.OUT_OF_MEMORY) or pod.termination_reason == "OOMKilled"


def _result(pod: PodView | None) -> StageResult | None:
    if pod is None or not pod.termination_message or pod.failed_init:
        return None
    try:
        return StageResult.from_json(pod.termination_message)
    except ValueError:
        return None


def _failure(job: JobView, spec: Spec) -> Failure:
    if job.failure_reason == "DeadlineExceeded":
        return timed_out(job.stage, spec)
    pod = culprit(job)
    result = _result(pod)
    disrupted = job.disrupted or (result is not None and result.reason == contract.INTERRUPTED)
    if job.nodes > 1 and disrupted and (pod is None or not _own_fault(pod)):
        # A single pod that is drained is replaced by its Job. Here the others stop with it or fail when they lose it,
        # and it may be gone by then, with what Kubernetes noted in it.
        message = f"a pod of Job {job.name} was drained or preempted, and the others cannot go on without it"
        return Failure(kind="Disrupted", reason="PodDisrupted", message=message)
    if pod is not None and pod.evicted:
        return _eviction(pod, job.stage, spec)
    if pod is not None and pod.blocked_by and not pod.started and not pod.failed_init:
        return Failure(kind="Transient", reason=INJECTED_BLOCKS, message=injected_message(pod))
    if pod is None or pod.exit_code in (None, 0):
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


def _eviction(pod: PodView, stage: Stage, spec: Spec) -> Failure:
    """The kubelet put the pod out: a volume or the whole pod took too much disk, or the node ran short."""
    if match := _FULL_VOLUME.search(pod.evicted):
        source = spec.sources[match[1]]
        return Failure(
            kind="BadInput",
            reason="SourceImageTooLarge",
            field=f"{source.field}.path",
            message=f"the folder {source.path!r} of image {source.name} is larger than the workspace "
            f"({spec.storage.size}); name a smaller folder, raise spec.storage.size, or take it from a pvc",
            exit_code=pod.exit_code,
        )
    disk = "local storage" in pod.evicted
    return Failure(
        kind="Bug" if disk else "Transient",
        reason="Evicted",
        field=f"spec.stages.{stage}.resources.limits.ephemeral-storage" if disk else "",
        message=f"the pod was evicted: {pod.evicted.strip()}{'; raise it' if disk else ''}",
        exit_code=pod.exit_code,
    )


def timed_out(stage: Stage, spec: Spec) -> Failure:
    """A stage that ran longer than it may."""
    field, timeout_s = f"spec.stages.{stage}.timeoutSeconds", spec.stages[stage].pod.timeout_s
    return Failure(kind="Stopped", reason="Timeout", field=field, message=f"not done after {timeout_s} s: raise it")


def _copy_failure(pod: PodView, spec: Spec) -> Failure:
    source = spec.sources[pod.failed_init.removeprefix(COPY_PREFIX)]
    return Failure(
        kind="BadInput",
        reason="SourceImagePathMissing",
        field=f"{source.field}.path",
        message=f"image {source.name} has nothing readable at {source.path!r}; correct the path or the image: "
        f"{pod.termination_message.strip()[-300:]}",
        exit_code=pod.exit_code,
    )


def failure_record(job: JobView, failure: Failure, observed: Observed, known: Mapping[str, Any]) -> dict[str, Any]:
    """`status.lastFailure`; `known` is the one that is written there."""
    pod = culprit(job)
    text = observed.log_tails.get(job.name, "")
    if not text and known.get("job") == job.name:  # a log is read once
        text = str(known.get("logTail", ""))
    return {
        "stage": job.stage.value,
        "job": job.name,
        "reason": failure.reason,
        "message": str(failure)[:1024],
        "exitCode": failure.exit_code if failure.exit_code is not None else -1,
        "node": pod.node if pod is not None else "",
        "time": f"{job.ended or observed.now:%Y-%m-%dT%H:%M:%SZ}",
        "logTail": text.encode()[-_LOG_TAIL_BYTES:].decode(errors="ignore"),
    }


def retry_at(failed: Sequence[tuple[JobView, Failure]], retries: int) -> datetime | None:
    """When the next attempt may start, or None when there is none. `failed` is this revision's, oldest first.

    Drains and preemptions cost nothing, however often.
    """
    job, last = failed[-1]
    same = sum(1 for _, failure in failed if failure.kind == last.kind)
    allowed = {"Transient": retries, "OutOfMemory": _OUT_OF_MEMORY_RETRIES, "Bug": min(retries, _BUG_RETRIES)}
    if same > allowed.get(last.kind, 0) and last.kind != "Disrupted":
        return None
    delay = 0 if last.kind == "OutOfMemory" else min(_BACKOFF_MAX_S, _BACKOFF_S * 2 ** (same - 1))
    return (job.ended or job.created) + timedelta(seconds=delay)


def kept_s(pod: PodSettings, start_deadline_s: int) -> int:
    """Seconds for which a Job that ended is kept: a day for people, and while later attempts may count it."""
    attempts = max(pod.retries, _OUT_OF_MEMORY_RETRIES)
    return KEPT_S + attempts * (pod.timeout_s + start_deadline_s)


def micro_batch(configured: int, failed: Sequence[tuple[JobView, Failure]]) -> int:
    """Halved for every attempt that ran out of accelerator memory; the global batch never changes."""
    halvings = sum(1 for _, failure in failed if failure.kind == "OutOfMemory")
    return max(1, configured >> halvings)


__all__ = ["Failure", "culprit", "failure_record", "kept_s", "micro_batch", "outcome_of", "retry_at", "timed_out"]
