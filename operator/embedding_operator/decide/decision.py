"""What goes into a decision and what comes out of it. Pure values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

from embedding_operator.objects.image_pods import ImagePod
from embedding_operator.objects.views import DeploymentView, EventView, JobView
from embedding_operator.objects.workloads import WorkloadView
from embedding_operator.resource.status import Status
from embedding_operator.resource.usage import Spent
from embedding_stages.contract import Stage

RefusalKind = Literal["claim", "record", "quota", "late", "refused", "untried", "unchecked", "note", "look", "away"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """Everything read from outside in one pass, the clock included."""

    now: datetime  # UTC
    generation: int
    jobs: Sequence[JobView] = ()
    deployments: Sequence[DeploymentView] = ()
    image_pods: Sequence[ImagePod] = ()
    workloads: Mapping[str, WorkloadView] = field(default_factory=dict)  # of Kueue, by the uid of their Job
    workloads_unread: str = ""  # why none could be read
    services: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # by name
    workspace_exists: bool = False
    workspace_request: str = ""  # the size that the claim asks for; empty for one that is not ours
    workspace_modes: Sequence[str] = ()  # access modes of an existing claim; empty when it was not found
    refusals: Sequence[Refusal] = ()  # actions of this pass that the cluster did not carry out
    warnings: Mapping[str, Sequence[EventView]] = field(default_factory=dict)  # by uid of a pod, or of a Job without
    pinned: Mapping[str, Any] | None = None  # the record of the revision that the manifest pins
    contract: Mapping[str, Any] | None = None  # the ConfigMap, when the canaries are to be compared
    canaries: Sequence[Sequence[float]] | None = (
        None  # what serves answered, in their order; None: not asked, no answer
    )
    canaries_of: str = ""  # served fingerprint that was asked
    log_tails: Mapping[str, str] = field(default_factory=dict)  # Job name -> end of its pod's log

    def refusal(self, *kinds: RefusalKind) -> Refusal | None:
        """The first refusal of one of these kinds in this pass."""
        return next((item for item in self.refusals if item.kind in kinds), None)

    @property
    def stopped(self) -> Refusal | None:
        """The refusal that stops everything but deletes, for this pass."""
        return self.refusal("refused", "late")

    @property
    def not_begun(self) -> Refusal | None:
        """The refusal of the revision's preflight: what earlier revisions run is not touched for it."""
        stop = self.stopped
        return stop if stop is not None and stop.of_preflight else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An action that the cluster did not carry out. The same pass decides again, and knows of it.

    - "claim": the workspace claim cannot grow, and work goes on in the room that there is;
    - "record": a ConfigMap with a record or the contract cannot be written, and what serves goes on without it;
    - "quota": a ResourceQuota has no room for a new object, and its stage waits;
    - "late": it will pass: an object of a deleted predecessor is in the way, or nobody answers;
    - "untried": the preflight could not ask, and work goes on;
    - "unchecked": the pod that tries images could not be made or removed, and work goes on;
    - "note": the note of a suspension could not be taken off what runs, and work goes on;
    - "look": a look at the sources is refused, and is made when the next one is due;
    - "away": nobody answers to the same, and it is made in a moment;
    - "refused": nothing goes on before somebody edits the manifest, a right or a policy.
    """

    kind: RefusalKind
    reason: str  # name of the ClusterError
    tried: str  # verb, kind and name of the object; the same in every pass
    detail: str  # the API server's words; a webhook may put a number of its own into each answer
    of_preflight: bool = False

    @property
    def message(self) -> str:
        return f"{self.tried}: {self.detail}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateJob:
    manifest: Mapping[str, Any]
    why: str
    aside: bool = False  # of a look beside the revision: what refuses it stops nothing else

    def __str__(self) -> str:
        return f"create Job {self.manifest['metadata']['name']}: {self.why}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatePod:
    """One that no work depends on: what refuses it is noted, and nothing else."""

    manifest: Mapping[str, Any]
    why: str

    def __str__(self) -> str:
        return f"create Pod {self.manifest['metadata']['name']}: {self.why}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteObject:
    """`uid` and `version` are those of the object that was looked at; where they are empty its name tells enough."""

    kind: Literal["Job", "Deployment", "NIMService", "Service", "ConfigMap", "Pod"]
    name: str
    why: str
    uid: str = ""
    version: str = ""  # of a Job: it may become complete until then, and its work would be done again

    def __str__(self) -> str:
        return f"delete {self.kind} {self.name}: {self.why}"


def delete_job(job: JobView, why: str) -> DeleteObject:
    return DeleteObject(kind="Job", name=job.name, why=why, uid=job.uid, version=job.version)


def delete_server(server: DeploymentView, why: str) -> DeleteObject:
    return DeleteObject(kind=server.kind, name=server.name, why=why, uid=server.raw["metadata"].get("uid", ""))


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspendJob:
    name: str
    suspend: bool
    revision: int  # whose spec.suspend it follows; noted in the Job, so that nobody else's suspension is undone
    version: str  # of the Job: somebody may have suspended or resumed it since it was read
    why: str

    def __str__(self) -> str:
        return f"{'suspend' if self.suspend else 'resume'} Job {self.name}: {self.why}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivateWorkload:
    """Of a Job in Kueue's queue: Kueue would resume at once what is suspended in the Job."""

    name: str
    active: bool
    revision: int  # whose spec.suspend it follows; noted in the Workload
    version: str  # of the Workload
    why: str

    def __str__(self) -> str:
        return f"{'activate' if self.active else 'deactivate'} Workload {self.name}: {self.why}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetSuspension:
    """Of what somebody else lets run: whoever stops it from now on lets it run again.

    While the revision that stopped it is suspended still, that is noted, so that it is not stopped once more.
    """

    kind: Literal["Job", "Workload"]
    name: str
    why: str
    resumed_in: int | None = None  # that revision

    def __str__(self) -> str:
        return f"forget the suspension of {self.kind} {self.name}: {self.why}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Apply:
    """Server-side apply: creates the object or restores what somebody changed."""

    manifest: Mapping[str, Any]
    why: str
    for_clients: bool = False  # the Service that they talk to, led to the server that it was led to

    def __str__(self) -> str:
        return f"apply {self.manifest['kind']} {self.manifest['metadata']['name']}: {self.why}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TryOut:
    """A dry run: nothing is changed, and what would be refused later is refused now.

    A Secret is looked for, and nothing of it is read; `field` is what names it in the manifest.
    """

    manifest: Mapping[str, Any]
    stage: Stage
    why: str
    field: str = ""

    def __str__(self) -> str:
        return f"try out {self.manifest['kind']} {self.manifest['metadata']['name']}: {self.why}"


