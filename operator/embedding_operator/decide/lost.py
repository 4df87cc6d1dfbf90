"""Pods that were asked to end and never do: their node is lost. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from embedding_operator.decide.waiting import Wait
from embedding_operator.objects.views import PodView

_MARGIN: Final = timedelta(seconds=60)  # a kubelet that lives reports within seconds
_ENDED: Final = ("Succeeded", "Failed")
NODE_LOST: Final = "NodeLost"


def lost_node(pods: Iterable[PodView], now: datetime) -> Wait | None:
    """A pod that is still there after its grace period is on a node whose kubelet does not answer.

    Kubernetes never removes such a pod by itself: the node may have lost its network alone, and the pod may still
    write to the volume.
    """
    for pod in pods:
        if pod.phase in _ENDED:  # its end was confirmed, and a finalizer of somebody keeps the object
            continue
        if pod.gone_by is not None and now > pod.gone_by + _MARGIN:
            message = (
                f"pod {pod.name} was asked to end, and node {pod.node} does not confirm that it has: if the machine is "
                f"off or gone, remove the Node object, or give it the taint node.kubernetes.io/out-of-service:NoExecute"
            )
            return Wait(reason=NODE_LOST, message=message, broken=True)
    return None
