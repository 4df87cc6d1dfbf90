"""What the containers of a pod say when they end: our stages their result, everybody else's nothing."""

from __future__ import annotations

import sys

from bench.scale.api import Raw
from bench.scale.process import ROOT

for part in ("operator", "stage_images", "tests"):
    if str(ROOT / part) not in sys.path:
        sys.path.append(str(ROOT / part))

from simulation.pods import request_of  # noqa: E402
from simulation.work import do_work  # noqa: E402

from embedding_operator.resource.labels import IMAGE_CHECK_LABEL, OWNER_UID_LABEL, STAGE_LABEL  # noqa: E402

WORKFLOW_LABEL = "workflows.argoproj.io/workflow"


def is_bare(pod: Raw) -> bool:
    """A pod that no Job and no Deployment makes: the one that tries images, and Argo's steps."""
    labels = pod["metadata"].get("labels") or {}
    return IMAGE_CHECK_LABEL in labels or WORKFLOW_LABEL in labels


def tries_images(pod: Raw) -> bool:
    return IMAGE_CHECK_LABEL in (pod["metadata"].get("labels") or {})


def result_of(job: Raw, corpus: str) -> tuple[int, str]:
    """Exit code and termination message."""
    if STAGE_LABEL not in (job["metadata"].get("labels") or {}):
        return 0, ""
    request = request_of({"spec": job["spec"]["template"]["spec"]})
    volume = {ref.path: ref.digest for ref in request.inputs.values()}
    code, result = do_work(request, volume, corpus, 0.0, 0)
    return int(code), result.to_json()


def identity_of(job: Raw) -> dict[str, str]:
    """Which work a Job does: whatever has all of this in common must run once."""
    labels = job["metadata"].get("labels") or {}
    if STAGE_LABEL not in labels:
        return {"stage": job["metadata"]["name"], "fingerprint": ""}
    request = request_of({"spec": job["spec"]["template"]["spec"]})
    return {"stage": request.stage.value, "fingerprint": request.fingerprint, "owner": labels[OWNER_UID_LABEL]}
