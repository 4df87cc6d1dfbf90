"""Jobs, Deployments and Events as the decisions need them: small frozen values read from raw JSON. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from embedding_operator.objects.deletion import deleted_at
from embedding_operator.objects.pods import PodView, conditions_of, time_of
from embedding_operator.resource.labels import (
    ATTEMPT_LABEL,
    FINGERPRINT_ANNOTATION,
    QUEUE_LABEL,
    RESUMED_ANNOTATION,
    REVISION_LABEL,
    SERVING_LABEL,
    STAGE_LABEL,
    SUSPENDED_ANNOTATION,
    TEMPLATE_ANNOTATION,
    noted_revision,
)
from embedding_operator.resource.times import parse_time
from embedding_stages.contract import Stage
from embedding_stages.contract.server_profile import RunBy


@dataclass(frozen=True, slots=True, kw_only=True)
class EventView:
    """A Warning Event about one of the operator's objects."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """A stage's Job, one attempt."""

    name: str
    uid: str
    stage: Stage
    fingerprint: str
    template: str
    attempt: int
    revision: int
    created: datetime
    started: datetime | None
    ended: datetime | None
    succeeded: bool
    failed: bool
    failure_reason: str  # DeadlineExceeded, BackoffLimitExceeded, ...
    suspended: bool
    deleting: bool
    nodes: int  # pods that share its work
    pods: Sequence[PodView]  # the newest of each index, in the order of indexes
    disrupted: bool  # whether one of all its pods was
    suspended_by: int | None = None  # the revision whose spec.suspend suspended it; None: the operator did not
    resumed_in: int | None = None  # the revision in spite of whose spec.suspend somebody else let it run
    queue: str = ""  # of Kueue, which suspends and resumes its Jobs
    resuming: bool = False  # it may run, and its controller has not noticed yet
    deleted_at: datetime | None = None  # when it was to be gone
    finalizers: Sequence[str] = ()
    all_pods: Sequence[PodView] = ()  # those that others have replaced included
    version: str = ""

    @property
    def finished(self) -> bool:
        return self.succeeded or self.failed

    @property
    def pod(self) -> PodView | None:
        """The pod of index 0: it reports progress and, at the end, the result."""
        return self.pods[0] if self.pods and self.pods[0].index == 0 else None

    @property
    def all_started(self) -> bool:
        """Whether every pod runs or ran: until then those that run wait for the others."""
        return len(self.pods) >= self.nodes and all(pod.started for pod in self.pods)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentView:
    """A server of one fingerprint: a Deployment, or a NIMService and the Deployment that its operator made of it."""

    name: str
    serving: str
    raw: Mapping[str, Any]
    created: datetime
    total: int  # pods, those of an older template included
    available: int
    updated: int
    observed: bool  # its controller has seen the latest spec
    replica_failure: str  # why pods cannot be created
    deleting: bool
    pods: Sequence[PodView]
    kind: RunBy = "Deployment"  # of `raw`, which is what is applied and deleted
    port_name: str = "http"  # of its pods' port

    @property
    def asked(self) -> int:
        """How many pods its spec asks for."""
        return int((self.raw.get("spec") or {}).get("replicas", 1))

    def rolled_out(self, wanted: int, *, scaled: bool = False) -> bool:
        """Whether all its pods are of the latest template. `scaled`: what changed of late is only their number."""
        return (self.observed or scaled) and self.updated >= wanted and self.total <= self.updated


def view_job(raw: Mapping[str, Any], pods: Sequence[PodView]) -> JobView | None:
    """None for a Job whose labels are not ours to read (edited or foreign)."""
    meta, status = raw["metadata"], raw.get("status") or {}
    labels: Mapping[str, str] = meta.get("labels") or {}
    notes: Mapping[str, str] = meta.get("annotations") or {}
    try:
        stage, attempt = Stage(labels[STAGE_LABEL]), int(labels[ATTEMPT_LABEL])
        revision, fingerprint = int(labels[REVISION_LABEL]), notes[FINGERPRINT_ANNOTATION]
    except (KeyError, ValueError):
        return None
    ends = {c["type"]: c for c in conditions_of(status) if c.get("status") == "True"}
    end = ends.get("Complete") or ends.get("Failed") or {}
    newest = {pod.index: pod for pod in sorted(pods, key=lambda pod: pod.created)}
    suspended = bool((raw.get("spec") or {}).get("suspend"))
    return JobView(
        name=meta["name"],
        uid=meta.get("uid", ""),
        stage=stage,
        fingerprint=fingerprint,
        template=notes.get(TEMPLATE_ANNOTATION, ""),
        attempt=attempt,
        revision=revision,
        created=time_of(meta),
        started=parse_time(status.get("startTime")),
        ended=parse_time(end.get("lastTransitionTime")),
        succeeded="Complete" in ends,
        failed="Failed" in ends,
        failure_reason=(ends.get("Failed") or {}).get("reason", ""),
        suspended=suspended,
        deleting="deletionTimestamp" in meta,
        nodes=int((raw.get("spec") or {}).get("completions") or 1),
        pods=tuple(newest[index] for index in sorted(newest)),
        disrupted=any(pod.disrupted for pod in pods),
        suspended_by=noted_revision(notes, SUSPENDED_ANNOTATION),
        resumed_in=noted_revision(notes, RESUMED_ANNOTATION),
        queue=labels.get(QUEUE_LABEL, ""),
        resuming="Suspended" in ends and not suspended,
        deleted_at=deleted_at(meta),
        finalizers=tuple(meta.get("finalizers") or ()),
        all_pods=tuple(pods),
        version=str(meta.get("resourceVersion", "")),
    )


def view_deployment(raw: Mapping[str, Any], pods: Sequence[PodView]) -> DeploymentView | None:
    """None for a Deployment that serves nothing of ours."""
    meta, status = raw["metadata"], raw.get("status") or {}
    serving = (meta.get("labels") or {}).get(SERVING_LABEL)
    if not serving:
        return None
    return DeploymentView(
        name=meta["name"],
        serving=serving,
        raw=raw,
        created=time_of(meta),
        total=int(status.get("replicas") or 0),
        available=int(status.get("availableReplicas") or 0),
        updated=int(status.get("updatedReplicas") or 0),
        replica_failure=next(
            (
                str(c.get("message", ""))
                for c in conditions_of(status)
                if c.get("type") == "ReplicaFailure" and c.get("status") == "True"
            ),
            "",
        ),
        observed=int(status.get("observedGeneration") or 0) >= int(meta.get("generation") or 0),
        deleting="deletionTimestamp" in meta,
        pods=tuple(pods),
    )
