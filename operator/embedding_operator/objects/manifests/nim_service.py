"""The NIMService of NVIDIA's NIM Operator that serves a model, in the place of a Deployment. Pure.

The NIM Operator makes a Deployment and a Service of its name. Labels and annotations of its spec go to both and to the
pods, so the operator finds them by the same labels as its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from embedding_operator.objects.manifests.common import (
    USER_ID,
    Owner,
    metadata,
    pod_spec,
    workspace_claim,
    workspace_folder,
    workspace_label,
)
from embedding_operator.objects.manifests.serving import (
    CHECK_CONTAINER,
    build_deployment,
    environment,
    serving_label,
    serving_name,
)
from embedding_operator.resource.api import Spec
from embedding_operator.resource.labels import (
    FINGERPRINT_ANNOTATION,
    OWNER_LABEL,
    OWNER_UID_LABEL,
    SERVING_LABEL,
    TEMPLATE_ANNOTATION,
)
from embedding_stages.contract import ArtefactRef, Stage, fingerprint_of

API: Final = "apps.nvidia.com/v1alpha1"
PORT_NAME: Final = "api"  # of the pods that the NIM Operator makes
_PERIOD_S: Final = 10


def build_nim_service(
    owner: Owner, spec: Spec, serving: str, model: ArtefactRef, *, check_image: str, scaled_to: int = 1
) -> dict[str, Any]:
    """The arguments are those of `build_deployment`."""
    pod, deploy = spec.stages[Stage.DEPLOY].pod, spec.deploy
    shared = pod_spec(owner, spec, Stage.DEPLOY)
    found_by = {OWNER_LABEL: owner.name, OWNER_UID_LABEL: owner.uid, SERVING_LABEL: serving_label(serving)}
    command = ["python3", "-m", "embedding_stages.serve.check", deploy.profile.model_path, model.digest]
    body: dict[str, Any] = {
        "image": _image(pod.image) | _pull_secrets(spec.image_pull_secrets),
        "env": [*(dict(item) for item in pod.env), *environment(spec, "", keys=False)],
        "storage": {
            "pvc": {
                "create": False,
                "name": workspace_claim(owner, spec),
                "subPath": f"{workspace_folder(owner)}/{model.path}",
            },
            "readOnly": True,
            "sharedMemorySizeLimit": deploy.shared_memory,
        },
        "labels": {**pod.pod_labels, **workspace_label(owner, spec), **found_by},
        "annotations": dict(pod.pod_annotations),
        "replicas": deploy.replicas or max(1, scaled_to),
        "resources": {kind: dict(values) for kind, values in pod.resources.items() if values},
        "expose": {"service": {"type": "ClusterIP", "port": deploy.profile.port}},
        "startupProbe": {"probe": _starting(spec)},
        "initContainers": [{"name": CHECK_CONTAINER, "image": _image(check_image), "command": command}],
    }
    if deploy.ngc_key is not None:
        body["authSecret"] = deploy.ngc_key.name
    if not spec.given_user:
        body |= {"userID": USER_ID, "groupID": USER_ID}
    of_pod = ("nodeSelector", "affinity", "tolerations", "priorityClassName", "runtimeClassName")
    body |= {key: shared[key] for key in of_pod if key in shared}
    template = fingerprint_of({**body, "replicas": deploy.replicas})[:16]
    body["annotations"] = {**body["annotations"], TEMPLATE_ANNOTATION: template}
    labels = {SERVING_LABEL: serving_label(serving)}
    notes = {FINGERPRINT_ANNOTATION: serving, TEMPLATE_ANNOTATION: template}
    return {
        "apiVersion": API,
        "kind": "NIMService",
        "metadata": metadata(owner, serving_name(owner.name, serving), labels, notes),
        "spec": body,
    }


def _pull_secrets(names: Sequence[str]) -> dict[str, Any]:
    """No empty list: the NIM Operator writes the object back without it."""
    return {"pullSecrets": list(names)} if names else {}


def _image(reference: str) -> dict[str, Any]:
    """The NIM Operator joins repository and tag by a colon again, so a digest may be cut in two there."""
    repository, _, tag = reference.rpartition(":")
    if not repository or "/" in tag:
        repository, tag = reference, "latest"
    return {"repository": repository, "tag": tag, "pullPolicy": "IfNotPresent"}


def _starting(spec: Spec) -> dict[str, Any]:
    return {
        "httpGet": {"path": spec.deploy.profile.ready_path, "port": PORT_NAME},
        "periodSeconds": _PERIOD_S,
        "timeoutSeconds": 5,
        "failureThreshold": max(1, spec.deploy.start_timeout_s // _PERIOD_S),
    }


def build_server(
    owner: Owner,
    spec: Spec,
    serving: str,
    model: ArtefactRef,
    *,
    check_image: str,
    vector_space: str = "",
    scaled_to: int = 1,
) -> dict[str, Any]:
    """The object that the manifest's kind of server is run by."""
    if spec.deploy.profile.run_by == "NIMService":
        return build_nim_service(owner, spec, serving, model, check_image=check_image, scaled_to=scaled_to)
    return build_deployment(
        owner, spec, serving, model, check_image=check_image, vector_space=vector_space, scaled_to=scaled_to
    )
