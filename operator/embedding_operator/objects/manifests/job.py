"""A stage's Job. Pure: the same arguments give the same dict, and the same name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from embedding_operator.objects.manifests.common import (
    Owner,
    container_security,
    metadata,
    owner_labels,
    pod_metadata,
    pod_spec,
    workspace_claim,
    workspace_folder,
    workspace_label,
)
from embedding_operator.objects.manifests.sources import mount_sources
from embedding_operator.objects.manifests.workers import share_work
from embedding_operator.resource.api import ConfigMapRef, PodSettings, SecretRef, Spec
from embedding_operator.resource.labels import (
    ATTEMPT_LABEL,
    FINGERPRINT_ANNOTATION,
    GPUS_ANNOTATION,
    REVISION_LABEL,
    STAGE_LABEL,
    TEMPLATE_ANNOTATION,
)
from embedding_operator.resource.pipeline import BY_STAGE
from embedding_operator.resource.pods import count_gpus
from embedding_operator.resource.scheduling import queue_labels
from embedding_stages import contract
from embedding_stages.contract import Stage, StageRequest, fingerprint_of

CONTAINER: Final = "stage"
_GRACE_S: Final = 120  # time to write a checkpoint after SIGTERM
KEPT_S: Final = 86400
_TIMES: Final = 3  # that an attempt may wait and run, before Kubernetes ends its Job
_INT32: Final = 2**31 - 1


def job_name(owner: Owner, request: StageRequest) -> str:
    """At most 63 characters: resource names have at most 40.

    Never used twice: a resource made again, and a revision that goes back to what an earlier one asked for, may meet
    Jobs that are still being removed, or news of them. Within a revision attempts only rise.
    """
    work = {"owner": owner.uid, "fingerprint": request.fingerprint, "revision": request.revision}
    return f"{owner.name}-{request.stage.value}-{fingerprint_of(work)[:8]}-{request.attempt}"


def build_job(owner: Owner, spec: Spec, request: StageRequest, *, kept_s: int = KEPT_S) -> dict[str, Any]:
    """One attempt of one stage. Retries are counted by the operator, so the Job itself has none.

    `kept_s`: seconds after its end for which the Job is kept. Done-ness lives in the status, so that is for people,
    and for attempts that count it.
    """
    name = job_name(owner, request)
    settings, pod = spec.stages[request.stage].pod, _pod(owner, spec, request)
    body: dict[str, Any] = {
        "backoffLimit": 0,
        "completions": 1,
        "parallelism": 1,
        # For a time without an operator, which judges the time to run by itself: this one counts from the Job's start,
        # over all its pods, and a pod that replaces a drained one has all the time of the first.
        "activeDeadlineSeconds": min(_TIMES * (settings.timeout_s + spec.start_deadline_s), _INT32),
        "ttlSecondsAfterFinished": min(kept_s, _INT32),
        # Never two pods of one stage on one volume, unless they share the work.
        "podReplacementPolicy": "Failed",
        # A drained node or a preemption is not the stage's fault and costs no attempt.
        "podFailurePolicy": {
            "rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]
        },
    }
    share_work(body, pod, settings.workers, name)
    labels = {
        STAGE_LABEL: request.stage.value,
        ATTEMPT_LABEL: str(request.attempt),
        REVISION_LABEL: str(request.revision),
        **workspace_label(owner, spec),
    }
    template: dict[str, Any] = {"metadata": pod_metadata(settings, {**owner_labels(owner), **labels}), "spec": pod}
    if gpus := count_gpus(settings.resources, f"spec.stages.{request.stage}"):
        template["metadata"].setdefault("annotations", {})[GPUS_ANNOTATION] = str(gpus)
    queued = queue_labels(spec.scheduling)
    if queued:  # whoever admits it resumes it; Kueue's webhook would suspend it too, where it answers
        body["suspend"] = True
    notes = {FINGERPRINT_ANNOTATION: request.fingerprint, TEMPLATE_ANNOTATION: _template_hash(pod, settings, queued)}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata(owner, name, {**labels, **queued}, notes),
        "spec": {**body, "template": template},
    }


def template_of(job: Mapping[str, Any]) -> str:
    """The hash by which a Job that cannot start is recognised as built from an older manifest."""
    return str(job["metadata"]["annotations"][TEMPLATE_ANNOTATION])


def _template_hash(pod: Mapping[str, Any], settings: PodSettings, queued: Mapping[str, str]) -> str:
    """Without the request: attempt and revision are in it, and they do not change how the pod looks.

    The pods of several nodes also carry their Job's name; it is the same whenever the same attempt is built again.
    Labels and annotations count where the manifest has some, and so does a queue.
    """
    main = dict(pod["containers"][0])
    main["env"] = [item for item in main["env"] if item["name"] != contract.ENV_REQUEST]
    noted = {"podLabels": dict(settings.pod_labels), "podAnnotations": dict(settings.pod_annotations)}
    noted["queue"] = dict(queued)
    return fingerprint_of({**pod, "containers": [main], **{key: item for key, item in noted.items() if item}})[:16]


def _pod(owner: Owner, spec: Spec, request: StageRequest) -> dict[str, Any]:
    settings = spec.stages[request.stage].pod
    volumes: list[dict[str, Any]] = [
        {"name": "workspace", "persistentVolumeClaim": {"claimName": workspace_claim(owner, spec)}},
        {"name": "tmp", "emptyDir": {}},
    ]
    mounts: list[dict[str, Any]] = [
        {"name": "workspace", "mountPath": contract.WORKSPACE_PATH, "subPath": workspace_folder(owner)},
        {"name": "tmp", "mountPath": "/tmp"},
    ]
    inits: list[dict[str, Any]] = []
    if request.stage is Stage.INPUTS:
        sources = mount_sources(spec, settings, volumes)
        volumes += sources.volumes
        mounts += sources.mounts
        inits += sources.inits
    for purpose, secret in mounted_secrets(spec, request.stage).items():
        volumes.append(_secret_volume(purpose, secret))
        mounts.append(
            {"name": f"secret-{purpose}", "mountPath": f"{contract.SECRETS_PATH}/{purpose}", "readOnly": True}
        )
    for purpose, bundle in mounted_authorities(spec, request.stage).items():
        volumes.append(_authorities_volume(purpose, bundle))
        path = f"{contract.AUTHORITIES_PATH}/{purpose}"
        mounts.append({"name": f"authorities-{purpose}", "mountPath": path, "readOnly": True})
    body = pod_spec(owner, spec, request.stage)
    if inits:
        body["initContainers"] = inits
    body |= {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": _GRACE_S,
        "containers": [
            {
                "name": CONTAINER,
                "image": settings.image,
                "imagePullPolicy": "IfNotPresent",
                "command": ["python3", "-m", BY_STAGE[request.stage].module],
                "env": [*(dict(item) for item in settings.env), _request_env(request)],
                "resources": {kind: dict(values) for kind, values in settings.resources.items() if values},
                "securityContext": container_security(),
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "volumeMounts": mounts,
            }
        ],
        "volumes": volumes,
    }
    return body


def _request_env(request: StageRequest) -> dict[str, str]:
    # The kubelet expands `$(NAME)` and makes one `$` of `$$`, so each of them is doubled.
    return {"name": contract.ENV_REQUEST, "value": request.to_json().replace("$", "$$")}


def mounted_secrets(spec: Spec, stage: Stage) -> dict[str, SecretRef]:
    """By purpose, the Secrets that the pod of a Job stage mounts. Only the stage that needs a Secret gets it."""
    if stage is Stage.SDG:
        return dict(spec.llm_keys)
    token = spec.model_source.token if stage is Stage.INPUTS else None
    return {} if token is None else {contract.SECRET_HUGGING_FACE: token}


def mounted_authorities(spec: Spec, stage: Stage) -> dict[str, ConfigMapRef]:
    """By purpose, the ConfigMaps with certificates of authorities that the pod of a Job stage mounts."""
    if stage is Stage.SDG:
        return dict(spec.llm_authorities)
    bundle = spec.model_source.authorities if stage is Stage.INPUTS else None
    return {} if bundle is None else {contract.SECRET_HUGGING_FACE: bundle}


def _authorities_volume(purpose: str, bundle: ConfigMapRef) -> dict[str, Any]:
    items = [{"key": bundle.key, "path": contract.AUTHORITIES_FILE}]
    return {"name": f"authorities-{purpose}", "configMap": {"name": bundle.name, "items": items}}


def _secret_volume(purpose: str, secret: SecretRef) -> dict[str, Any]:
    items = [{"key": secret.key, "path": contract.SECRET_FILE}]
    return {
        "name": f"secret-{purpose}",
        "secret": {"secretName": secret.name, "items": items, "defaultMode": 0o440},
    }
