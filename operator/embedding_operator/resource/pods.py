"""From a stage of the manifest to its pods: image, resources, environment, and how many of them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from embedding_operator.resource.api import PodSettings, Source, SpecError, Storage, Workers, one_of, read
from embedding_operator.resource.notes import pod_annotations, pod_labels
from embedding_operator.resource.placement import READ_WRITE_MANY
from embedding_stages.contract import Stage
from embedding_stages.contract import settings as tables
from embedding_stages.contract.servers import RESERVED_VARIABLES, ServerProfile, backends, choose_profile
from embedding_stages.contract.settings import Run

GPU_RESOURCE: Final = "nvidia.com/gpu"
# Extended resources that are accelerators: a limit of one of them stands in the place of the default one.
_ACCELERATORS: Final = (
    "nvidia.com/gpu",
    "nvidia.com/mig-",
    "amd.com/",
    "gpu.intel.com/",
    "habana.ai/",
    "aws.amazon.com/neuron",
    "google.com/tpu",
)
_NVIDIAS: Final = "nvidia.com/"
ACCELERATOR_FIELD: Final = "spec.accelerator"
# Words of spec.accelerator; any other is the name of a resource itself.
_RESOURCE_OF: Final = {"none": "", "nvidia": GPU_RESOURCE, "amd": "amd.com/gpu"}
_GPU_STAGES: Final = frozenset({Stage.PREP, Stage.FINETUNE, Stage.EVAL})
_TORCH_STAGES: Final = _GPU_STAGES | {Stage.EXPORT}  # export loads the model; only an engine is built on a GPU
_TORCH_REQUESTS: Final = {"cpu": "500m", "memory": "2Gi"}
_LIGHT_REQUESTS: Final = {"cpu": "100m", "memory": "256Mi"}
TIMEOUT_S: Final[Mapping[Stage, int]] = {
    Stage.INPUTS: 3600,
    Stage.SDG: 43200,
    Stage.PREP: 21600,
    Stage.FINETUNE: 86400,
    Stage.EVAL: 21600,
    Stage.EXPORT: 7200,
    Stage.DEPLOY: 3600,
    Stage.VERIFY: 21600,
}


def parse_accelerator(raw: Mapping[str, Any]) -> str:
    """The resource that a stage asks one of when it names none itself; empty: stages compute on CPUs.

    `raw` is the section `spec` of the manifest. Raises SpecError.
    """
    said = str(raw.get("accelerator") or "nvidia")
    resource = _RESOURCE_OF.get(said, said)
    if resource and not gpu_limits({resource: "1"}):
        raise SpecError(
            ACCELERATOR_FIELD,
            f"{said!r} is none of {', '.join(_RESOURCE_OF)}, and no resource of an accelerator: those begin with "
            f"{', '.join(_ACCELERATORS)}",
        )
    return resource


def parse_pod(
    stage: Stage, raw: Mapping[str, Any], images: Mapping[str, str], accelerator: str = GPU_RESOURCE
) -> PodSettings:
    """`raw` is the stage's section of the manifest, `accelerator` what `parse_accelerator` made of it. Raises
    SpecError.
    """
    field = f"spec.stages.{stage}"
    resources, run = stage_resources(stage, raw, accelerator), read(Run, raw, field)
    return PodSettings(
        image=_image(stage, raw, images),
        own_image=bool(raw.get("image")),
        resources=resources,
        node_selector=dict(raw.get("nodeSelector") or {}),
        tolerations=tuple(raw.get("tolerations") or ()),
        priority_class=str(raw.get("priorityClassName", "")),
        runtime_class=str(raw.get("runtimeClassName", "")),
        env=_environment(stage, raw, field),
        pod_labels=pod_labels(raw, field),
        pod_annotations=pod_annotations(raw, field),
        timeout_s=run.timeoutSeconds or TIMEOUT_S[stage],
        retries=run.retries,
        workers=_workers(raw, resources, field) if stage is Stage.FINETUNE else Workers(),
    )


def check_shared(storage: Storage, nodes: int) -> None:
    """Raises SpecError when pods of several nodes could not mount the workspace that the operator makes."""
    if nodes > 1 and not storage.existing_claim and READ_WRITE_MANY not in storage.access_modes:
        raise SpecError(
            "spec.storage.accessModes",
            f"must hold ReadWriteMany, with a storageClassName that offers it: {nodes} nodes "
            "(spec.stages.finetune.nodes) mount the workspace at a time; storage cannot change, so make a new "
            "resource, or set nodes to 1",
        )


def check_apart(storage: Storage, *sources: Source | None) -> None:
    """Raises SpecError when a source would hold the workspace itself: a root of the claim in which that lies."""
    for source in sources:
        in_workspace = source is not None and source.kind == "pvc" and source.name == storage.existing_claim
        if source is not None and in_workspace and not source.path.strip("/."):
            raise SpecError(
                f"{source.field}.path",
                f"must name a folder: the claim {source.name!r} also holds the workspace (spec.storage.existingClaim)",
            )


def stage_resources(stage: Stage, raw: Mapping[str, Any], accelerator: str = GPU_RESOURCE) -> dict[str, dict[str, str]]:
    """The user's requests and limits over the defaults; one `accelerator` for the stages that compute on one, unless
    they name GPUs themselves, be it 0 or those of another vendor.
    """
    given: Mapping[str, Any] = raw.get("resources") or {}
    on_gpu = stage in _GPU_STAGES or (stage is Stage.EXPORT and raw.get("format") == tables.TENSORRT)
    requests = dict(_TORCH_REQUESTS if stage in _TORCH_STAGES else _LIGHT_REQUESTS)
    if stage is Stage.DEPLOY:
        profile = parse_profile(raw)
        on_gpu = profile.needs_gpu
        if not profile.runs_on_cpu and not accelerator.startswith(_NVIDIAS):  # NIM runs on nothing else
            accelerator = GPU_RESOURCE
        requests = {"cpu": profile.cpu, "memory": profile.memory}
    requests |= _strings(given.get("requests"))
    limits = _strings(given.get("limits"))
    # A limit below our default request would be refused: the user's limit wins.
    requests |= {key: limits[key] for key in limits if key in requests and key not in (given.get("requests") or {})}
    if stage is Stage.FINETUNE and raw.get("gpusPerNode") is not None:
        # A process sees one part of a partitioned GPU (MIG) and no more, so only whole ones are counted.
        whole = GPU_RESOURCE if accelerator.startswith(_NVIDIAS) else accelerator or GPU_RESOURCE
        limits[whole] = str(_gpus_per_node(raw, limits, whole))
    elif on_gpu and accelerator and not gpu_limits(limits):
        limits[accelerator] = "1"
    none = {key for key, value in gpu_limits(limits).items() if value == "0"}
    return {"requests": requests, "limits": {key: value for key, value in limits.items() if key not in none}}


def has_nvidia(resources: Mapping[str, Mapping[str, str]]) -> bool:
    """Whether a container gets a GPU of NVIDIA's, or a part of one."""
    return any(key.startswith(_NVIDIAS) for key in gpu_limits(resources["limits"]))


