"""The resource as the operator sees it: names, and the spec parsed into frozen values.

The API server has checked shapes and ranges already (crds/); what is checked here again is what the operator
would act on wrongly if an old or foreign schema let it through. Every message names the field and the cure.
Defaults are those of the published recipe (NVIDIA NeMo embed recipe, profile llama) unless a comment says why not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

from embedding_operator.resource.limits import Retention, RunLimits
from embedding_stages.contract import PARALLELISMS, SOURCE_BEIR, SOURCE_CORPUS, SOURCE_GUARD, SOURCE_MODEL, Stage
from embedding_stages.contract.declare import SettingInvalid, Table
from embedding_stages.contract.servers import TORCH, Precision, ServerProfile

GROUP: Final = "embedding-operator.dev"
VERSION: Final = "v1alpha1"
KIND: Final = "EmbeddingFineTune"
PLURAL: Final = "embeddingfinetunes"
API_VERSION: Final = f"{GROUP}/{VERSION}"
MANAGER: Final = "embedding-operator"
TORCH_SERVER: Final = str(TORCH.default_image)  # key of the torch server's default image, beside the stages' keys

_NAME = re.compile(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?")
# The pods of a Job of several nodes are hosts named <Job>-<index>, in 63 characters like every label of DNS.
_NAME_CHARACTERS_SEVERAL_NODES: Final = 37


class SpecError(ValueError):
    """The manifest cannot be acted on: `field` is where, the text is what and how to cure it."""

    def __init__(self, field: str, message: str, *, reason: str = "InvalidSpec") -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretRef:
    """A key of a Secret in the resource's own namespace. The operator never reads it; the kubelet mounts it."""

    name: str
    key: str
    field: str  # where in the manifest, for messages


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigMapRef:
    """A key of a ConfigMap in the resource's own namespace. The operator never reads it; the kubelet mounts it."""

    name: str
    key: str
    field: str  # where in the manifest, for messages


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where files come from: exactly one kind of reference."""

    kind: str  # pvc | configMap | image | huggingFace
    name: str  # claim, ConfigMap, image reference; empty for huggingFace
    path: str
    field: str
    token: SecretRef | None = None
    authorities: ConfigMapRef | None = None  # trusted beside those of the image, where the stage downloads
    revision: str = ""
    pull_policy: str = "IfNotPresent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Workers:
    """The processes that share a stage's work. How many there are is scheduling: the work stays the same."""

    nodes: int = 1  # pods, one a node
    per_node: int = 1  # processes in each, one a GPU
    parallelism: str = PARALLELISMS[0]  # DDP | FSDP

    @property
    def several(self) -> bool:
        return self.nodes * self.per_node > 1

    def to_json(self) -> dict[str, Any]:
        """For `status.resolved`; what one process does not need is not in force."""
        body: dict[str, Any] = {"nodes": self.nodes, "processesPerNode": self.per_node}
        return {**body, "parallelism": self.parallelism} if self.several else body


@dataclass(frozen=True, slots=True, kw_only=True)
class PodSettings:
    """What a user may say about a stage's pod: an allow-list, never a pod template."""

    image: str
    own_image: bool  # the manifest names it; else it is a default of the operator's
    resources: Mapping[str, Mapping[str, str]]
    node_selector: Mapping[str, str]
    tolerations: Sequence[Mapping[str, Any]]
    priority_class: str
    runtime_class: str
    env: Sequence[Mapping[str, str]]
    pod_labels: Mapping[str, str]  # none of the operator's own
    pod_annotations: Mapping[str, str]
    timeout_s: int
    retries: int
    workers: Workers


@dataclass(frozen=True, slots=True, kw_only=True)
class StageSpec:
    """One stage: how its pod looks, the resolved settings its code gets, and what was settled with them."""

    pod: PodSettings
    settings: Mapping[str, Any]
    asked: str  # hash of what the manifest says about the settings; see frozen.py
    code_version: int
    settled_in: int = 0  # the revision that image and code version were settled in
    own_work: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)  # see pipeline.py

    def with_image(self, image: str) -> StageSpec:
        return replace(self, pod=replace(self.pod, image=image))


