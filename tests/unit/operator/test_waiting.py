"""Kubernetes' words for what is missing (as 1.34 says them), and the manifest's."""

from __future__ import annotations

from typing import Any

import pytest
from unit.operator.builders import a_pod
from unit.operator.waits import PREEMPTION, SPEC, event, mount

from embedding_operator.decide.waiting import explain_wait
from embedding_operator.objects.views import EventView
from embedding_stages.contract import Stage

CASES: list[tuple[str, Stage, dict[str, Any], list[EventView], str, str, bool]] = [
    (
        "a claim that the scheduler misses",
        Stage.INPUTS,
        {"unschedulable": f'0/1 nodes are available: persistentvolumeclaim "labelled" not found. {PREEMPTION}'},
        [],
        "VolumeMissing",
        "spec.evaluation.beir.pvc.claimName: PersistentVolumeClaim 'labelled'",
        True,
    ),
    (
        "a claim that goes",
        Stage.SDG,
        {"unschedulable": '0/1 nodes are available: persistentvolumeclaim "shared" is being deleted. not found'},
        [],
        "DeletionStuck",
        "spec.storage.existingClaim: PersistentVolumeClaim 'shared' is being deleted",
        True,
    ),
    (
        "a claim for the workspace",
        Stage.SDG,
        {"unschedulable": '0/1 nodes are available: persistentvolumeclaim "shared" not found. not found'},
        [],
        "VolumeMissing",
        "spec.storage.existingClaim",
        True,
    ),
    (
        "a ConfigMap that the kubelet misses",
        Stage.INPUTS,
        {"waiting_reason": "ContainerCreating"},
        mount('configmap "docs" not found'),
        "ConfigMapMissing",
        "spec.corpus.source.configMap.name: ConfigMap 'docs'",
        True,
    ),
    (
        "a Secret that the kubelet misses",
        Stage.SDG,
        {"waiting_reason": "ContainerCreating"},
        mount('secret "llm" not found'),
        "SecretMissing",
        "spec.stages.sdg.provider.openAI.apiKeySecretRef.name: Secret 'llm'",
        True,
    ),
    (
        "a key that the LLM's Secret lacks",
        Stage.SDG,
        {},
        mount("references non-existent secret key: token"),
        "SecretKeyMissing",
        "spec.stages.sdg.provider.openAI.apiKeySecretRef.key",
        True,
    ),
    (
        "a ConfigMap with certificates",
        Stage.SDG,
        {"waiting_reason": "ContainerCreating"},
        mount('configmap "pki" not found'),
        "ConfigMapMissing",
        "spec.stages.sdg.provider.openAI.caBundle.name: ConfigMap 'pki'",
        True,
    ),
    (
        "a key that the ConfigMap with certificates lacks",
        Stage.SDG,
        {"waiting_reason": "ContainerCreating"},
        mount("configmap references non-existent config key: ca.crt"),
        "ConfigMapKeyMissing",
        "spec.stages.sdg.provider.openAI.caBundle.key: the ConfigMap has no key 'ca.crt'",
        True,
    ),
    (
        "a ConfigMap with the hub's certificates, beside one with documents",
        Stage.INPUTS,
        {"waiting_reason": "ContainerCreating"},
        mount('configmap "mirrors" not found'),
        "ConfigMapMissing",
        "spec.baseModel.source.huggingFace.caBundle.name: ConfigMap 'mirrors'",
        True,
    ),
    (
        "a key that the ConfigMap with the hub's certificates lacks",
        Stage.INPUTS,
        {"waiting_reason": "ContainerCreating"},
        mount("configmap references non-existent config key: ca.crt"),
        "ConfigMapKeyMissing",
        "spec.baseModel.source.huggingFace.caBundle.key: the ConfigMap has no key 'ca.crt'",
        True,
    ),
    (
        "a key of the same name that the hub's Secret lacks",
        Stage.INPUTS,
        {},
        mount("references non-existent secret key: token"),
        "SecretKeyMissing",
        "spec.baseModel.source.huggingFace.tokenSecretRef.key",
        True,
    ),
    (
        "a Secret for a variable",
        Stage.DEPLOY,
        {"waiting_reason": "CreateContainerConfigError", "waiting_message": 'secret "ngc" not found'},
        [],
        "SecretMissing",
        "spec.stages.deploy.backend.nim.ngcKeySecretRef.name",
        True,
    ),
    (
        "a key for a variable",
        Stage.DEPLOY,
        {
            "waiting_reason": "CreateContainerConfigError",
            "waiting_message": "couldn't find key apikey in Secret team-a/ngc",
        },
        [],
        "SecretKeyMissing",
        "spec.stages.deploy.backend.nim.ngcKeySecretRef.key",
        True,
    ),
    (
        "another configuration error",
        Stage.SDG,
        {"waiting_reason": "CreateContainerConfigError", "waiting_message": "container has runAsNonRoot"},
        [],
        "CreateContainerConfigError",
        "runAsNonRoot",
        True,
    ),
    *(
        (
            f"an image: {reason}",
            Stage.PREP,
            {"waiting_reason": reason, "waiting_message": 'Back-off pulling image "x:1": not found'},
            [],
            "ImagePullFailed",
            "spec.stages.prep.image",
            True,
        )
        for reason in ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")
    ),
    (
        "a GPU",
        Stage.FINETUNE,
        {"unschedulable": f"0/3 nodes are available: 3 Insufficient nvidia.com/gpu. {PREEMPTION}"},
        [],
        "GPUUnschedulable",
        "in resources.limits of spec.stages.prep, spec.stages.finetune",
        False,
    ),
    (
        "memory",
        Stage.FINETUNE,
        {"unschedulable": f"0/3 nodes are available: 3 Insufficient memory. {PREEMPTION}"},
        [],
        "Unschedulable",
        "Insufficient memory",
        False,
    ),
    (
        "a node that was drained",
        Stage.SDG,
        {"unschedulable": f"0/1 nodes are available: 1 node(s) were unschedulable. {PREEMPTION}"},
        [],
        "Unschedulable",
        "; wait, add a node, or uncordon one (kubectl uncordon)",
        False,
    ),
    *(
        (
            f"a workspace that is elsewhere: {text[:30]}",
            Stage.FINETUNE,
            {"unschedulable": text},
            [],
            reason,
            said,
            False,
        )
        for text, reason, said in (
            (
                "0/2 nodes are available: 1 Insufficient nvidia.com/gpu, 1 node(s) didn't match pod affinity rules.",
                "WorkspaceOnAnotherNode",
                "spec.storage.accessModes",
            ),
            (
                "0/2 nodes are available: 1 node(s) had volume node affinity conflict, 1 Insufficient nvidia.com/gpu.",
                "VolumeOnAnotherNode",
                "spec.stages.finetune.nodeSelector",
            ),
            (
                "0/2 nodes are available: 2 node(s) didn't match PersistentVolume's node affinity.",
                "VolumeOnAnotherNode",
                "spec.stages.finetune.nodeSelector",
            ),
        )
    ),
    (
        "a volume that another node has attached",
        Stage.VERIFY,
        {"waiting_reason": "ContainerCreating"},
        event("FailedAttachVolume", 'Multi-Attach error for volume "pvc-1" Volume is already used by pod(s) s-1'),
        "WorkspaceOnAnotherNode",
        "spec.storage.accessModes",
        False,
    ),
    ("a volume that is mounted", Stage.SDG, {}, event("AlreadyMountedVolume"), "PodStarting", "pod-1", False),
    *(
        ("a volume", Stage.INPUTS, {"unschedulable": text}, [], "VolumeUnbound", "spec.storage", False)
        for text in (
            f"0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims. {PREEMPTION}",
            "0/1 nodes are available: 1 node(s) didn't find available persistent volumes to bind.",
        )
    ),
    (
        "a container that a mesh put in",
        Stage.SDG,
        {"waiting_reason": "PodInitializing", "blocked_by": "container istio-init ended with exit code 1: no iptables"},
        event("BackOff"),
        "InjectedContainerBlocks",
        "container istio-init ended with exit code 1: no iptables",
        False,
    ),
    (
        "a container that a mesh put in, at work",
        Stage.SDG,
        {"blocked_by": "container istio-init is not done yet"},
        [],
        "PodStarting",
        "pod pod-1 is starting: container istio-init is not done yet",
        False,
    ),
    ("nothing in particular", Stage.SDG, {"waiting_reason": "ContainerCreating"}, [], "PodStarting", "pod-1", False),
    ("an Event of no interest", Stage.SDG, {}, event("Unhealthy", "Readiness"), "PodStarting", "pod-1", False),
    *(
        (
            f"an Event of no known words: {reason}",
            Stage.SDG,
            {},
            event(reason),
            reason,
            "does not start: it is so",
            False,
        )
        for reason in ("FailedAttachVolume", "FailedMount", "FailedCreatePodSandBox", "NetworkNotReady")
    ),
    (
        "a scheduler that says more than an Event",
        Stage.FINETUNE,
        {"unschedulable": "0/3 nodes are available: 3 Insufficient memory."},
        event("FailedMount"),
        "Unschedulable",
        "Insufficient memory",
        False,
    ),
]


@pytest.mark.parametrize(
    ("stage", "pod", "warnings", "reason", "text", "broken"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
def test_it_is_said_which_field_a_pod_waits_for(
    stage: Stage, pod: dict[str, Any], warnings: list[EventView], reason: str, text: str, broken: bool
) -> None:
    wait = explain_wait(a_pod(**pod), warnings, SPEC, stage)
    assert (wait.reason, wait.broken) == (reason, broken)
    assert text in wait.message
