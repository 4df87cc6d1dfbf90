"""What a waiting pod is told to change: claims, quotas, GPUs, sidecars and lost nodes."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from unit.operator.builders import NOON, a_job, a_job_of_several, a_pod, a_spec
from unit.operator.waits import FROM_PVC, SPEC, event

from embedding_operator.decide.lost import lost_node
from embedding_operator.decide.waiting import explain_overtime, explain_wait, explain_waits
from embedding_stages.contract import Stage


@pytest.mark.parametrize(
    ("claim", "field"),
    [("docs", "spec.corpus.source.pvc.claimName"), ("w", "spec.baseModel.source.pvc.claimName")],
)
def test_a_claim_is_named_by_the_source_that_asks_for_it(claim: str, field: str) -> None:
    wait = explain_wait(a_pod(unschedulable=f'persistentvolumeclaim "{claim}" not found'), (), FROM_PVC, Stage.INPUTS)
    assert wait.message.startswith(f"{field}: ")


def test_the_workspace_of_our_own_is_nobodys_mistake() -> None:
    pod = a_pod(unschedulable='persistentvolumeclaim "handbook-workspace" not found')
    wait = explain_wait(pod, (), FROM_PVC, Stage.SDG)
    assert (wait.reason, wait.broken) == ("VolumeMissing", False)


def test_what_is_missing_is_said_rather_than_that_there_is_no_room() -> None:
    pod = a_pod(unschedulable='0/2 nodes: 1 Insufficient nvidia.com/gpu, persistentvolumeclaim "labelled" not found')
    assert explain_wait(pod, (), SPEC, Stage.INPUTS).reason == "VolumeMissing"


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        (
            "must specify limits.cpu for: stage; limits.memory for: stage",
            "give limits.cpu, limits.memory in spec.stages.sdg.resources",
        ),
        (
            "must specify limits.cpu for: istio-proxy,stage; requests.memory for: istio-proxy",
            "give limits.cpu in spec.stages.sdg.resources; container istio-proxy is not the operator's",
        ),
    ],
)
def test_what_a_quota_wants_to_be_said_is_named_by_its_field(refusal: str, said: str) -> None:
    text = f'Error creating: pods "a" is forbidden: failed quota: compute: {refusal}'
    wait = explain_waits(a_job(pods=()), {"uid-job": event("FailedCreate", text)}, SPEC)
    assert (wait.reason, wait.broken) == ("PodCreationFailed", True)
    assert said in wait.message
    assert refusal in wait.message


def test_a_sidecar_that_outlives_its_stage_is_named() -> None:
    done = a_pod(started=True, exit_code=0, ended=NOON, sidecars=("istio-proxy",))
    later = NOON + timedelta(minutes=1)
    wait = explain_overtime(a_job(pods=(done,)), later)
    assert wait is not None
    assert wait.reason == "SidecarRunning"
    assert "istio-proxy" in wait.message
    assert explain_overtime(a_job(pods=(done,)), NOON + timedelta(seconds=5)) is None
    assert explain_overtime(a_job(pods=(replace(done, sidecars=()),)), later) is None
    assert explain_overtime(a_job(pods=(replace(done, exit_code=None, ended=None),)), later) is None
    running = a_pod(index=1, started=True, sidecars=("istio-proxy",))
    assert explain_overtime(a_job_of_several(done, running), later) is None
    assert explain_overtime(a_job_of_several(done), later) is None


NO_GPU = {"unschedulable": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."}
FOUR_GPUS = {"gpusPerNode": 4}
AMD = {"resources": {"limits": {"amd.com/gpu": 1}}}


@pytest.mark.parametrize(
    ("stages", "stage", "resource", "said"),
    [
        (
            {},
            Stage.PREP,
            "nvidia.com/gpu",
            "set nvidia.com/gpu: 0 in resources.limits of spec.stages.prep, spec.stages.finetune, spec.stages.eval",
        ),
        (
            {"prep": {"resources": {"limits": {"nvidia.com/gpu": 0}}}, "deploy": {"backend": {"torch": {}}}},
            Stage.FINETUNE,
            "nvidia.com/gpu",
            "in resources.limits of spec.stages.finetune, spec.stages.eval, spec.stages.deploy",
        ),
        ({"finetune": FOUR_GPUS}, Stage.FINETUNE, "nvidia.com/gpu", "lower spec.stages.finetune.gpusPerNode"),
        ({"finetune": AMD}, Stage.FINETUNE, "amd.com/gpu", "no node has a free amd.com/gpu"),
    ],
)
def test_a_wait_for_a_gpu_says_how_to_run_without(stages: Any, stage: Stage, resource: str, said: str) -> None:
    pod = a_pod(unschedulable=f"0/1 nodes are available: 1 Insufficient {resource}.")
    wait = explain_wait(pod, (), a_spec(stages=stages), stage)
    assert wait.reason == "GPUUnschedulable"
    assert said in wait.message


def test_a_nim_is_not_told_to_run_without_a_gpu() -> None:
    pod = a_pod(unschedulable="0/1 nodes are available: 1 Insufficient nvidia.com/gpu.")
    wait = explain_wait(pod, (), SPEC, Stage.DEPLOY)
    assert "spec.stages.deploy" not in wait.message.split("to run without")[1]


def test_where_only_a_nim_asks_for_a_gpu_nothing_can_run_without() -> None:
    none = {"resources": {"limits": {"nvidia.com/gpu": 0}}}
    nim = {"image": "nim:1", "backend": {"nim": {}}}
    spec = a_spec(stages=dict.fromkeys(("prep", "finetune", "eval"), none) | {"deploy": nim})
    wait = explain_wait(a_pod(**NO_GPU), (), spec, Stage.DEPLOY)
    assert wait.message.endswith("; wait, or add a node")


def test_a_shared_workspace_is_not_blamed_for_a_volume_of_somebody_else() -> None:
    attached = event("FailedAttachVolume", 'Multi-Attach error for volume "pvc-1" Volume is already used by pod(s) x')
    spec = a_spec(storage={"accessModes": ["ReadWriteMany"]})
    assert explain_wait(a_pod(), attached, spec, Stage.INPUTS).reason == "FailedAttachVolume"
    assert "or the claim of a source" in explain_wait(a_pod(), attached, SPEC, Stage.INPUTS).message
    assert "of a source" not in explain_wait(a_pod(), attached, SPEC, Stage.SDG).message


@pytest.mark.parametrize(("phase", "lost"), [("Running", True), ("Failed", False), ("Succeeded", False)])
def test_a_pod_whose_end_was_confirmed_is_on_no_lost_node(phase: str, lost: bool) -> None:
    """A finalizer of somebody else may keep it for long."""
    pod = a_pod(phase=phase, deleting=True, gone_by=NOON)
    assert (lost_node([pod], NOON + timedelta(hours=1)) is not None) is lost
