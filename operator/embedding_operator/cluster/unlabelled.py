"""Objects of ours whose labels somebody took off: no watch tells of them, and they hold what they hold."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from embedding_operator.cluster.client import Cluster
from embedding_operator.objects.manifests.common import Owner
from embedding_operator.objects.manifests.serving import serving_label, serving_name
from embedding_operator.objects.views import JobView
from embedding_operator.resource.labels import (
    ATTEMPT_LABEL,
    FINGERPRINT_ANNOTATION,
    JOB_NAME_LABEL,
    REVISION_LABEL,
    SERVING_LABEL,
    STAGE_LABEL,
)
from embedding_operator.resource.status import Served, StageStatus

Raw = Mapping[str, Any]


def missing_servers(owner: Owner, served: Served, known: Collection[str]) -> dict[str, str]:
    """Fingerprint by name of what answers clients, or did until they left it, and is not among the `known` names."""
    left = (served.active_fingerprint, served.draining_fingerprint)
    names = {serving_name(owner.name, fingerprint): fingerprint for fingerprint in left if fingerprint}
    return {name: fingerprint for name, fingerprint in names.items() if name not in known}


def servers(cluster: Cluster, owner: Owner, missing: Mapping[str, str]) -> Iterator[Raw]:
    """Their Deployments, with the label that they should have. Raises ClusterError."""
    for name, fingerprint in missing.items():
        live = cluster.get("Deployment", owner.namespace, name)
        if live is not None and owner.owns(live):
            yield _labelled(live, {SERVING_LABEL: serving_label(fingerprint)}, {})


def job(cluster: Cluster, owner: Owner, item: StageStatus) -> Raw | None:
    """The Job that a stage's status names, with the labels that it should have; None where it is gone. Raises
    ClusterError.
    """
    live = cluster.get("Job", owner.namespace, item.job_name)
    if live is None or not owner.owns(live):
        return None
    labels = {STAGE_LABEL: item.name.value, ATTEMPT_LABEL: str(item.attempt), REVISION_LABEL: str(item.revision)}
    return _labelled(live, labels, {FINGERPRINT_ANNOTATION: item.fingerprint})


def pods(cluster: Cluster, owner: Owner, jobs: Iterable[JobView], known: Sequence[Raw]) -> list[Raw]:
    """Pods of these Jobs that are not `known`, by the label of Kubernetes itself. Raises ClusterError."""
    uids = {pod["metadata"]["uid"] for pod in known}
    return [
        raw
        for view in jobs
        for raw in cluster.list("Pod", owner.namespace, labels=f"{JOB_NAME_LABEL}={view.name}")
        if _is_of(raw, view) and raw["metadata"]["uid"] not in uids
    ]


def _labelled(live: Raw, labels: Mapping[str, str], annotations: Mapping[str, str]) -> Raw:
    """With these where it has none of its own."""
    meta = live["metadata"]
    told = {
        "labels": {**labels, **(meta.get("labels") or {})},
        "annotations": {**annotations, **(meta.get("annotations") or {})},
    }
    return {**live, "metadata": {**meta, **told}}


def _is_of(raw: Raw, of: JobView) -> bool:
    return any(reference["uid"] == of.uid for reference in raw["metadata"].get("ownerReferences") or ())
