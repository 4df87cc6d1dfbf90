"""The pod that has a kubelet pull the images of later stages, so that a wrong one is found early. Pure.

It does nothing: each container ends at once, and only whether its image came is looked at. See decide/image_check.py
and docs/decisions/0024.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from embedding_operator.objects.manifests.common import (
    Owner,
    container_security,
    metadata,
    pod_security,
    workspace_label,
)
from embedding_operator.resource.api import PodSettings, Spec
from embedding_operator.resource.labels import IMAGE_CHECK_LABEL, IMAGES_ANNOTATION
from embedding_operator.resource.placement import placed
from embedding_operator.resource.pods import gpu_limits
from embedding_stages.contract import Stage, fingerprint_of

CONTAINER_PREFIX: Final = "image-"  # and its place in the list of images
# Equal, so that a LimitRange has no ratio to object to, and all of them together are less than one stage asks for.
_RESOURCES: Final = {"cpu": "20m", "memory": "32Mi"}


def image_check_name(owner: Owner, revision: int) -> str:
    """At most 63 characters, and never that of a resource which was made again under the same name."""
    return f"{owner.name}-images-{fingerprint_of({'owner': owner.uid, 'revision': revision})[:8]}"


def build_image_check(
    owner: Owner, spec: Spec, revision: int, images: Sequence[str], stages: Sequence[Stage], *, longest_s: int
) -> dict[str, Any]:
    """A pod with a container for each of `images`, which `stages` take; it ends by itself after `longest_s` seconds."""
    pods = [placed(spec, stage) for stage in stages]
    # Where a GPU is asked for the images are large and the nodes few: those nodes are the ones that have to have them.
    pods = [pod for pod in pods if gpu_limits(pod.resources["limits"])] or pods
    body: dict[str, Any] = {
        "restartPolicy": "Never",
        "activeDeadlineSeconds": longest_s,
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": pod_security(spec),
        "affinity": {"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [_near(owner, spec)]}},
        "containers": [_container(number, image) for number, image in enumerate(images)],
    }
    if spec.image_pull_secrets:
        body["imagePullSecrets"] = [{"name": name} for name in spec.image_pull_secrets]
    if selector := _shared([pod.node_selector for pod in pods]):
        body["nodeSelector"] = selector
    if tolerations := _tolerated(pods):
        body["tolerations"] = tolerations
    notes = {**_shared([pod.pod_annotations for pod in pods]), IMAGES_ANNOTATION: json.dumps(list(images))}
    meta = metadata(owner, image_check_name(owner, revision), {IMAGE_CHECK_LABEL: str(revision)}, notes)
    meta["labels"] = {**_shared([pod.pod_labels for pod in pods]), **meta["labels"]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": body}


def _container(number: int, image: str) -> dict[str, Any]:
    return {
        "name": f"{CONTAINER_PREFIX}{number}",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["true"],  # an image without one is told from one that cannot be pulled all the same
        "resources": {"requests": dict(_RESOURCES), "limits": dict(_RESOURCES)},
        "securityContext": container_security(),
    }


def _near(owner: Owner, spec: Spec) -> dict[str, Any]:
    """On the node of the stages if it can be: what is pulled there has not to be pulled again."""
    term = {"labelSelector": {"matchLabels": workspace_label(owner, spec)}, "topologyKey": "kubernetes.io/hostname"}
    return {"weight": 100, "podAffinityTerm": term}


def _shared(each: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """What all of them say alike."""
    first, *others = each
    return {key: value for key, value in first.items() if all(other.get(key) == value for other in others)}


def _tolerated(pods: Sequence[PodSettings]) -> list[dict[str, Any]]:
    first, *others = pods
    return [dict(item) for item in first.tolerations if all(item in other.tolerations for other in others)]