def gpu_limits(limits: Mapping[str, str]) -> dict[str, str]:
    """Those of the limits that are GPUs, parts of GPUs or other accelerators, of any vendor."""
    return {key: value for key, value in limits.items() if key.startswith(_ACCELERATORS)}


def parse_profile(raw: Mapping[str, Any]) -> ServerProfile:
    """The kind of server that the deploy stage's section asks for. Raises SpecError."""
    field = "spec.stages.deploy.backend"
    given: Mapping[str, Any] = raw.get("backend") or {backends()[0]: {}}
    backend = one_of(given, backends(), field)
    said = (given[backend] or {}).get("generation")
    try:
        return choose_profile(backend, said, str(raw.get("image") or ""))
    except LookupError as error:
        raise SpecError(f"{field}.{backend}.generation", str(error)) from error


def _image(stage: Stage, raw: Mapping[str, Any], images: Mapping[str, str]) -> str:
    own = raw.get("image")
    return str(own) if own else images[_image_name(stage, raw)]


def _image_name(stage: Stage, raw: Mapping[str, Any]) -> str:
    return (parse_profile(raw).default_image if stage is Stage.DEPLOY else None) or stage


def count_gpus(resources: Mapping[str, Mapping[str, str]], field: str) -> int:
    """How many GPUs, or parts of one, a container gets. Raises SpecError."""
    limits = gpu_limits(resources["limits"])
    for key, value in limits.items():
        if not value.isdigit():
            raise SpecError(f"{field}.resources.limits.{key}", f"{value!r} must be a whole number")
    return sum(int(value) for value in limits.values())


def _gpus_per_node(raw: Mapping[str, Any], limits: Mapping[str, str], resource: str) -> int:
    field = "spec.stages.finetune"
    wanted = read(tables.Workers, raw).gpusPerNode or 0
    for key, value in gpu_limits(limits).items():
        another_vendors = key.partition("/")[0] != resource.partition("/")[0] and wanted == 0
        if (key, value) != (resource, str(wanted)) and not another_vendors:
            raise SpecError(
                f"{field}.gpusPerNode",
                f"says {wanted}, and {field}.resources.limits says {key}: {value}; remove one of the two",
            )
    return wanted


def _workers(raw: Mapping[str, Any], resources: Mapping[str, Mapping[str, str]], field: str) -> Workers:
    count_gpus(resources, field)
    asked = read(tables.Workers, raw)
    # Of limits whole GPUs of NVIDIA alone count: see stage_resources.
    gpus = asked.gpusPerNode if asked.gpusPerNode is not None else int(resources["limits"].get(GPU_RESOURCE, "0"))
    return Workers(nodes=asked.nodes, per_node=max(1, gpus), parallelism=asked.parallelism)


def _environment(stage: Stage, raw: Mapping[str, Any], field: str) -> tuple[Mapping[str, str], ...]:
    """Literal variables; the operator's own cannot be given twice, the API server would refuse the pod."""
    found = tuple({"name": str(item["name"]), "value": str(item.get("value", ""))} for item in raw.get("env") or ())
    retired = parse_profile(raw).retired if stage is Stage.DEPLOY else ()
    for name in (item["name"] for item in found):
        if name in retired:
            raise SpecError(f"{field}.env", f"{name} is not for this server: another generation reads it; remove it")
        if name.startswith("EFT_") or (stage is Stage.DEPLOY and name in RESERVED_VARIABLES):
            raise SpecError(f"{field}.env", f"{name} is set by the operator; remove it")
    return found


def _strings(raw: Mapping[str, Any] | None) -> dict[str, str]:
    return {str(key): str(value) for key, value in (raw or {}).items()}
