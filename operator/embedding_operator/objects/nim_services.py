"""A NIMService and the Deployment that NVIDIA's NIM Operator made of it, seen as one server. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from embedding_operator.objects.manifests.nim_service import PORT_NAME
from embedding_operator.objects.manifests.serving import CONTAINER
from embedding_operator.objects.pods import PodView, time_of
from embedding_operator.objects.views import DeploymentView, view_deployment
from embedding_operator.resource.labels import SERVING_LABEL, TEMPLATE_ANNOTATION

NIM_SERVICE: Final = "NIMService"
_READY, _FAILED = "Ready", "Failed"  # of status.state


def is_made_by_one(raw: Mapping[str, Any]) -> bool:
    """Whether an object belongs to a NIMService: it is the NIM Operator's, whatever labels it carries."""
    return any(item.get("kind") == NIM_SERVICE for item in raw["metadata"].get("ownerReferences") or ())


def made_by(raw: Mapping[str, Any], objects: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The one of `objects` that belongs to the NIMService `raw`."""
    uid = raw["metadata"].get("uid")
    owners = ((item, item["metadata"].get("ownerReferences") or ()) for item in objects)
    return next((item for item, found in owners if any(reference.get("uid") == uid for reference in found)), None)


def as_ours(pod: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A pod of the NIMService `name`, whose main container is called as that of the operator's own servers is."""
    status = dict(pod.get("status") or {})
    theirs = f"{name}-ctr"
    named = [
        {**item, "name": CONTAINER} if item.get("name") == theirs else item
        for item in status.get("containerStatuses") or ()
    ]
    return {**pod, "status": {**status, "containerStatuses": named}}


def view_nim_service(
    raw: Mapping[str, Any], made: Mapping[str, Any] | None, pods: Sequence[PodView]
) -> DeploymentView | None:
    """`made` is the Deployment of it, None while there is none. None for a NIMService that serves nothing of ours.

    Its status says whether it is ready, and of which manifest it speaks it does not say: so the Deployment has to be of
    the latest one, by the hash among the annotations.
    """
    meta, status = raw["metadata"], raw.get("status") or {}
    serving = (meta.get("labels") or {}).get(SERVING_LABEL)
    if not serving:
        return None
    ready, failed = (status.get("state") == state for state in (_READY, _FAILED))
    counted = view_deployment(made, pods) if made is not None else None
    empty = DeploymentView(
        name=meta["name"],
        serving=serving,
        raw=raw,
        created=time_of(meta),
        total=0,
        available=0,
        updated=0,
        observed=False,
        replica_failure="",
        deleting="deletionTimestamp" in meta,
        pods=tuple(pods),
        kind=NIM_SERVICE,
        port_name=PORT_NAME,
    )
    said = _said(status) if failed else ""
    if counted is None or made is None:
        return replace(empty, replica_failure=said)
    wanted = ((raw.get("spec") or {}).get("annotations") or {}).get(TEMPLATE_ANNOTATION)
    latest = (made["metadata"].get("annotations") or {}).get(TEMPLATE_ANNOTATION) == wanted
    return replace(
        empty,
        total=counted.total,
        available=counted.available,
        updated=counted.updated if latest else 0,
        observed=counted.observed and latest and ready,
        replica_failure=said or counted.replica_failure,
    )


def _said(status: Mapping[str, Any]) -> str:
    conditions: Sequence[Mapping[str, Any]] = status.get("conditions") or ()
    found = (item for item in conditions if item.get("type") == _FAILED and item.get("status") == "True")
    return next((f"the NIM Operator says: {item.get('message') or item.get('reason')}" for item in found), "")