Action = CreateJob | CreatePod | DeleteObject | SuspendJob | ActivateWorkload | ForgetSuspension | Apply | TryOut


def stops(action: Action) -> bool:
    """Whether it makes a Job pause."""
    suspends = isinstance(action, SuspendJob) and action.suspend
    return suspends or (isinstance(action, ActivateWorkload) and not action.active)


def frees(action: Action) -> bool:
    """Whether an action only takes something away: it is done also where everything else is refused."""
    return stops(action) or isinstance(action, DeleteObject | ForgetSuspension)


def leads_clients(action: Action) -> bool:
    """Whether it keeps the Service that clients talk to."""
    return isinstance(action, Apply) and action.for_clients


def needs_no_memory(action: Action) -> bool:
    """Whether it is right whatever the status says: it is done also where no status can be written."""
    return stops(action) or leads_clients(action)


def comes_first(action: Action) -> bool:
    """Whether it waits for nothing that this pass does: neither what frees nor what clients need."""
    return frees(action) or leads_clients(action)


def is_aside(action: Action) -> bool:
    """Whether it is beside the revision, and nothing waits for it."""
    if isinstance(action, CreateJob):
        return action.aside
    return isinstance(action, ForgetSuspension) or ends_image_check(action)


def ends_image_check(action: Action) -> bool:
    """A pod that is deleted only tries images."""
    return isinstance(action, DeleteObject) and action.kind == "Pod"


