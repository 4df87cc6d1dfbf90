"""How the inputs stage gets at its sources: claims and ConfigMaps are mounted, images are copied. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from embedding_operator.objects.manifests.common import container_security, helper_resources
from embedding_operator.resource.api import PodSettings, Source, Spec
from embedding_stages import contract

COPY_PREFIX: Final = "copy-"  # init containers copy-corpus, copy-model, copy-beir, copy-guard-<name>
TOOLS_CONTAINER: Final = "tools"
SOURCE_VOLUME_PREFIX: Final = "source-"
_TOOLS_PATH: Final = "/tools"
_TOOLS_SIZE: Final = "16Mi"  # busybox has one or two


@dataclass(slots=True)
class Sources:
    """What the sources add to the pod of the inputs stage."""

    volumes: list[dict[str, Any]] = field(default_factory=list)
    mounts: list[dict[str, Any]] = field(default_factory=list)  # of the stage's container, read-only
    inits: list[dict[str, Any]] = field(default_factory=list)


def mount_sources(spec: Spec, pod: PodSettings, volumes: Iterable[dict[str, Any]]) -> Sources:
    """Make every source readable below the sources path.

    `pod` are the stage's settings, `volumes` those that its pod has already. The kubelet never mounts a pod that has
    two volumes of one claim, so sources of one claim share a volume, also with the workspace.
    """
    found = Sources()
    of_claim = {
        item["persistentVolumeClaim"]["claimName"]: item["name"] for item in volumes if "persistentVolumeClaim" in item
    }
    for name, source in spec.sources.items():
        if source.kind == "huggingFace":  # the stage downloads it
            continue
        volume, target = f"{SOURCE_VOLUME_PREFIX}{name}", f"{contract.SOURCES_PATH}/{name}"
        if source.kind == "pvc" and source.name in of_claim:
            volume = of_claim[source.name]
        else:
            found.volumes.append(_volume(volume, source, spec))
        if source.kind == "pvc":
            of_claim[source.name] = volume
        if source.kind == "image":
            found.inits.append(_copy_container(name, source, volume, target, pod))
        # The whole claim is mounted: the stage looks for the path and can say that it does not exist.
        found.mounts.append({"name": volume, "mountPath": target, "readOnly": True})
    if found.inits:
        found.volumes.append({"name": TOOLS_CONTAINER, "emptyDir": {"sizeLimit": _TOOLS_SIZE}})
        found.inits.insert(0, _tools_container(pod))
    return found


def _volume(name: str, source: Source, spec: Spec) -> dict[str, Any]:
    if source.kind == "pvc":
        return {"name": name, "persistentVolumeClaim": {"claimName": source.name, "readOnly": True}}
    if source.kind == "configMap":
        return {"name": name, "configMap": {"name": source.name}}
    # What is used of a source goes into the workspace, so nothing larger than that is copied onto the node's disk.
    return {"name": name, "emptyDir": {"sizeLimit": spec.storage.size}}


def _tools_container(pod: PodSettings) -> dict[str, Any]:
    """Puts a static busybox where containers of images that carry only files can run it."""
    return {
        "name": TOOLS_CONTAINER,
        "image": pod.image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["/bin/busybox", "cp", "/bin/busybox", f"{_TOOLS_PATH}/busybox"],
        "resources": helper_resources(pod),
        "securityContext": container_security(),
        "volumeMounts": [{"name": TOOLS_CONTAINER, "mountPath": _TOOLS_PATH}],
    }


def _copy_container(name: str, source: Source, volume: str, target: str, pod: PodSettings) -> dict[str, Any]:
    """Runs in the user's image, which needs no shell and no C library."""
    return {
        "name": f"{COPY_PREFIX}{name}",
        "image": source.name,
        "imagePullPolicy": source.pull_policy,
        "command": [f"{_TOOLS_PATH}/busybox", "cp", "-r", f"/{source.path.strip('/')}/.", target],
        "resources": helper_resources(pod),
        "securityContext": container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": TOOLS_CONTAINER, "mountPath": _TOOLS_PATH, "readOnly": True},
            {"name": volume, "mountPath": target},
        ],
    }
