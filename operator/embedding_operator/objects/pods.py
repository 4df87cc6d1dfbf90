"""Pods as the decisions need them, read from raw JSON. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from embedding_operator.objects.injected import (
    blocker,
    has_begun,
    main_container,
    own_init_containers,
    running_sidecars,
)
from embedding_operator.resource.labels import (
    GPUS_ANNOTATION,
    INDEX_ANNOTATION,
)
from embedding_operator.resource.times import parse_time

_NODE_LOST: Final = "NodeLost"  # the node controller's word in a pod's status
# Reasons of a disruption. The first is also what a taint for maintenance leads to, and does not say which taint it was.
_BY_TAINT: Final = "DeletionByTaintManager"
_NODE_GONE: Final = "DeletionByPodGC"


@dataclass(frozen=True, slots=True, kw_only=True)
class PodView:
    """A pod: whether it started, how it ended, and why it waits. It speaks of the operator's own containers."""

    name: str
    index: int  # in an Indexed Job; 0 elsewhere
    uid: str
    created: datetime
    phase: str
    node: str
    started: bool  # the stage's own container runs or ran
    exit_code: int | None
    ended: datetime | None
    termination_reason: str  # OOMKilled, Error, Completed, ...
    termination_message: str
    failed_init: str  # name of an init container that failed
    blocked_by: str  # what a container that something else put there does, for which the pod's own waits
    sidecars: Sequence[str]  # names of the containers of that kind that run beside the pod's own
    waiting_reason: str  # of the first container that waits
    waiting_message: str
    waiting_container: str
    unschedulable: str  # the scheduler's message
    image_id: str
    evicted: str  # the kubelet's message when it put the pod out
    disrupted: bool  # drained, preempted or evicted: what it says is not why its Job failed
    deleting: bool
    running_since: datetime | None = None  # when the stage's own container started
    gone_by: datetime | None = None  # of a pod that is being deleted: the end of its grace period
    began: datetime | None = None  # when the stage's own container started, also of one that has ended
    gpus: int = 0  # that the pod has, or parts of GPUs
    node_lost: bool = False  # Kubernetes gave it up because its node does not answer, or is gone
    tainted: bool = False  # put out by a taint of a node that answers, as for maintenance
    node_silent: bool = False  # its node does not answer, and Kubernetes waits for it


def time_of(meta: Mapping[str, Any]) -> datetime:
    created = parse_time(meta.get("creationTimestamp"))
    if created is None:
        raise ValueError(f"object {meta.get('name')!r} has no creationTimestamp: it does not come from an API server")
    return created


def view_pod(raw: Mapping[str, Any]) -> PodView:
    meta, status = raw["metadata"], raw.get("status") or {}
    main, init = main_container(status), own_init_containers(status)
    bad_init = next((c for c in init if _exit_code(c) not in (None, 0)), None)
    ended = bad_init or main
    terminated = _terminated(ended)
    target, silent = _disruption(status), _is_silent(status)
    why = (target or {}).get("reason")
    waits = next((c for c in (*init, main) if (c.get("state") or {}).get("waiting")), {})
    waiting: Mapping[str, Any] = (waits.get("state") or {}).get("waiting") or {}
    return PodView(
        name=meta["name"],
        index=int((meta.get("annotations") or {}).get(INDEX_ANNOTATION, 0)),
        uid=meta.get("uid", ""),
        created=time_of(meta),
        phase=status.get("phase", "Pending"),
        node=(raw.get("spec") or {}).get("nodeName", ""),
        started=has_begun(main),
        exit_code=terminated.get("exitCode"),
        ended=parse_time(terminated.get("finishedAt")),
        termination_reason=terminated.get("reason", ""),
        termination_message=terminated.get("message", ""),
        failed_init=bad_init["name"] if bad_init else "",
        blocked_by=blocker(raw),
        sidecars=running_sidecars(status),
        waiting_reason=waiting.get("reason", ""),
        waiting_message=waiting.get("message", ""),
        waiting_container=waits.get("name", ""),
        unschedulable=_unschedulable(status),
        image_id=main.get("imageID", ""),
        evicted=status.get("message", "") if status.get("reason") == "Evicted" else "",
        disrupted=target is not None,
        deleting="deletionTimestamp" in meta,
        running_since=parse_time(((main.get("state") or {}).get("running") or {}).get("startedAt")),
        gone_by=parse_time(meta.get("deletionTimestamp")),
        began=_began(main),
        gpus=int(told) if (told := (meta.get("annotations") or {}).get(GPUS_ANNOTATION, "")).isdigit() else 0,
        node_silent=silent,
        node_lost=status.get("reason") == _NODE_LOST or why == _NODE_GONE or (why == _BY_TAINT and silent),
        tainted=why == _BY_TAINT and not silent,
    )


def _disruption(status: Mapping[str, Any]) -> Mapping[str, Any] | None:
    found = (c for c in conditions_of(status) if c.get("type") == "DisruptionTarget" and c.get("status") == "True")
    return next(found, None)


def _is_silent(status: Mapping[str, Any]) -> bool:
    """The node controller takes readiness from the pods of a node that does not answer. A kubelet gives a reason."""
    known = {c.get("type"): c for c in conditions_of(status)}
    ready, containers = known.get("Ready") or {}, known.get("ContainersReady") or {}
    return ready.get("status") == "False" and not ready.get("reason") and containers.get("status") == "True"


def _began(container: Mapping[str, Any]) -> datetime | None:
    state: Mapping[str, Any] = container.get("state") or {}
    return parse_time((state.get("running") or state.get("terminated") or {}).get("startedAt"))


def conditions_of(status: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Of a pod, a Job or a Deployment."""
    found: Sequence[Mapping[str, Any]] = status.get("conditions") or ()
    return found


def _terminated(container: Mapping[str, Any]) -> Mapping[str, Any]:
    for state in ("state", "lastState"):
        found: Mapping[str, Any] | None = (container.get(state) or {}).get("terminated")
        if found:
            return found
    return {}


def _exit_code(container: Mapping[str, Any]) -> int | None:
    return _terminated(container).get("exitCode")


def _unschedulable(status: Mapping[str, Any]) -> str:
    for item in conditions_of(status):
        if item.get("type") == "PodScheduled" and item.get("status") == "False":
            return str(item.get("message", ""))
    return ""
