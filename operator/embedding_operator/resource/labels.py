"""Labels and annotations of the objects that the operator makes: their identity. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from embedding_operator.resource.api import GROUP

MANAGED_BY_LABEL: Final = "app.kubernetes.io/managed-by"
PART_OF_LABEL: Final = "app.kubernetes.io/part-of"
OWN_LABELS: Final = frozenset({MANAGED_BY_LABEL, PART_OF_LABEL})  # beside all of GROUP
OWNER_LABEL: Final = f"{GROUP}/owner"
OWNER_UID_LABEL: Final = f"{GROUP}/owner-uid"
STAGE_LABEL: Final = f"{GROUP}/stage"
ATTEMPT_LABEL: Final = f"{GROUP}/attempt"
REVISION_LABEL: Final = f"{GROUP}/revision"
IMAGE_CHECK_LABEL: Final = f"{GROUP}/image-check"  # of the pod that tries the images of a revision
IMAGES_ANNOTATION: Final = f"{GROUP}/images"  # of that pod: which ones, a list in JSON
RECORD_LABEL: Final = f"{GROUP}/record"  # of ConfigMaps: contract, or revision
SERVING_LABEL: Final = f"{GROUP}/serving"
WORKSPACE_LABEL: Final = f"{GROUP}/workspace"  # of every pod that mounts the claim; see manifests/common.py
JOB_NAME_LABEL: Final = "batch.kubernetes.io/job-name"  # Kubernetes sets both in the pods of a Job
INDEX_ANNOTATION: Final = "batch.kubernetes.io/job-completion-index"  # of an Indexed Job
FINGERPRINT_ANNOTATION: Final = f"{GROUP}/fingerprint"
TEMPLATE_ANNOTATION: Final = f"{GROUP}/template"
GPUS_ANNOTATION: Final = f"{GROUP}/gpus"  # of a stage's pod: how many GPUs, or parts of one, it has
SUSPENDED_ANNOTATION: Final = f"{GROUP}/suspended-by-revision"  # of a Job that spec.suspend of this revision suspended
RESUMED_ANNOTATION: Final = f"{GROUP}/resumed-in-revision"  # of one that somebody else let run in spite of that
QUEUE_LABEL: Final = "kueue.x-k8s.io/queue-name"  # of a Job that Kueue suspends and resumes
QUEUE_PRIORITY_LABEL: Final = "kueue.x-k8s.io/priority-class"
QUEUE_LABELS: Final = frozenset({QUEUE_LABEL, QUEUE_PRIORITY_LABEL})
QUEUED_JOB_LABEL: Final = "kueue.x-k8s.io/job-uid"  # Kueue sets it in the Workload that it makes of a Job


def noted_revision(notes: Mapping[str, str], annotation: str) -> int | None:
    """The revision that an annotation names; None where it is not there, or somebody has written something else."""
    noted = notes.get(annotation, "")
    return int(noted) if noted.isdigit() else None
