"""What a pod of the simulation is asked, and what it says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simulation.endings import Ending

from embedding_operator.resource.labels import INDEX_ANNOTATION
from embedding_stages import contract
from embedding_stages.contract import StageRequest, StageResult

Raw = dict[str, Any]
NOT_FOUND = "not found"


def uid_of(raw: Raw) -> str:
    return str(raw["metadata"]["uid"])


def index_of(pod: Raw) -> int:
    return int(pod["metadata"]["annotations"].get(INDEX_ANNOTATION, 0))


def request_of(pod: Raw) -> StageRequest:
    env = pod["spec"]["containers"][0]["env"]
    text = next(item["value"] for item in env if item["name"] == contract.ENV_REQUEST)
    return StageRequest.from_json(text.replace("$$", "$"))


def last_words(pod: Raw, ending: Ending) -> str:
    """The result of a stage that failed."""
    request = request_of(pod)
    said = StageResult(
        stage=request.stage,
        fingerprint=request.fingerprint,
        reason=ending.reason,
        message=ending.message,
        field=ending.field,
    )
    return said.to_json()


def waiting(container: str) -> Raw:
    return {"name": container, "state": {"waiting": {"reason": "PodInitializing"}}}


def unscheduled() -> Raw:
    message = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu. no new claims to deallocate, preemption: 0/1"
    return {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}


def missing_secret(pod: Raw, secrets: Mapping[str, set[str]]) -> str:
    """What the kubelet says of a Secret that is not there, or lacks a key."""
    for volume in pod["spec"].get("volumes", ()):
        if "secret" not in volume:
            continue
        secret = volume["secret"]
        failed = f'MountVolume.SetUp failed for volume "{volume["name"]}" : '
        if secret["secretName"] not in secrets:
            return f'{failed}secret "{secret["secretName"]}" not found'
        for item in secret["items"]:
            if item["key"] not in secrets[secret["secretName"]]:
                return f"{failed}references non-existent secret key: {item['key']}"
    return ""


def without_image(pod: Raw, gone: tuple[str, ...]) -> Raw:
    """What a kubelet says of a pod with an image that begins with one of `gone`; empty where none does."""
    for kind in ("initContainers", "containers"):
        for item in pod["spec"].get(kind, ()):
            if waits := _not_found(item["image"], gone):
                return {f"{kind[:-1]}Statuses": [{"name": item["name"], "state": {"waiting": waits}}]}
    return {}


def _not_found(image: str, gone: tuple[str, ...]) -> Raw:
    return {"reason": "ErrImagePull", "message": f"{image}: {NOT_FOUND}"} if image.startswith(gone) else {}


def pulled(pod: Raw, unpulled: Mapping[str, Raw], gone: tuple[str, ...]) -> Raw:
    """The status of a pod whose containers end at once, but for those whose image does not come."""
    containers = []
    for item in pod["spec"]["containers"]:
        waiting = unpulled.get(item["image"]) or _not_found(item["image"], gone)
        state = {"waiting": waiting} if waiting else {"terminated": {"exitCode": 0, "reason": "Completed"}}
        containers.append({"name": item["name"], "state": state})
    over = not any("waiting" in item["state"] for item in containers)
    return {"phase": "Succeeded" if over else "Pending", "containerStatuses": containers}
