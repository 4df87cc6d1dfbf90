"""Why a pod waits, in words of the manifest. Pure.

Kubernetes says what is missing; the reader wants to know which field names it and what to do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from embedding_operator.decide.pulling import IMAGE_PULL_FAILED, IMAGE_REASONS, not_pulled
from embedding_operator.decide.uncreated import cure_of, lasts
from embedding_operator.objects.deletion import DELETION_STUCK
from embedding_operator.objects.injected import AT_WORK
from embedding_operator.objects.manifests.job import mounted_authorities, mounted_secrets
from embedding_operator.objects.pods import PodView
from embedding_operator.objects.views import EventView, JobView
from embedding_operator.resource.api import SecretRef, Spec
from embedding_operator.resource.labels import STAGE_LABEL
from embedding_operator.resource.placement import mounts_on_one_node
from embedding_operator.resource.pods import gpu_limits
from embedding_operator.resource.status import Status
from embedding_stages.contract import Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """A reason to wait. `broken` means that it will not pass unless somebody acts."""

    reason: str
    message: str
    broken: bool


WAITING_FOR_QUOTA: Final = "WaitingForQuota"
INJECTED_BLOCKS: Final = "InjectedContainerBlocks"
POLL_QUOTA_S: Final = 15.0
_OVERTIME_S: Final = 30  # that a Job may take to notice that its pods are done
A_MOMENT: Final = timedelta(seconds=5)  # in which most pods start
UNREMARKABLE: Final = frozenset({"PodPending", "PodStarting"})
# Warnings that come with every start, or that the pod's own status tells better.
_ORDINARY: Final = frozenset(
    {"AlreadyMountedVolume", "BackOff", "Failed", "FailedScheduling", "ProbeWarning", "Unhealthy"}
)
_POD_NAME: Final = re.compile(r'\bpods "[^"]*"')  # another one in each attempt of the Job's controller
_CLAIM_GOES: Final = re.compile(r'persistentvolumeclaim "([^"]+)" is being deleted')
_CLAIM: Final = re.compile(r'persistentvolumeclaim "([^"]+)" not found')
_SECRET: Final = re.compile(r'secret "([^"]+)" not found')
_SECRET_KEY: Final = re.compile(r"references non-existent secret key: (\S+)|couldn't find key (\S+) in Secret")
_CONFIG_MAP: Final = re.compile(r'configmap "([^"]+)" not found')
_CONFIG_MAP_KEY: Final = re.compile(r"references non-existent config key: (\S+)")


# What the scheduler says of a node, and what of the manifest asks for it.
_FITS_NO_NODE: Final = (
    ("node affinity/selector", "correct", "nodeSelector"),
    ("untolerated taint", "name the taint in", "tolerations"),
    (r"Insufficient (?:cpu|memory|ephemeral-storage)|Too many pods", "lower", "resources.requests"),
)
_CORDONED: Final = "node(s) were unschedulable"
# Of these there is an Event as well: they may last for hours, and somebody else has to make room.
LONG_WAITS: Final = frozenset(
    {"GPUUnschedulable", "SchedulingGated", "Unschedulable", "VolumeOnAnotherNode", "VolumeUnbound", WAITING_FOR_QUOTA}
    | {"WorkspaceOnAnotherNode"}
)


def quota_message(detail: str) -> str:
    return f"no room in the namespace's quota; free some or raise it: {detail}"


def waits_for_quota(status: Status) -> bool:
    """Whether a stage says so."""
    return any(item.state == "Waiting" and item.reason == WAITING_FOR_QUOTA for item in status.stages)


def explain_wait(pod: PodView | None, warnings: Sequence[EventView], spec: Spec, stage: Stage) -> Wait:
    """The most specific reason that the pod's status and Events give; without a pod, those of its Job."""
    if pod is None:
        return _not_created(warnings, stage)
    texts = [text for text in (pod.unschedulable, pod.waiting_message, *(item.message for item in warnings)) if text]
    for text in texts:
        found = _missing_reference(text, spec, stage)
        if found is not None:
            return found
    if pod.blocked_by.endswith(AT_WORK):
        return Wait(reason="PodStarting", message=f"pod {pod.name} is starting: {pod.blocked_by}", broken=False)
    if pod.blocked_by:
        return Wait(reason=INJECTED_BLOCKS, message=injected_message(pod), broken=False)
    if pod.waiting_reason in IMAGE_REASONS:
        message = not_pulled(pod.waiting_container, pod.waiting_message, spec, stage)
        return Wait(reason=IMAGE_PULL_FAILED, message=message, broken=True)
    if pod.waiting_reason in ("CreateContainerConfigError", "CreateContainerError", "RunContainerError"):
        message = f"{pod.waiting_message}{of_own_image(spec, stage)}"
        return Wait(reason=pod.waiting_reason, message=message, broken=True)
    if pod.unschedulable:
        return _unschedulable(pod.unschedulable, stage, spec)
    for event in warnings:
        if "Multi-Attach" in event.message and mounts_on_one_node(spec):
            source = " or the claim of a source" if stage is Stage.INPUTS else ""
            return _workspace_elsewhere(event.message, stage, f"the workspace{source}")
        if event.reason and event.reason not in _ORDINARY:
            message = f"pod {pod.name} does not start: {event.message}"
            return Wait(reason=event.reason, message=message, broken=False)
    return Wait(reason="PodStarting", message=f"pod {pod.name} is starting", broken=False)


