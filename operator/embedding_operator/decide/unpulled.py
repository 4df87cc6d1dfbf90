"""What goes no further because an image does not come: a Job, or a server none of whose pods has started. Pure."""

from __future__ import annotations

from datetime import datetime

from embedding_operator.decide.lost import ENDED
from embedding_operator.decide.pulling import IMAGE_REASONS, PATIENCE_S, cause_of, lasts
from embedding_operator.objects.manifests.sources import COPY_PREFIX
from embedding_operator.objects.pods import PodView
from embedding_operator.objects.views import DeploymentView, JobView


def lacks_its_image(job: JobView, now: datetime) -> bool:
    """Whether the stage's own image does not come to one of the Job's pods: the others wait for that one."""
    if job.finished or job.deleting:
        return False
    waits = (pod for pod in job.pods if not pod.started and _waits_in_vain(pod, now))
    return any(not pod.waiting_container.startswith(COPY_PREFIX) for pod in waits)


def keeps_its_images(server: DeploymentView) -> bool:
    """Whether a pod of the server has come up with them: it is not moved to others for the sake of the rest."""
    return server.available > 0 or any(pod.started for pod in _there(server))


def lacking(server: DeploymentView, now: datetime) -> frozenset[str]:
    """The containers of a server's pods whose images do not come."""
    return frozenset(pod.waiting_container for pod in _there(server) if _waits_in_vain(pod, now))


def _there(server: DeploymentView) -> list[PodView]:
    return [pod for pod in server.pods if not pod.deleting and pod.phase not in ENDED]


def _waits_in_vain(pod: PodView, now: datetime) -> bool:
    """A registry that may only be away is given time: what was settled may come in a moment."""
    if pod.waiting_reason not in IMAGE_REASONS:
        return False
    late = (now - pod.created).total_seconds() >= PATIENCE_S
    return late or lasts(pod.waiting_reason, cause_of(pod.waiting_message))
