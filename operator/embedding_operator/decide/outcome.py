"""How an attempt ended. Pure.

The exit code says what to do (`contract.ExitCode`); what never reached an exit code (evicted, out of memory, past
its deadline) is sorted here too. Every failure has a CamelCase reason and a message that names the next action.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from embedding_operator.decide.decision import Observed
from embedding_operator.decide.readable import unreadable
from embedding_operator.decide.waiting import INJECTED_BLOCKS, injected_message, of_own_image
from embedding_operator.objects.manifests.sources import COPY_PREFIX, SOURCE_VOLUME_PREFIX
from embedding_operator.objects.pods import PodView
from embedding_operator.objects.views import JobView
from embedding_operator.resource.api import Spec
from embedding_operator.resource.pipeline import BY_STAGE
from embedding_operator.resource.times import stamp
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
# Likewise, of a node that runs short of something.
_SHORT_NODE: Final = re.compile(r"node was low on resource: ([\w-]+)")
_REQUESTS: Final = frozenset({"memory", "ephemeral-storage"})
_FULL_DISK: Final = re.compile(r"No space left on device|Disk quota exceeded")
NODE_LOST: Final = "NodeLost"
EVICTED: Final = "Evicted"
POD_LOST: Final = "PodLost"
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
    if (result := result_of(job)) is not None:
        return result
    if job.succeeded and job.pod is None:  # a drain and the end of a node take ended pods too
        message = f"Job {job.name} succeeded, and its pod is gone with the result: another attempt finds the work done"
        return Failure(kind="Disrupted", reason=POD_LOST, message=message)
    if job.succeeded:
        said = said_by(job.pod)
        odd = unreadable(said) if said is not None else ""
        return Failure(
            kind="Bug",
            reason="NoResult",
            message=f"Job {job.name} ended without a valid result{f' ({odd} cannot be read)' if odd else ''}; exit 0 "
            f"without artefacts is a failure{_next(job.stage, spec)}",
            exit_code=0,
        )
    return _failure(job, spec)


def result_of(job: JobView) -> StageResult | None:
    """What a finished Job did; None where it failed."""
    result = said_by(job.pod)
    # A pod fails with any of its containers, also one that is not the operator's, and its Job with it.
    all_done = len(job.pods) >= job.nodes and all(pod.exit_code == 0 for pod in job.pods)
    if result is None or unreadable(result) or not _is_of(job, result):
        return None
    return result if job.succeeded or all_done else None


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
        said = said_by(pod)
        followed = said is not None and said.reason in _FOLLOWED
        ended = pod.ended.timestamp() if pod.ended is not None else float("inf")
        return pod.deleting or pod.disrupted, followed, not _own_fault(pod), said is None, ended

    failed = [pod for pod in job.pods if pod.exit_code not in (None, 0)]
    return min(failed, key=order, default=job.pod)


def _own_fault(pod: PodView) -> bool:
    """Whether no peer can have caused the pod's failure. Losing a peer can also end in a crash."""
    return pod.exit_code in (ExitCode.BAD_INPUT, ExitCode.OUT_OF_MEMORY) or pod.termination_reason == "OOMKilled"


def said_by(pod: PodView | None) -> StageResult | None:
    """The result in a pod's last words."""
    if pod is None or not pod.termination_message or pod.failed_init:
        return None
    try:
        return StageResult.from_json(pod.termination_message)
    except ValueError:
        return None


