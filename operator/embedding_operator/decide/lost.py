"""What was asked to end and never does: pods on a lost node, objects that a finalizer keeps. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from embedding_operator.decide.outcome import NODE_LOST
from embedding_operator.decide.waiting import Wait
from embedding_operator.objects.deletion import DELETION_STUCK, deleted_at, stuck_deletion
from embedding_operator.objects.pods import PodView
from embedding_operator.objects.views import DeploymentView, JobView

_MARGIN: Final = timedelta(seconds=60)  # a kubelet that lives reports within seconds
ENDED: Final = ("Succeeded", "Failed")


def held_job(jobs: Iterable[JobView], now: datetime) -> Wait | None:
    """Why Jobs that are being deleted do not go, when that is known."""
    jobs = tuple(jobs)
    stuck = (_stuck(f"Job {job.name}", stuck_deletion(job.deleted_at, job.finalizers, now)) for job in jobs)
    return lost_node([pod for job in jobs for pod in job.pods], now) or next(filter(None, stuck), None)


def held_server(servers: Iterable[DeploymentView], now: datetime) -> Wait | None:
    """Why Deployments that are being deleted do not go, when that is known."""
    servers = tuple(servers)
    metas = ((f"{item.kind} {item.name}", item.raw.get("metadata") or {}) for item in servers)
    stuck = (_stuck(name, stuck_deletion(deleted_at(meta), meta.get("finalizers") or (), now)) for name, meta in metas)
    return lost_node([pod for item in servers for pod in item.pods], now) or next(filter(None, stuck), None)


def _stuck(what: str, why: str) -> Wait | None:
    return Wait(reason=DELETION_STUCK, message=f"{what} is in the way: {why}", broken=True) if why else None


def silent_node(pods: Iterable[PodView]) -> Wait | None:
    """A node that does not answer may come back. Kubernetes gives its pods up after five minutes: asks them to end."""
    for pod in pods:
        if pod.node_silent and pod.phase not in ENDED:
            soon = "may still run there, and Kubernetes gives it up soon"
            what = soon if pod.gone_by is None else "was asked to end, and may still run there"
            message = f"node {pod.node} does not answer; pod {pod.name} {what}"
            return Wait(reason=NODE_LOST, message=message, broken=False)
    return None


def answers(servers: Iterable[DeploymentView], serving: str) -> bool:
    """Whether a server of this label is there for clients."""
    return any(item.serving == serving and item.available and not item.deleting for item in servers)


def cause_of_loss(servers: Iterable[DeploymentView], serving: str) -> str:
    """Why a server that is there does not answer, where its node is the cause; empty where that is not known."""
    pods = [pod for item in servers if item.serving == serving for pod in item.pods if not pod.deleting]
    if (silent := silent_node(pods)) is not None:
        return silent.message
    waits = next((pod for pod in pods if pod.unschedulable), None)
    return f"pod {waits.name} has no node: {waits.unschedulable}" if waits is not None else ""


def lost_node(pods: Iterable[PodView], now: datetime) -> Wait | None:
    """A pod that is still there after its grace period is on a node whose kubelet does not answer.

    Kubernetes never removes such a pod by itself: the node may have lost its network alone, and the pod may still
    write to the volume.
    """
    for pod in pods:
        if pod.phase in ENDED:  # its end was confirmed, and a finalizer of somebody keeps the object
            continue
        if pod.gone_by is not None and now > pod.gone_by + _MARGIN:
            message = (
                f"pod {pod.name} was asked to end, and node {pod.node} does not confirm that it has: if the machine is "
                f"off or gone, remove the Node object, or give it the taint node.kubernetes.io/out-of-service:NoExecute"
            )
            return Wait(reason=NODE_LOST, message=message, broken=True)
    return None