@dataclass(frozen=True, slots=True, kw_only=True)
class Deploy:
    """How the model is served."""

    profile: ServerProfile
    precision: Precision  # what the server computes in
    model_name: str
    replicas: int | None  # None: whoever scales the Deployment decides
    strategy: str  # Recreate | BlueGreen | Shadow
    acknowledged: str  # the vector space that the index holds by now, as its owner says; empty: nobody said
    drain_s: int
    pinned: int | None  # a revision that serves again
    ngc_key: SecretRef | None
    shared_memory: str
    start_timeout_s: int

    @property
    def backend(self) -> str:
        """Key of `spec.stages.deploy.backend`."""
        return self.profile.backend

    @property
    def serves_checkpoint(self) -> bool:
        """Such a server needs no export."""
        return self.profile.serves_checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """How far what is served may lie from what was evaluated. None: the default of decide/verdict.py."""

    at_one: float | None = None  # of metrics, absolute
    at_five_and_above: float | None = None
    min_cosine: float | None = None  # of the vectors of canaries


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """A further labelled set, on which NDCG@10 may not fall by more than `max_regression` below the base model's."""

    name: str
    source: Source
    max_regression: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Gates:
    """What a revision must measure before it is exported. Limits are absolute, and how far a metric may fall."""

    enabled: bool
    metrics: Sequence[str]
    max_regression_base: float
    max_regression_active: float
    min_relative_uplift: float | None  # of NDCG@10; None: not asked for
    criterion: str  # PointEstimate | NotInferior | Better
    stops: bool  # else a revision that fails goes on, and its status says so


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """The workspace volume: one of our own making, or a claim that exists."""

    size: str
    storage_class: str | None
    access_modes: Sequence[str]
    existing_claim: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduling:
    """Who decides when pods may run."""

    queue: str = ""  # Kueue's LocalQueue; empty: none
    priority: str = ""  # Kueue's WorkloadPriorityClass
    serving: bool = False  # the server goes through the queue too


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """When the sources are looked at again, and what follows from a change."""

    cron: str
    zone: str
    runs: bool  # a change makes a revision; else the status tells it

    @property
    def asked(self) -> str:
        """What a due time was reckoned by."""
        return f"{self.cron} {self.zone}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """A valid spec with every default filled in."""

    suspend: bool
    retry_token: str  # another one asks for what failed, and for the verification, once more; empty asks for nothing
    base_model: str
    model_source: Source
    corpus_source: Source
    labelled_source: Source | None
    guards: Sequence[Guard]
    labelled_asked: str  # hash of what the manifest says about the labelled set
    freeze: bool  # score on the evaluation set of the first revision that was Ready
    gates: Gates
    llm_keys: Mapping[str, SecretRef]  # by purpose, of the endpoints that sdg asks
    llm_authorities: Mapping[str, ConfigMapRef]  # likewise; trusted beside those of the image
    stages: Mapping[Stage, StageSpec]
    deploy: Deploy
    tolerance: Tolerance
    storage: Storage
    start_deadline_s: int
    limits: RunLimits
    retention: Retention
    canaries_every_s: int | None  # None: never
    image_pull_secrets: Sequence[str]
    scheduling: Scheduling = field(default_factory=Scheduling)
    schedule: Schedule | None = None  # None: the sources are looked at when an edit touches them
    assumed: str = ""  # what the manifest does not say, and is taken from what serves: a warning
    given_user: bool = False  # pods name no user and no groups: the platform gives them, as OpenShift does

    @property
    def sources(self) -> dict[str, Source]:
        """What `inputs` reads, by the name that each source is mounted under."""
        found = {SOURCE_CORPUS: self.corpus_source, SOURCE_MODEL: self.model_source}
        if self.labelled_source is not None:
            found[SOURCE_BEIR] = self.labelled_source
        return found | {f"{SOURCE_GUARD}{guard.name}": guard.source for guard in self.guards}

    def with_stage(self, stage: Stage, item: StageSpec) -> Spec:
        return replace(self, stages={**self.stages, stage: item})


def check_name(name: str, nodes: int = 1) -> None:
    """Raises SpecError when Jobs, Services and hosts could not be named after the resource."""
    if not _NAME.fullmatch(name):
        raise SpecError(
            "metadata.name",
            f"{name!r} must start with a letter, hold only a-z, 0-9 and '-', and have at most 40 characters; "
            "Jobs and Services are named after it",
        )
    if nodes > 1 and len(name) > _NAME_CHARACTERS_SEVERAL_NODES:
        raise SpecError(
            "metadata.name",
            f"{name!r} must have at most {_NAME_CHARACTERS_SEVERAL_NODES} characters where "
            "spec.stages.finetune.nodes is more than 1: the pods' host names begin with it; "
            "make a resource of a shorter name, or set nodes to 1",
        )


_T = TypeVar("_T", bound=Table)


def read(table: type[_T], raw: Mapping[str, Any] | None, at: str = "") -> _T:
    """A section of the manifest as its table reads it. Raises SpecError."""
    try:
        return table.parse(raw or {}, at)
    except SettingInvalid as error:
        raise SpecError(error.field, error.message) from error


def one_of(raw: Mapping[str, Any], kinds: Sequence[str], field: str) -> str:
    """The single key of `kinds` that is present."""
    present = [kind for kind in kinds if raw.get(kind) is not None]
    if len(present) != 1:
        found = " and ".join(present) or "none"
        raise SpecError(field, f"give exactly one of {', '.join(kinds)}; found {found}")
    return present[0]