def _not_created(warnings: Sequence[EventView], stage: Stage) -> Wait:
    said = next((event.message for event in warnings if event.reason == "FailedCreate"), "")
    text = _POD_NAME.sub("the pod", said)
    if not text:
        return Wait(reason="PodPending", message="the pod has not been created yet", broken=False)
    if "exceeded quota" in text:
        return Wait(reason=WAITING_FOR_QUOTA, message=quota_message(text), broken=False)
    cure = cure_of(text, stage)
    message = f"the pod cannot be created: {cure}{': ' if cure else ''}{text}"
    return Wait(reason="PodCreationFailed", message=message, broken=lasts(text))


def explain_waits(job: JobView, warnings: Mapping[str, Sequence[EventView]], spec: Spec) -> Wait:
    """The most serious reason of all the pods that a Job waits for; `warnings` are their Events and its, by UID."""
    waits = [explain_wait(pod, warnings.get(pod.uid, ()), spec, job.stage) for pod in job.pods if not pod.started]
    if len(job.pods) < job.nodes:
        waits.append(explain_wait(None, warnings.get(job.uid, ()), spec, job.stage))
    worst = min(waits, key=lambda wait: (not wait.broken, wait.reason in UNREMARKABLE))
    if job.nodes == 1:
        return worst
    missing = job.nodes - sum(pod.started for pod in job.pods)
    return replace(worst, message=f"{missing} of {job.nodes} pods wait: {worst.message}")


def explain_overtime(job: JobView, now: datetime) -> Wait | None:
    """Why a Job goes on whose stage is done: containers that something else put into its pods do not end."""
    ends = [pod.ended for pod in job.pods if pod.exit_code == 0 and pod.ended is not None]
    sidecars = sorted({name for pod in job.pods for name in pod.sidecars})
    if len(ends) < job.nodes or not sidecars or (now - max(ends)).total_seconds() < _OVERTIME_S:
        return None
    return Wait(
        reason="SidecarRunning",
        message=f"the stage is done, but its Job ends only when {', '.join(sidecars)} ends, which is not the "
        f"operator's: have it injected as a native sidecar (an init container with restartPolicy Always), or not into "
        f"pods with the label {STAGE_LABEL}",
        broken=True,
    )


def of_own_image(spec: Spec, stage: Stage) -> str:
    """Of a container that does not do what the operator's image would."""
    pod = spec.stages[stage].pod
    asks = f"; spec.stages.{stage}.image names {pod.image}: is it built as this operator's image of the stage is?"
    return asks if pod.own_image and (stage is not Stage.DEPLOY or spec.deploy.profile.default_image) else ""


