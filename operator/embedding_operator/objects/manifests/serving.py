"""The Deployment that serves a model and the Services in front of it. Pure.

One Deployment and one Service of the same name for every served fingerprint (that is what `verify` measures), and
one Service named after the resource, for clients, whose selector moves when a revision has been verified.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Final

from embedding_operator.objects.manifests.common import (
    Owner,
    container_security,
    helper_resources,
    metadata,
    owner_labels,
    pod_metadata,
    pod_spec,
    workspace_claim,
    workspace_folder,
    workspace_label,
)
from embedding_operator.resource.api import Spec
from embedding_operator.resource.labels import (
    FINGERPRINT_ANNOTATION,
    OWNER_UID_LABEL,
    QUEUE_LABELS,
    SERVING_LABEL,
    TEMPLATE_ANNOTATION,
)
from embedding_operator.resource.scheduling import queue_labels
from embedding_stages.contract import ArtefactRef, Stage, fingerprint_of
from embedding_stages.contract.servers import EMBEDDINGS_PATH

PORT: Final = 8000  # of Services; a server's own port is in its profile
CONTAINER: Final = "server"
CHECK_CONTAINER: Final = "check-artefact"


def serving_label(serving: str) -> str:
    """A served fingerprint as a label's value: the first 16 of its 64 digits."""
    return serving[:16]


def serving_name(owner_name: str, serving: str) -> str:
    """The name of its Deployment and Service; 8 digits, because a name may be no longer than 63 characters."""
    return f"{owner_name}-{serving[:8]}"


def selected(service: Mapping[str, Any] | None) -> str:
    """The label of the server that a Service leads to; empty when it leads to none."""
    return str((((service or {}).get("spec") or {}).get("selector") or {}).get(SERVING_LABEL, ""))


def service_url(owner: Owner, name: str) -> str:
    return f"http://{name}.{owner.namespace}:{PORT}"


def clients_url(owner: Owner) -> str:
    """What clients are told; the same for every revision."""
    return f"{service_url(owner, owner.name)}{EMBEDDINGS_PATH}"


def build_deployment(
    owner: Owner,
    spec: Spec,
    serving: str,
    model: ArtefactRef,
    *,
    check_image: str,
    vector_space: str = "",
    scaled_to: int = 1,
) -> dict[str, Any]:
    """`serving` is the served fingerprint; `check_image` is the image whose code checks the model's digest.
    `vector_space` is what the server says of itself; nothing when empty. `scaled_to` are the pods that there are now:
    where the manifest says nothing of replicas they stay, for an autoscaler or a person to decide. Nobody is sent to a
    server without a pod, so 0 becomes 1.

    The init container refuses a folder whose digest is not the exported one, so that swapped weights never
    start, with any server image.
    """
    labels = {**owner_labels(owner), **workspace_label(owner, spec), SERVING_LABEL: serving_label(serving)}
    body = {
        "replicas": spec.deploy.replicas or max(1, scaled_to),
        "revisionHistoryLimit": 1,
        "progressDeadlineSeconds": spec.deploy.start_timeout_s,
        "selector": {"matchLabels": selector_of(owner, serving)},
        "strategy": _strategy(spec),
        "template": {
            "metadata": pod_metadata(spec.stages[Stage.DEPLOY].pod, labels),
            "spec": _pod(owner, spec, model, check_image, vector_space),
        },
    }
    # The hash tells what somebody changed from what the manifest asks for now, and shows what it no longer asks for.
    asked = {**body, "replicas": spec.deploy.replicas}
    notes = {FINGERPRINT_ANNOTATION: serving, TEMPLATE_ANNOTATION: fingerprint_of(asked)[:16]}
    queued = queue_labels(spec.scheduling) if spec.scheduling.serving else {}
    marks = {SERVING_LABEL: serving_label(serving), **queued}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(owner, serving_name(owner.name, serving), marks, notes),
        "spec": body,
    }


def in_its_queue(wanted: dict[str, Any], live: Mapping[str, Any]) -> dict[str, Any]:
    """With the queue that `live` was made with: Kueue refuses another one for a server that is ready."""
    meta = wanted["metadata"]
    kept = {key: value for key, value in meta["labels"].items() if key not in QUEUE_LABELS}
    made = {key: value for key, value in (live["metadata"].get("labels") or {}).items() if key in QUEUE_LABELS}
    return {**wanted, "metadata": {**meta, "labels": {**kept, **made}}}


def as_made_before(wanted: dict[str, Any], live: Mapping[str, Any], spec: Spec) -> dict[str, Any]:
    """What an earlier release made of the same manifest, where `live` was applied from that: its pods go on.

    The check's requests and limits were others, and the hash counted one replica where the manifest says none. Whatever
    else the manifest asks for now makes another hash: then the pods are made anew in any case, and `wanted` is right.
    """
    meta, found = wanted["metadata"], (live["metadata"].get("annotations") or {}).get(TEMPLATE_ANNOTATION)
    if wanted["kind"] != "Deployment" or found == meta["annotations"][TEMPLATE_ANNOTATION]:
        return wanted
    body = deepcopy(wanted["spec"])
    check, resources = _check_of(body), _check_of(live["spec"]).get("resources")
    check.pop("resources", None)
    check |= {"resources": resources} if resources else {}
    noted = fingerprint_of({**body, "replicas": spec.deploy.replicas or 1})[:16]
    if noted != found:
        return wanted
    return {
        **wanted,
        "metadata": {**meta, "annotations": {**meta["annotations"], TEMPLATE_ANNOTATION: noted}},
        "spec": body,
    }


