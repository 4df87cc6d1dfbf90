"""What is said of images, nodes, several pods and Events that a stage waits for."""

from __future__ import annotations

from typing import Any

import pytest
from unit.operator.builders import IMAGES, a_job, a_job_of_several, a_manifest, a_pod
from unit.operator.waits import PREEMPTION, SPEC, event, mount

from embedding_operator.decide.waiting import explain_wait, explain_waits
from embedding_operator.objects.views import EventView
from embedding_operator.resource.spec import parse_spec
from embedding_stages.contract import Stage

BACK_OFF = 'Back-off pulling image "r/x:1": ErrImagePull: '
CAUSE = "rpc error: code = NotFound desc = r/x:1: not found"
OWN = parse_spec(
    a_manifest(
        baseModel={"name": "m", "source": {"image": {"reference": "r/x:1", "path": "/m"}}},
        stages={"finetune": {"image": "r/x:1"}},
    ),
    IMAGES,
)
PULLS: dict[str, tuple[Stage, str, tuple[str, ...]]] = {
    "a source": (Stage.INPUTS, "copy-model", ("spec.baseModel.source.image.reference: ", "correct the reference")),
    "a stage's own": (Stage.FINETUNE, "stage", ("spec.stages.finetune.image: ", "correct the reference")),
    "the tools of a stage": (Stage.FINETUNE, "tools", ("spec.stages.finetune.image: ", "correct the reference")),
    "the operator's": (Stage.EVAL, "stage", ("spec.stages.eval.image: ", "registry, tag or stageImages of its chart")),
    "the server's check": (
        Stage.DEPLOY,
        "check-artefact",
        ("the check of the model", "stageImages.serve of its chart"),
    ),
}


@pytest.mark.parametrize("row", PULLS)
def test_an_image_that_cannot_be_pulled_is_named_by_its_field_in_words_that_stay(row: str) -> None:
    """The kubelet tells the cause, and the pause before it tries again, in turns."""
    stage, container, told = PULLS[row]
    found = {
        explain_wait(a_pod(waiting_reason=reason, waiting_message=text, waiting_container=container), [], OWN, stage)
        for reason, text in (("ErrImagePull", CAUSE), ("ImagePullBackOff", f"{BACK_OFF}{CAUSE}"))
    }
    (wait,) = found
    assert (wait.reason, wait.broken) == ("ImagePullFailed", True)
    for text in (*told, CAUSE, "spec.imagePullSecrets"):
        assert text in wait.message


UNFIT: dict[str, tuple[str, ...]] = {
    "2 node(s) didn't match Pod's node affinity/selector": ("correct spec.stages.prep.nodeSelector",),
    "1 node(s) had untolerated taint {gpu: }": ("name the taint in spec.stages.prep.tolerations",),
    "1 Insufficient memory": ("lower spec.stages.prep.resources.requests",),
    "1 Insufficient cpu, 1 node(s) had untolerated taint {a: b}": ("tolerations", "resources.requests"),
}


@pytest.mark.parametrize("words", UNFIT)
def test_where_no_node_fits_the_field_is_named_that_asks_for_it(words: str) -> None:
    wait = explain_wait(a_pod(unschedulable=f"0/2 nodes are available: {words}. {PREEMPTION}"), [], SPEC, Stage.PREP)
    assert (wait.reason, wait.broken) == ("Unschedulable", False)
    for text in (words, "wait, add a node, or", *UNFIT[words]):
        assert text in wait.message


NO_GPU = {"unschedulable": f"0/3 nodes are available: 3 Insufficient nvidia.com/gpu. {PREEMPTION}"}
NO_IMAGE = {"waiting_reason": "ErrImagePull", "waiting_message": "not found"}


