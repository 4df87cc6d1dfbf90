"""What views and comparisons read of an object: the rest of ten thousand resources' would only fill the memory. Pure.

A field that is left out here changes without a pass: most of what a kubelet and controllers write says nothing new.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from embedding_operator.resource.api import MANAGER

Raw = Mapping[str, Any]
# Written by others and read by nobody here, but for some of the first; a server or a client would write them anew.
_METADATA_LEFT_OUT: Final = frozenset({"managedFields", "selfLink", "resourceVersion"})
_RESTORED: Final = frozenset({"Deployment", "Service"})  # of these it is told who changed them
_OWNED: Final = ("manager", "fieldsV1")
_LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
_JOB_COUNTS: Final = frozenset(
    {"active", "failed", "failedIndexes", "completedIndexes", "ready", "succeeded", "terminating"}
    | {"uncountedTerminatedPods"}
)
_CONTAINER_READ: Final = ("name", "state", "lastState", "started", "imageID")
_POD_CONDITIONS: Final = frozenset({"PodScheduled", "DisruptionTarget"})
_OF_SILENT_NODES: Final = frozenset({"Ready", "ContainersReady"})  # else they change with each start, and say no more
_INIT_READ: Final = ("name", "restartPolicy")  # which of them are sidecars, that run as long as the pod does


def slim(kind: str, raw: Raw) -> dict[str, Any]:
    """A copy of what is read. Kind, API version and resourceVersion are left to whoever keeps it."""
    body = {key: value for key, value in raw.items() if key not in ("apiVersion", "kind")}
    body["metadata"] = _metadata(kind, raw["metadata"])
    spec: Raw = raw.get("spec") or {}
    status: Raw = raw.get("status") or {}
    match kind:
        case "Job":
            body["spec"] = {key: spec[key] for key in ("suspend", "completions") if key in spec}
            body["status"] = {key: value for key, value in status.items() if key not in _JOB_COUNTS}
        case "Pod":
            body["spec"] = _pod_spec(spec)
            body["status"] = _pod_status(status)
        case "Deployment":
            body["status"] = _deployment_status(status)
        case "Service":
            body.pop("status", None)
        case "PersistentVolumeClaim":
            body.pop("status", None)
            body["spec"] = {key: spec[key] for key in ("accessModes", "resources") if key in spec}
    return body


def _metadata(kind: str, meta: Raw) -> dict[str, Any]:
    body = {key: value for key, value in meta.items() if key not in _METADATA_LEFT_OUT}
    notes = {key: value for key, value in (meta.get("annotations") or {}).items() if key != _LAST_APPLIED}
    body.pop("annotations", None)
    if notes:
        body["annotations"] = notes
    if kind in _RESTORED:
        others = [_some(item, _OWNED) for item in meta.get("managedFields") or () if _of_others(item)]
        body |= {"managedFields": others} if others else {}
    return body


def _of_others(managed: Raw) -> bool:
    """Whether somebody else wrote what stands in a manifest; most objects have nobody else."""
    return managed.get("manager") != MANAGER and managed.get("subresource") != "status"


def _pod_spec(spec: Raw) -> dict[str, Any]:
    body = {"nodeName": spec["nodeName"]} if spec.get("nodeName") else {}
    if inits := spec.get("initContainers"):
        body["initContainers"] = [_some(item, _INIT_READ) for item in inits]
    return body


def _pod_status(status: Raw) -> dict[str, Any]:
    body = _some(status, ("phase", "reason", "message"))
    told = status.get("conditions") or ()
    kept = _POD_CONDITIONS | (_OF_SILENT_NODES if any(map(_by_node_controller, told)) else frozenset())
    conditions = [item for item in told if item.get("type") in kept]
    if conditions:
        body["conditions"] = [_some(item, ("type", "status", "reason", "message")) for item in conditions]
    for kind in ("initContainerStatuses", "containerStatuses"):
        if found := status.get(kind):
            body[kind] = [_some(item, _CONTAINER_READ) for item in found]
    return body


def _by_node_controller(condition: Raw) -> bool:
    """Whether a pod is not ready because its node does not answer: a kubelet would give a reason."""
    return condition.get("type") == "Ready" and condition.get("status") == "False" and not condition.get("reason")


def _deployment_status(status: Raw) -> dict[str, Any]:
    body = _some(status, ("replicas", "availableReplicas", "updatedReplicas", "observedGeneration"))
    failures = [item for item in status.get("conditions") or () if item.get("type") == "ReplicaFailure"]
    if failures:
        body["conditions"] = [_some(item, ("type", "status", "reason", "message")) for item in failures]
    return body


def _some(raw: Raw, keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: raw[key] for key in keys if key in raw}


def is_settled(raw: Raw) -> bool:
    """Whether a resource is Ready for its spec as it is: nothing is under way, so that others come first."""
    status: Raw = raw.get("status") or {}
    return status.get("phase") == "Ready" and status.get("observedGeneration") == raw["metadata"].get("generation")
