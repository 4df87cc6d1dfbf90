"""What every object of ours has: owner, labels, and a pod that satisfies the restricted Pod Security Standard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from embedding_operator.resource.api import API_VERSION, KIND, MANAGER, PodSettings, Spec
from embedding_operator.resource.labels import (
    MANAGED_BY_LABEL,
    OWNER_LABEL,
    OWNER_UID_LABEL,
    PART_OF_LABEL,
    WORKSPACE_LABEL,
)
from embedding_operator.resource.placement import mounts_on_one_node, placed
from embedding_stages.contract import Stage, fingerprint_of

_LABEL_CHARACTERS: Final = 63  # a claim's name may have 253
_OF_EVERY_CONTAINER: Final = frozenset({"cpu", "memory", "ephemeral-storage"})
USER_ID: Final = 65532  # the images' user; no name needed, only not root


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """The resource that an object belongs to."""

    namespace: str
    name: str
    uid: str

    def owns(self, raw: Mapping[str, Any]) -> bool:
        """Whether it goes with the resource. Labels may have been copied: `kubectl expose` does."""
        return any(reference["uid"] == self.uid for reference in raw["metadata"].get("ownerReferences") or ())


def metadata(
    owner: Owner,
    name: str,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Object metadata with the ownerReference that garbage collection follows, also with the operator gone."""
    body: dict[str, Any] = {
        "name": name,
        "namespace": owner.namespace,
        "labels": {**owner_labels(owner), **(labels or {})},
        "ownerReferences": [
            {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "name": owner.name,
                "uid": owner.uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }
    if annotations:
        body["annotations"] = dict(annotations)
    return body


def owner_labels(owner: Owner) -> dict[str, str]:
    return {
        MANAGED_BY_LABEL: MANAGER,
        PART_OF_LABEL: owner.name,
        OWNER_LABEL: owner.name,
        OWNER_UID_LABEL: owner.uid,
    }


def pod_metadata(pod: PodSettings, identity: Mapping[str, str]) -> dict[str, Any]:
    """Of a pod template: the manifest's labels and annotations, and those by which the operator finds the pod."""
    body: dict[str, Any] = {"labels": {**pod.pod_labels, **identity}}
    if pod.pod_annotations:
        body["annotations"] = dict(pod.pod_annotations)
    return body


def pod_spec(owner: Owner, spec: Spec, stage: Stage) -> dict[str, Any]:
    """The parts of a pod that all of ours share. Containers and volumes are the caller's."""
    pod = placed(spec, stage)
    body: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": pod_security(spec),
    }
    if spec.image_pull_secrets:
        body["imagePullSecrets"] = [{"name": name} for name in spec.image_pull_secrets]
    if pod.node_selector:
        body["nodeSelector"] = dict(pod.node_selector)
    if mounts_on_one_node(spec):
        body["affinity"] = {"podAffinity": _beside(owner, spec)}
    if pod.tolerations:
        body["tolerations"] = [dict(item) for item in pod.tolerations]
    if pod.priority_class:
        body["priorityClassName"] = pod.priority_class
    if pod.runtime_class:
        body["runtimeClassName"] = pod.runtime_class
    return body


def pod_security(spec: Spec) -> dict[str, Any]:
    """OpenShift's default constraint refuses every user but one of the namespace's own range, which it then sets."""
    user = {"runAsUser": USER_ID, "runAsGroup": USER_ID, "fsGroup": USER_ID}
    return {
        "runAsNonRoot": True,
        **({} if spec.given_user else user),
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _beside(owner: Owner, spec: Spec) -> dict[str, Any]:
    """On the node of the pods that mount the same claim; where there are none, on any node."""
    term = {
        "labelSelector": {"matchLabels": workspace_label(owner, spec)},
        "topologyKey": "kubernetes.io/hostname",
    }
    return {"requiredDuringSchedulingIgnoredDuringExecution": [term]}


def workspace_label(owner: Owner, spec: Spec) -> dict[str, str]:
    """The label of the pods that mount a claim, also of those of other resources that share it."""
    claim = workspace_claim(owner, spec)
    if len(claim) > _LABEL_CHARACTERS:
        claim = f"{claim[:46]}-{fingerprint_of({'claim': claim})[:16]}"
    return {WORKSPACE_LABEL: claim}


def container_security(*, read_only_root: bool = True) -> dict[str, Any]:
    """NIM writes to its own root file system, so the server's container may say otherwise."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": read_only_root,
        "capabilities": {"drop": ["ALL"]},
    }


def helper_resources(pod: PodSettings) -> dict[str, dict[str, str]]:
    """Requests and limits of the containers that run before the pod's own: the same, but for accelerators.

    So whatever a ResourceQuota or a LimitRange wants, what lets the pod's own container through lets these through, and
    the manifest has a field for it. A pod asks for the larger of what its init containers and its containers ask for,
    so this costs nothing.
    """
    found = {
        kind: {key: value for key, value in values.items() if key in _OF_EVERY_CONTAINER}
        for kind, values in pod.resources.items()
    }
    return {kind: values for kind, values in found.items() if values}


def workspace_claim(owner: Owner, spec: Spec) -> str:
    return spec.storage.existing_claim or f"{owner.name}-workspace"


def workspace_folder(owner: Owner) -> str:
    """The sub-path of the claim that is this resource's alone, so that an existing claim can be shared."""
    return f"{owner.name}-{owner.uid[:8]}"