@pytest.mark.parametrize(
    ("pods", "reason", "message"),
    [
        ([{"started": True}, NO_GPU], "GPUUnschedulable", "1 of 2 pods wait: no node has a free nvidia.com/gpu"),
        ([NO_GPU, {"started": True}], "GPUUnschedulable", "lower spec.stages.finetune.gpusPerNode or nodes"),
        ([NO_GPU, NO_IMAGE], "ImagePullFailed", "2 of 2 pods wait"),
        ([{}, NO_GPU], "GPUUnschedulable", "2 of 2 pods wait"),
        ([NO_GPU], "GPUUnschedulable", "2 of 2 pods wait"),
        ([{"started": True}], "PodPending", "1 of 2 pods wait"),
        ([], "PodPending", "2 of 2 pods wait"),
        ([{"started": True}, {}], "PodStarting", "1 of 2 pods wait: pod pod-1 is starting"),
    ],
)
def test_a_job_of_several_nodes_waits_for_the_worst_of_its_pods(pods: Any, reason: str, message: str) -> None:
    job = a_job_of_several(*(a_pod(index=index, **pod) for index, pod in enumerate(pods)))
    wait = explain_waits(job, {}, SPEC)
    assert (wait.reason, wait.broken) == (reason, reason == "ImagePullFailed")
    assert message in wait.message


def test_events_belong_to_the_pod_that_they_are_about() -> None:
    job = a_job_of_several(a_pod(index=0, uid="a", started=True), a_pod(index=1, uid="b"))
    missing = mount('persistentvolumeclaim "shared" not found')
    assert explain_waits(job, {"a": missing}, SPEC).reason == "PodStarting"
    assert explain_waits(job, {"b": missing}, SPEC).reason == "VolumeMissing"


@pytest.mark.parametrize(
    ("warnings", "reason", "broken"),
    [
        ([], "PodPending", False),
        (event("Other", "of no interest"), "PodPending", False),
        (event("FailedCreate", 'pods "a" is forbidden: exceeded quota: q, requested: cpu=1'), "WaitingForQuota", False),
        (event("FailedCreate", 'pods "a" is forbidden: violates PodSecurity "restricted"'), "PodCreationFailed", True),
        (event("FailedCreate", 'failed calling webhook "x": connection refused'), "PodCreationFailed", False),
    ],
)
def test_a_pod_that_is_not_there_is_explained_by_its_jobs_events(
    warnings: list[EventView], reason: str, broken: bool
) -> None:
    wait = explain_waits(a_job(pods=()), {"uid-job": warnings}, SPEC)
    assert (wait.reason, wait.broken) == (reason, broken)
    assert reason == "PodPending" or warnings[0].message.replace('pods "a"', "the pod") in wait.message


UNBOUND = "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims."
DOCUMENTS, MODEL = "spec.corpus.source.pvc.claimName", "spec.baseModel.source.pvc.claimName"
WORKSPACE, EXISTING = "spec.storage: the workspace claim", "spec.storage.existingClaim"


@pytest.mark.parametrize(
    ("storage", "stage", "told", "not_told"),
    [
        ({}, Stage.INPUTS, (WORKSPACE, DOCUMENTS, MODEL), (EXISTING,)),
        ({}, Stage.SDG, (WORKSPACE,), (DOCUMENTS, MODEL)),
        ({"existingClaim": "mine"}, Stage.INPUTS, (EXISTING, DOCUMENTS, MODEL), (WORKSPACE, "storageClassName")),
        ({"existingClaim": "mine"}, Stage.SDG, (EXISTING,), (DOCUMENTS, MODEL, "storageClassName")),
    ],
)
def test_every_claim_that_may_be_unbound_is_named(
    storage: dict[str, Any], stage: Stage, told: tuple[str, ...], not_told: tuple[str, ...]
) -> None:
    """The scheduler does not say which one it is."""
    sources = {
        "corpus": {"source": {"pvc": {"claimName": "docs"}}},
        "baseModel": {"name": "m", "source": {"pvc": {"claimName": "models"}}},
    }
    spec = parse_spec(a_manifest(**sources, **({"storage": storage} if storage else {})), IMAGES)
    wait = explain_wait(a_pod(unschedulable=UNBOUND), [], spec, stage)
    assert wait.reason == "VolumeUnbound"
    for text in told:
        assert text in wait.message
    for text in not_told:
        assert text not in wait.message