def injected_message(pod: PodView) -> str:
    return (
        f"{pod.blocked_by}; it is not the operator's, and pod {pod.name} waits for it: look at what put it there "
        "(a mesh, a policy), or exempt this pod"
    )


def _missing_reference(text: str, spec: Spec, stage: Stage) -> Wait | None:
    if match := _CLAIM_GOES.search(text):
        field = _claim_fields(spec).get(match[1], "spec.storage")
        return Wait(
            reason=DELETION_STUCK,
            message=f"{field}: PersistentVolumeClaim {match[1]!r} is being deleted: no pod can mount it any more, and "
            "what it holds goes with it once the pods that have mounted it have ended; end those, then make it again",
            broken=True,
        )
    if match := _CLAIM.search(text):
        fields = _claim_fields(spec)
        if match[1] not in fields:
            message = f"the workspace claim {match[1]!r} is gone and is created again"
            return Wait(reason="VolumeMissing", message=message, broken=False)
        return _missing("VolumeMissing", "PersistentVolumeClaim", match[1], fields)
    if match := _CONFIG_MAP.search(text):
        return _missing("ConfigMapMissing", "ConfigMap", match[1], _config_map_fields(spec, stage))
    if match := _CONFIG_MAP_KEY.search(text):
        keys = {ref.key: f"{ref.field}.key" for ref in mounted_authorities(spec, stage).values()}
        return _key_missing("ConfigMap", match[1], keys.get(match[1], f"spec.stages.{stage}"))
    if match := _SECRET.search(text):
        fields = {ref.name: f"{ref.field}.name" for ref in secrets_of(spec, stage)}
        return _missing("SecretMissing", "Secret", match[1], fields)
    if match := _SECRET_KEY.search(text):
        key = match[1] or match[2]
        fields = {ref.key: f"{ref.field}.key" for ref in secrets_of(spec, stage)}
        return _key_missing("Secret", key, fields.get(key, f"spec.stages.{stage}"))
    if "unbound immediate PersistentVolumeClaims" in text or "find available persistent volumes" in text:
        return _unbound(text, spec, stage)
    return None


def _unbound(text: str, spec: Spec, stage: Stage) -> Wait:
    """The scheduler does not say which of the claims that the pod mounts."""
    workspace = not spec.storage.existing_claim
    fields = sorted(set(_claim_fields(spec, stage).values()))
    told = ["spec.storage: the workspace claim"] * workspace + fields
    cure = (
        "check spec.storage.storageClassName and the storage provisioner"
        if workspace
        else "kubectl describe pvc says why"
    )
    which = "is not bound" if len(told) == 1 else "one of these claims is not bound"
    return Wait(reason="VolumeUnbound", message=f"{', '.join(told)}: {which}: {text}; {cure}", broken=False)


def _missing(reason: str, kind: str, name: str, fields: Mapping[str, str]) -> Wait:
    field = fields.get(name, "spec")
    seen = "" if kind == "PersistentVolumeClaim" else "; the kubelet then sees it within two minutes"
    return Wait(
        reason=reason,
        message=f"{field}: {kind} {name!r} does not exist in this namespace; create it or correct the field{seen}",
        broken=True,
    )


def _key_missing(kind: str, key: str, field: str) -> Wait:
    return Wait(
        reason=f"{kind}KeyMissing",
        message=f"{field}: the {kind} has no key {key!r}; add the key to the {kind} or correct the field",
        broken=True,
    )


def _claim_fields(spec: Spec, stage: Stage = Stage.INPUTS) -> dict[str, str]:
    """Claims of the user's own that the stage's pod mounts: sources are mounted by inputs alone."""
    sources = list(reversed(spec.sources.values())) if stage is Stage.INPUTS else []
    fields = {item.name: f"{item.field}.claimName" for item in sources if item.kind == "pvc"}
    if spec.storage.existing_claim:
        fields[spec.storage.existing_claim] = "spec.storage.existingClaim"
    return fields