def _check_of(body: Mapping[str, Any]) -> dict[str, Any]:
    """The init container that checks the model; empty where somebody took it away. `body` is a Deployment's spec."""
    found = body["template"]["spec"].get("initContainers") or ()
    return next((item for item in found if item["name"] == CHECK_CONTAINER), {})


def _strategy(spec: Spec) -> dict[str, Any]:
    """How pods of one artefact take each other's place, when only how they run changes."""
    if spec.deploy.strategy == "Recreate":
        return {"type": "Recreate"}
    return {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}


def build_service(owner: Owner, name: str, serving: str, port_name: str = "http") -> dict[str, Any]:
    """A cluster-internal Service for the pods of one served fingerprint; `port_name` is that of their port."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(owner, name, {SERVING_LABEL: serving_label(serving)}),
        "spec": {
            "type": "ClusterIP",
            "selector": selector_of(owner, serving),
            "ports": [{"name": "http", "port": PORT, "targetPort": port_name, "protocol": "TCP"}],
        },
    }


def selector_of(owner: Owner, serving: str) -> dict[str, str]:
    """The labels of the pods of one served fingerprint.

    By UID: a pod of a resource of the same name that is still being deleted must not answer.
    """
    return {SERVING_LABEL: serving_label(serving), OWNER_UID_LABEL: owner.uid}


def _pod(owner: Owner, spec: Spec, model: ArtefactRef, check_image: str, vector_space: str) -> dict[str, Any]:
    settings = spec.stages[Stage.DEPLOY].pod
    path = spec.deploy.profile.model_path
    mount = {
        "name": "workspace",
        "mountPath": path,
        "subPath": f"{workspace_folder(owner)}/{model.path}",
        "readOnly": True,
    }
    body = pod_spec(owner, spec, Stage.DEPLOY)
    body |= {
        "terminationGracePeriodSeconds": 30,
        "initContainers": [
            {
                "name": CHECK_CONTAINER,
                "image": check_image,
                "imagePullPolicy": "IfNotPresent",
                "command": ["python3", "-m", "embedding_stages.serve.check", path, model.digest],
                "resources": helper_resources(settings),
                "securityContext": container_security(),
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "volumeMounts": [mount],
            }
        ],
        "containers": [_server(spec, mount, vector_space)],
        "volumes": [
            {"name": "workspace", "persistentVolumeClaim": {"claimName": workspace_claim(owner, spec)}},
            {"name": "cache", "emptyDir": {}},
            {"name": "tmp", "emptyDir": {}},
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": spec.deploy.shared_memory}},
        ],
    }
    return body


def _server(spec: Spec, mount: dict[str, Any], vector_space: str) -> dict[str, Any]:
    settings, profile = spec.stages[Stage.DEPLOY].pod, spec.deploy.profile
    body = {
        "name": CONTAINER,
        "image": settings.image,
        "imagePullPolicy": "IfNotPresent",
        "env": [*(dict(item) for item in settings.env), *environment(spec, vector_space)],
        "ports": [{"name": "http", "containerPort": profile.port, "protocol": "TCP"}],
        "resources": {kind: dict(values) for kind, values in settings.resources.items() if values},
        "securityContext": container_security(read_only_root=profile.read_only_root),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        # A NIM builds engines at its first start: many minutes of starting are normal, a slow start is no crash.
        "startupProbe": _probe(profile.ready_path, period_s=2, failures=max(1, spec.deploy.start_timeout_s // 2)),
        "readinessProbe": _probe(profile.ready_path, period_s=5, failures=3),
        "livenessProbe": _probe(profile.live_path, period_s=10, failures=6),
        "volumeMounts": [
            mount,
            {"name": "cache", "mountPath": profile.cache_path},
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "shm", "mountPath": "/dev/shm"},
        ],
    }
    for key, texts in (("command", profile.command), ("args", profile.arguments)):
        if texts:  # absent: the image's own
            body[key] = [_filled(spec, text) for text in texts]
    return body


def environment(spec: Spec, vector_space: str, *, keys: bool = True) -> list[dict[str, Any]]:
    """The variables of the server's profile, in its order; `keys`: with the licence key."""
    deploy, profile = spec.deploy, spec.deploy.profile
    given = {item["name"] for item in spec.stages[Stage.DEPLOY].pod.env}
    texts = {**profile.variables, **{name: text for name, text in profile.defaults.items() if name not in given}}
    variables: list[dict[str, Any]] = [{"name": name, "value": _filled(spec, text)} for name, text in texts.items()]
    if keys and deploy.ngc_key is not None and profile.key_variable is not None:
        reference = {"name": deploy.ngc_key.name, "key": deploy.ngc_key.key}
        variables.append({"name": profile.key_variable, "valueFrom": {"secretKeyRef": reference}})
    if vector_space and profile.space_variable is not None:
        variables.append({"name": profile.space_variable, "value": vector_space})
    return variables


def _filled(spec: Spec, text: str) -> str:
    return spec.deploy.profile.fill(text, model=spec.deploy.model_name, base=spec.base_model)


def _probe(path: str, *, period_s: int, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": "http"},
        "periodSeconds": period_s,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }
