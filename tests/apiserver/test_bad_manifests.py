"""Manifests that only a cluster knows to be bad, and what the operator says of them: the field, and what cures it.

What admission refuses is the real server's own answer. What the scheduler and the kubelet say is put into the pod's
status and into Events in their words (Kubernetes 1.34), since neither runs here; what stages say is in the table of
tests/unit/stages/test_inputs_refused.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from apiserver.api import EFT, Api, at, resource, until
from apiserver.chart import install
from apiserver.controllers import NOW, PATHS, Controllers
from apiserver.process import Operator

from embedding_operator.resource.labels import JOB_NAME_LABEL
from embedding_stages.contract import Stage

Raw = dict[str, Any]


@pytest.fixture(scope="module")
def operator(api: Api) -> Iterator[Operator]:
    """One for all rows: each has a namespace of its own."""
    found = Operator(api, install(api, namespace="operator-of-bad-manifests"))
    found.start()
    yield found
    found.kill()


def condition(api: Api, namespace: str, kind: str) -> dict[str, Any]:
    status, answer = api.send("GET", f"{EFT.format(namespace)}/docs")
    assert status == 200, answer
    return next((dict(item) for item in answer["status"].get("conditions", ()) if item["type"] == kind), {})


def limits(stage: str, **said: Any) -> Raw:
    return at(f"stages.{stage}.resources", said)


ABOVE = {"requests": {"memory": "4Gi"}, "limits": {"memory": "1Gi"}}
LIMIT_RANGE: Raw = {
    "path": "/api/v1/namespaces/{}/limitranges",
    "apiVersion": "v1",
    "kind": "LimitRange",
    "metadata": {"name": "small"},
    "spec": {"limits": [{"type": "Container", "max": {"cpu": "100m"}}]},
}
STRANGER: Raw = {
    "path": PATHS["Service"],
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "docs"},
    "spec": {"selector": {"app": "theirs"}, "ports": [{"port": 80}]},
}
# row -> patch of the manifest, objects that are there, reason, what is said
AT_ADMISSION: dict[str, tuple[Raw, list[Raw], str, tuple[str, ...]]] = {
    "a PriorityClass that is not there": (
        at("stages.inputs.priorityClassName", "no-such"),
        [],
        "Rejected",
        ("spec.stages.inputs.priorityClassName", "'no-such' does not exist; create it or correct the field"),
    ),
    "a PriorityClass of a later stage": (
        at("stages.finetune.priorityClassName", "no-such"),
        [],
        "Rejected",
        ("spec.stages.finetune.priorityClassName", "'no-such' does not exist; create it or correct the field"),
    ),
    "a RuntimeClass of the server": (
        at("stages.deploy.runtimeClassName", "no-such"),
        [],
        "Rejected",
        ("spec.stages.deploy.runtimeClassName", "'no-such' does not exist; create it or correct the field"),
    ),
    "a request above its limit": (
        limits("inputs", **ABOVE),
        [],
        "Rejected",
        ("set spec.stages.inputs.resources.limits.memory to 4Gi or more",),
    ),
    "a request above its limit in a later stage": (
        limits("finetune", **ABOVE),
        [],
        "Rejected",
        ("stage finetune", "set spec.stages.finetune.resources.limits.memory to 4Gi or more"),
    ),
    "a maximum of the namespace": (
        limits("inputs", limits={"cpu": "2"}),
        [LIMIT_RANGE],
        "Rejected",
        ("set spec.stages.inputs.resources.limits.cpu to at most 100m",),
    ),
    "a time zone that is not known": (
        at("schedule", {"cron": "0 3 * * 1", "timeZone": "Mars/Olympus"}),
        [],
        "InvalidSpec",
        ("spec.schedule.timeZone", "'Mars/Olympus' is not in the IANA time zone database", "such as Europe/Berlin"),
    ),
    "a day that no month has": (
        at("schedule", {"cron": "0 3 31 2 *"}),
        [],
        "InvalidSpec",
        ("spec.schedule.cron", "'0 3 31 2 *'", "such as '0 3 * * 1' for Mondays at three"),
    ),
    "a Service of somebody else": (
        {},
        [STRANGER],
        "ForeignObject",
        ("Service", "rename this resource, or remove that object"),
    ),
}


@pytest.mark.parametrize("row", AT_ADMISSION)
def test_what_admission_refuses_is_said_before_anything_runs(
    api: Api, namespace: str, operator: Operator, row: str
) -> None:
    patch, others, reason, told = AT_ADMISSION[row]
    for other in others:
        body = {key: value for key, value in other.items() if key != "path"}
        api.make(str(other["path"]).format(namespace), body)
    api.make(EFT.format(namespace), resource(namespace, patch))
    found = until(
        f"{reason}, not {condition(api, namespace, 'Ready')}",
        lambda: (c := condition(api, namespace, "Ready")).get("status") == "False" and c["reason"] == reason and c,
    )
    for text in told:
        assert text in found["message"]
    assert Controllers(api, namespace).find("Job") == []
    assert operator.alive()


@dataclass(frozen=True)
class Stuck:
    """A pod that does not start, as the scheduler and the kubelet leave it."""

    unschedulable: str = ""
    waits: Raw = field(default_factory=dict)  # container -> state of it that waits
    warning: tuple[str, str] | None = None  # reason and message of an Event


NO_NODE = "preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
GPU = f"0/1 nodes are available: 1 Insufficient nvidia.com/gpu. {NO_NODE}"
PULL = 'rpc error: code = NotFound desc = failed to pull and unpack image "image:1": not found'
MODEL = {"pvc": None, "image": {"reference": "registry.test/model:1", "path": "/model"}}
# row -> patch, the stage, its pod, reason, whether somebody has to act, what is said
IN_A_POD: dict[str, tuple[Raw, Stage, Stuck, str, bool, tuple[str, ...]]] = {
    "a claim that is not there": (
        {},
        Stage.INPUTS,
        Stuck(unschedulable=f'0/1 nodes are available: persistentvolumeclaim "models" not found. {NO_NODE}'),
        "VolumeMissing",
        True,
        ("spec.baseModel.source.pvc.claimName", "'models' does not exist", "create it or correct the field"),
    ),
    "a ConfigMap that is not there": (
        {},
        Stage.INPUTS,
        Stuck(
            warning=("FailedMount", 'MountVolume.SetUp failed for volume "source-corpus" : configmap "docs" not found')
        ),
        "ConfigMapMissing",
        True,
        ("spec.corpus.source.configMap.name", "create it or correct the field", "within two minutes"),
    ),
    "an existing claim that is not there": (
        at("storage.existingClaim", "shared"),
        Stage.INPUTS,
        Stuck(unschedulable=f'0/1 nodes are available: persistentvolumeclaim "shared" not found. {NO_NODE}'),
        "VolumeMissing",
        True,
        ("spec.storage.existingClaim", "'shared' does not exist"),
    ),
    "an image of the chart that is not there": (
        {},
        Stage.INPUTS,
        Stuck(waits={"stage": {"reason": "ErrImagePull", "message": PULL}}),
        "ImagePullFailed",
        True,
        ("spec.stages.inputs.image", PULL, "correct registry, tag or stageImages of its chart"),
    ),
    "an image of the manifest that is not there": (
        at("stages.inputs.image", "registry.test/no-such:1"),
        Stage.INPUTS,
        Stuck(waits={"stage": {"reason": "ErrImagePull", "message": PULL}}),
        "ImagePullFailed",
        True,
        ("spec.stages.inputs.image", "correct the reference", "spec.imagePullSecrets"),
    ),
    "an image with the model that is not there": (
        at("baseModel.source", MODEL),
        Stage.INPUTS,
        Stuck(waits={"copy-model": {"reason": "ImagePullBackOff", "message": PULL}}),
        "ImagePullFailed",
        True,
        ("spec.baseModel.source.image.reference", "correct the reference"),
    ),
    "no GPU": (
        {},
        Stage.PREP,
        Stuck(unschedulable=GPU),
        "GPUUnschedulable",
        False,
        ("to run without, set nvidia.com/gpu: 0 in resources.limits of spec.stages.prep, spec.stages.finetune",),
    ),
    "no GPU of another vendor": (
        limits("prep", limits={"amd.com/gpu": 1}),
        Stage.PREP,
        Stuck(unschedulable=GPU.replace("nvidia", "amd")),
        "GPUUnschedulable",
        False,
        ("no node has a free amd.com/gpu", "set amd.com/gpu: 0 in resources.limits of spec.stages.prep"),
    ),
    "a label that no node has": (
        at("stages.inputs.nodeSelector", {"disk": "none"}),
        Stage.INPUTS,
        Stuck(unschedulable=f"0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector. {NO_NODE}"),
        "Unschedulable",
        False,
        ("correct spec.stages.inputs.nodeSelector",),
    ),
    "more memory than any node has": (
        limits("inputs", requests={"memory": "1Ti"}, limits={"memory": "1Ti"}),
        Stage.INPUTS,
        Stuck(unschedulable=f"0/1 nodes are available: 1 Insufficient memory. {NO_NODE}"),
        "Unschedulable",
        False,
        ("lower spec.stages.inputs.resources.requests",),
    ),
    "a StorageClass that is not there": (
        at("storage.storageClassName", "no-such"),
        Stage.INPUTS,
        Stuck(unschedulable=f"0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims. {NO_NODE}"),
        "VolumeUnbound",
        False,
        ("check spec.storage.storageClassName",),
    ),
}
LONG = {"GPUUnschedulable", "Unschedulable", "VolumeUnbound"}


def get_stuck(played: Controllers, job: Raw, stuck: Stuck) -> None:
    """Make the Job's pod, and leave it as the scheduler or the kubelet does."""
    name, template = job["metadata"]["name"], job["spec"]["template"]
    labels = {**template["metadata"]["labels"], JOB_NAME_LABEL: name}
    meta = {"name": f"{name}-pod", "namespace": played.namespace, "labels": labels}
    path = PATHS["Pod"].format(played.namespace)
    pod = played.api.make(path, {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": template["spec"]})
    status: Raw = {"phase": "Pending", "containerStatuses": [], "initContainerStatuses": []}
    if stuck.unschedulable:
        unfit = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": stuck.unschedulable}
        status["conditions"] = [unfit]
    for container, state in stuck.waits.items():
        kind = "containerStatuses" if container == "stage" else "initContainerStatuses"
        known = {"name": container, "image": "i", "imageID": "", "ready": False, "restartCount": 0}
        status[kind].append({**known, "state": {"waiting": state}})
    code, answer = played.api.send(
        "PATCH", f"{path}/{meta['name']}/status", {"status": status}, "application/merge-patch+json"
    )
    assert code == 200, answer
    if stuck.warning is not None:
        reason, message = stuck.warning
        about = {"kind": "Pod", "name": meta["name"], "namespace": played.namespace, "uid": pod["metadata"]["uid"]}
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": "e-", "namespace": played.namespace},
            "involvedObject": about,
            "type": "Warning",
            "reason": reason,
            "message": message,
            "lastTimestamp": NOW,
        }
        played.api.make(f"/api/v1/namespaces/{played.namespace}/events", event)


@pytest.mark.parametrize("row", IN_A_POD)
def test_what_a_pod_waits_for_is_said_by_its_field(api: Api, namespace: str, operator: Operator, row: str) -> None:
    patch, stage, stuck, reason, broken, told = IN_A_POD[row]
    played = Controllers(api, namespace, held={stage})
    api.make(EFT.format(namespace), resource(namespace, patch))
    until(f"a Job of {stage}", lambda: stage in played.stages(), [played.step])
    job = next(raw for raw in played.find("Job") if f"-{stage}-" in raw["metadata"]["name"])
    get_stuck(played, job, stuck)
    found = until(
        reason,
        lambda: (c := condition(api, namespace, "DataReady")).get("reason") == reason and c,
    )
    assert found["status"] == ("False" if broken else "Unknown")
    for text in told:
        assert text in found["message"]
    assert condition(api, namespace, "Ready")["reason"] == reason

    def told_of_it() -> list[str]:
        events = api.send("GET", f"/api/v1/namespaces/{namespace}/events")[1]["items"]
        ours = [item["reason"] for item in events if item["involvedObject"]["kind"] == "EmbeddingFineTune"]
        return ours if reason in ours else []

    of_ours = until("its Event, which is sent once the status is written", told_of_it)
    assert of_ours.count(reason) == 1, "told once, whether somebody has to act or it may last"
    assert broken or reason in LONG
    assert operator.alive()