def kind_of(action: Action) -> str:
    """Of the object that it is about."""
    match action:
        case SuspendJob():
            return "Job"
        case ActivateWorkload():
            return "Workload"
        case DeleteObject() | ForgetSuspension():
            return action.kind
        case CreateJob() | CreatePod() | Apply() | TryOut():
            return str(action.manifest["kind"])


def tells(action: Action) -> bool:
    """Whether it writes what people read of the server that clients reach."""
    return isinstance(action, Apply) and action.manifest["kind"] == "ConfigMap"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A Kubernetes Event to post once the status that it tells of is written."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The whole decision. `str(plan)` is a report that a person can read.

    Deletes and suspensions come before what is created: they free room in a quota, a GPU or the volume, and an action
    behind one that the API server refuses would not be carried out. The Service of clients comes before them: it waits
    for none of them. Servers go last of what frees: where something before them is refused, no other may be created in
    their place. Dry runs come first of all: nothing is taken away for what they refuse.
    """

    status: Status
    actions: Sequence[Action] = ()
    events: Sequence[Event] = ()
    requeue_after_s: float | None = None
    ended_run: Mapping[Stage, Spent] = field(default_factory=dict)  # what it used at last, which no status tells
    # What it does decides what is next: the same pass looks again, and records both in one write, unless the next plan
    # takes something away.
    at_once: bool = False

    def __post_init__(self) -> None:
        ordered = sorted(self.actions, key=_place)
        object.__setattr__(self, "actions", tuple(_each_deleted_once(ordered)))

    def after(self, actions: Sequence[Action], events: Sequence[Event], ended_run: Mapping[Stage, Spent]) -> Plan:
        """This one, of a second look in the same pass, with what the first one does and tells."""
        ended = {stage: ended_run.get(stage, Spent()) + self.ended_run.get(stage, Spent()) for stage in Stage}
        return replace(self, actions=(*actions, *self.actions), events=(*events, *self.events), ended_run=ended)

    def __str__(self) -> str:
        return "\n".join([f"phase {self.status.phase}", *(str(action) for action in self.actions)])


def _place(action: Action) -> int:
    if isinstance(action, TryOut):
        return 0
    if leads_clients(action):
        return 1
    if isinstance(action, DeleteObject) and action.kind in ("Deployment", "NIMService"):
        return 3
    return 2 if frees(action) else 4


def _each_deleted_once(actions: Sequence[Action]) -> Iterator[Action]:
    """An object that is to go for several reasons goes for the first of them."""
    gone = set[tuple[str, str]]()
    for action in actions:
        if isinstance(action, DeleteObject):
            if (action.kind, action.name) in gone:
                continue
            gone.add((action.kind, action.name))
        yield action


@dataclass(slots=True, kw_only=True)
class Draft:
    """A plan while it is being made."""

    status: Status
    actions: list[Action] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    requeue_s: list[float] = field(default_factory=list)
    limits_s: list[float] = field(default_factory=list)  # until a limit may be used up, also where all else waits
    reused: list[Stage] = field(default_factory=list)  # in this pass; told in one Event
    ended_run: Mapping[Stage, Spent] = field(default_factory=dict)  # see Plan
    unpulled: str = ""  # which images of later stages cannot be pulled
    at_once: bool = False  # see Plan
    unkept: str = ""  # which object does not stay as it was applied, though work goes on without

    def event(self, kind: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        self.events.append(Event(type=kind, reason=reason, message=message[:1000]))

    def look_again_in(self, seconds: float) -> None:
        self.requeue_s.append(max(1.0, seconds))