def _failure(job: JobView, spec: Spec) -> Failure:
    if job.failure_reason == "DeadlineExceeded":
        if job.disrupted or len(job.all_pods) > job.nodes:  # it counts over all pods of the Job
            message = f"pods of Job {job.name} were replaced until its time was over"
            return Failure(kind="Disrupted", reason="PodDisrupted", message=message)
        return timed_out(job.stage, spec.stages[job.stage].pod.timeout_s)
    pod = culprit(job)
    result = said_by(pod)
    disruption = _disruption(job, pod, result)
    if disruption is not None:
        return disruption
    if pod is not None and pod.evicted:
        return _eviction(pod, job.stage, spec)
    if pod is not None and pod.blocked_by and not pod.started and not pod.failed_init:
        return Failure(kind="Transient", reason=INJECTED_BLOCKS, message=injected_message(pod))
    if pod is None or pod.exit_code in (None, 0):
        return Failure(
            kind="Transient", reason=POD_LOST, message=f"the pod of Job {job.name} is gone{_next(job.stage, spec)}"
        )
    if pod.failed_init.startswith(COPY_PREFIX):
        return _copy_failure(pod, spec)
    if result is not None:
        asked_to_stop = result.reason == contract.INTERRUPTED and pod.exit_code == ExitCode.TRANSIENT
        kind = "Disrupted" if asked_to_stop else _KINDS.get(pod.exit_code, "Bug")
        return Failure(
            kind=kind,
            reason=result.reason[:64] or "StageFailed",
            message=result.message + (_next(job.stage, spec) if kind == "Bug" and not result.field else ""),
            field=result.field,
            exit_code=pod.exit_code,
        )
    if pod.termination_reason == "OOMKilled":
        limit = spec.stages[job.stage].pod.resources["limits"].get("memory")
        return Failure(
            kind="Bug",
            reason="OOMKilled",
            field=f"spec.stages.{job.stage}.resources.limits.memory",
            message=f"the container ran out of memory{f' at {limit}' if limit else ''}: raise it",
            exit_code=pod.exit_code,
        )
    if pod.exit_code == ExitCode.TRANSIENT and _FULL_DISK.search(pod.termination_message):
        return Failure(  # the result is written to the node's disk, not to the workspace
            kind="Transient",
            reason=contract.DISK_FULL,
            field=f"spec.stages.{job.stage}.resources.requests.ephemeral-storage",
            message=f"the disk of node {pod.node} has no room for the result of the stage: raise it, so that the pod "
            "runs where there is room",
            exit_code=pod.exit_code,
        )
    if _FULL_DISK.search(pod.termination_message):  # not even the result could be written
        message = f"a disk is full, of the workspace or of node {pod.node}: {pod.termination_message.strip()[-300:]}"
        return Failure(
            kind="BadInput",
            reason=contract.DISK_FULL,
            field="spec.storage.size",
            message=f"{message}; raise it if the storage class lets a claim grow",
            exit_code=pod.exit_code,
        )
    return Failure(
        kind=_KINDS.get(pod.exit_code, "Bug"),
        reason="StageCrashed",
        message=f"exit code {pod.exit_code}: {pod.termination_message.strip()[-600:]}{_next(job.stage, spec)}",
        exit_code=pod.exit_code,
    )


def _next(stage: Stage, spec: Spec) -> str:
    """What to do about a failure that names no field."""
    return (
        f"{of_own_image(spec, stage)}; status.lastFailure has the end of the log; another spec.retryToken tries again"
    )


def _disruption(job: JobView, pod: PodView | None, result: StageResult | None) -> Failure | None:
    """What costs no attempt: a node that is lost or drained, a preemption. None where the stage failed by itself.

    A single pod that is drained is replaced by its Job. Of several the others stop with it or fail when they lose it,
    and it may be gone by then, with what Kubernetes noted in it.
    """
    asked_to_stop = result is not None and result.reason == contract.INTERRUPTED
    disrupted = job.disrupted or asked_to_stop if job.nodes > 1 else pod is not None and pod.disrupted
    lost = next((item for item in (*job.all_pods, *job.pods) if item.node_lost), None)
    if (pod is not None and (_own_fault(pod) or pod.evicted)) or not (disrupted or lost is not None):
        return None
    if lost is not None and (job.nodes > 1 or lost is pod or pod is None):
        message = f"node {lost.node} of pod {lost.name} does not answer, or is gone; the stage goes on on another one"
        return Failure(kind="Disrupted", reason=NODE_LOST, message=message)
    if not disrupted:
        return None
    put_out = next((item for item in (*job.all_pods, *job.pods) if item.tainted), None)
    if put_out is not None and (job.nodes > 1 or put_out is pod or pod is None):
        message = (
            f"pod {put_out.name} was evicted by a taint of node {put_out.node}, as for maintenance, and costs no "
            f"attempt; taints that the stage's pods are to stay beside stand in spec.stages.{job.stage}.tolerations"
        )
        return Failure(kind="Disrupted", reason=EVICTED, message=message)
    others = ", and the others cannot go on without it" if job.nodes > 1 else ""
    message = f"a pod of Job {job.name} was drained or preempted{others}"
    return Failure(kind="Disrupted", reason="PodDisrupted", message=message)


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
    said, resources = pod.evicted.strip().rstrip("."), f"spec.stages.{stage}.resources"
    if short := _SHORT_NODE.search(said):  # a pod that asks for more is put where there is more
        reason = contract.DISK_FULL if short[1] == "ephemeral-storage" else EVICTED
        field = f"{resources}.requests.{short[1]}" if short[1] in _REQUESTS else ""
        cure = "; raise it if this happens again" if field else ""
        message = f"the pod was evicted, and costs no attempt: {said}{cure}"
        return Failure(kind="Disrupted", reason=reason, field=field, message=message, exit_code=pod.exit_code)
    disk = "local storage" in said
    return Failure(
        kind="Bug" if disk else "Disrupted",
        reason=contract.DISK_FULL if disk else EVICTED,
        field=f"{resources}.limits.ephemeral-storage" if disk else "",
        message=f"the pod was evicted: {said}{'; raise it' if disk else ''}",
        exit_code=pod.exit_code,
    )


def timed_out(stage: Stage, timeout_s: int) -> Failure:
    """A stage that ran longer than it may."""
    field = f"spec.stages.{stage}.timeoutSeconds"
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
        "time": stamp(job.ended or observed.now),
        "logTail": text.encode()[-_LOG_TAIL_BYTES:].decode(errors="ignore"),
    }
