"""What goes into a decision and what comes out of it. Pure values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from embedding_operator.objects.views import DeploymentView, EventView, JobView
from embedding_operator.resource.status import Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """Everything read from outside in one pass, the clock included."""

    now: datetime  # UTC
    generation: int
    deleting: bool = False
    jobs: Sequence[JobView] = ()
    deployments: Sequence[DeploymentView] = ()
    services: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # by name
    workspace_exists: bool = False
    workspace_request: str = ""  # the size that the claim asks for; empty for one that is not ours
    claim_refusal: str = ""  # why the API server refused to enlarge the claim
    quota: str = ""  # message of the ResourceQuota that refused an action in this pass
    warnings: Mapping[str, Sequence[EventView]] = field(default_factory=dict)  # by uid of a pod, or of a Job without
    log_tails: Mapping[str, str] = field(default_factory=dict)  # Job name -> end of its pod's log


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateJob:
    manifest: Mapping[str, Any]
    why: str

    def __str__(self) -> str:
        return f"create Job {self.manifest['metadata']['name']}: {self.why}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteObject:
    kind: Literal["Job", "Deployment", "Service"]
    name: str
    why: str

    def __str__(self) -> str:
        return f"delete {self.kind} {self.name}: {self.why}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspendJob:
    name: str
    suspend: bool
    why: str

    def __str__(self) -> str:
        return f"{'suspend' if self.suspend else 'resume'} Job {self.name}: {self.why}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Apply:
    """Server-side apply: creates the object or restores what somebody changed."""

    manifest: Mapping[str, Any]
    why: str

    def __str__(self) -> str:
        return f"apply {self.manifest['kind']} {self.manifest['metadata']['name']}: {self.why}"


Action = CreateJob | DeleteObject | SuspendJob | Apply


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A Kubernetes Event to post once the status that it tells of is written."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The whole decision. `str(plan)` is a report that a person can read."""

    status: Status
    actions: Sequence[Action] = ()
    events: Sequence[Event] = ()
    requeue_after_s: float | None = None

    def __str__(self) -> str:
        return "\n".join([f"phase {self.status.phase}", *(str(action) for action in self.actions)])


@dataclass(slots=True, kw_only=True)
class Draft:
    """A plan while it is being made."""

    status: Status
    actions: list[Action] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    requeue_s: list[float] = field(default_factory=list)

    def event(self, kind: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        self.events.append(Event(type=kind, reason=reason, message=message[:1000]))

    def look_again_in(self, seconds: float) -> None:
        self.requeue_s.append(max(1.0, seconds))