def _config_map_fields(spec: Spec, stage: Stage) -> dict[str, str]:
    """Those that the stage's pod mounts: two stages may mount the same one."""
    fields = {ref.name: f"{ref.field}.name" for ref in mounted_authorities(spec, stage).values()}
    source = spec.corpus_source
    if stage is Stage.INPUTS and source.kind == "configMap":
        fields[source.name] = f"{source.field}.name"
    return fields


def secrets_of(spec: Spec, stage: Stage) -> list[SecretRef]:
    """The Secrets that the stage's pod uses: two stages may use the same key of different Secrets."""
    if stage is Stage.DEPLOY:
        return [spec.deploy.ngc_key] if spec.deploy.ngc_key is not None else []
    return list(mounted_secrets(spec, stage).values())


def _workspace_elsewhere(text: str, stage: Stage, what: str = "the workspace") -> Wait:
    return Wait(
        reason="WorkspaceOnAnotherNode",
        message=f"one node at a time mounts {what} (spec.storage.accessModes has no ReadWriteMany), it is in use "
        f"on another one, and stage {stage} does not fit there: {text}; wait, free or enlarge that node, let "
        "spec.stages.finetune.nodeSelector name nodes that suit every stage and the server, or make a new resource "
        "with spec.storage.accessModes [ReadWriteMany]",
        broken=False,
    )


def _asking_for(gpu: str, spec: Spec) -> list[str]:
    """The sections of the manifest whose pods ask for a GPU and could do without it."""
    stages = [stage for stage, item in spec.stages.items() if gpu in item.pod.resources["limits"]]
    could = [stage for stage in stages if stage is not Stage.DEPLOY or spec.deploy.profile.runs_on_cpu]
    return [f"spec.stages.{stage}" for stage in could]


def _unschedulable(text: str, stage: Stage, spec: Spec) -> Wait:
    if "scheduling gates" in text:
        queued = spec.scheduling.serving and stage is Stage.DEPLOY
        who = f"Kueue's queue {spec.scheduling.queue!r}" if queued else "whoever has put it there, such as a queue"
        return Wait(
            reason=WAITING_FOR_QUOTA if queued else "SchedulingGated",
            message=f"the pod has a scheduling gate, and is placed when {who} takes that away: {text}",
            broken=False,
        )
    # The scheduler looks at resources first: a node that it refuses for one of these would have room.
    if "match pod affinity rules" in text:
        return _workspace_elsewhere(text, stage)
    if "volume node affinity conflict" in text or "match PersistentVolume's node affinity" in text:
        return Wait(
            reason="VolumeOnAnotherNode",
            message=f"a volume of stage {stage} can only be mounted on nodes where the stage does not fit: {text}; let "
            f"spec.stages.{stage}.nodeSelector name those nodes, or make a new resource whose "
            "spec.stages.finetune.nodeSelector names nodes that suit every stage: its volume is made there",
            broken=False,
        )
    gpu = next((key for key in gpu_limits(spec.stages[stage].pod.resources["limits"]) if key in text), "")
    if gpu:
        cures = ["wait", "add a node"]
        if stage is Stage.FINETUNE:
            cures.append("lower spec.stages.finetune.gpusPerNode or nodes")
        if asking := _asking_for(gpu, spec):
            cures.append(f"to run without, set {gpu}: 0 in resources.limits of {', '.join(asking)}")
        *others, last = cures
        return Wait(
            reason="GPUUnschedulable",
            message=f"no node has a free {gpu} for stage {stage}: {text}; {', '.join(others)}, or {last}",
            broken=False,
        )
    section = f"spec.stages.{stage}"
    cures = [f"{cure} {section}.{field}" for words, cure, field in _FITS_NO_NODE if re.search(words, text)]
    if _CORDONED in text:
        cures.insert(0, "uncordon one (kubectl uncordon)")
    told = f"; wait, add a node, or {', or '.join(cures)}" if cures else ""
    return Wait(reason="Unschedulable", message=f"no node fits stage {stage}: {text}{told}", broken=False)
