"""One claim, two nodes: pods that mount a claim which one node alone can mount go to the node that has it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from e2e.consumer import CLAIM_LABEL, consumer
from e2e.kube import NAMESPACE, ROOT, Kube

FIRST, SECOND = "localkube", "localkube-2"
GPU = "nvidia.com/gpu"
# More than what already asks for processors on the first node, so that it makes a node the fuller one.
MUCH, LITTLE = {"cpu": "800m"}, {"cpu": "10m"}


@pytest.fixture(scope="module", autouse=True)
def second_node(images: dict[str, str]) -> Iterator[None]:
    """A real node, with a kubelet and a containerd of its own, for as long as these tests run."""
    chosen = subprocess.run(
        [sys.executable, "hack/cluster", "choice"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    if chosen.stdout.strip() != "localkube":
        pytest.skip("only localkube can add a node")
    command = [sys.executable, "hack/localkube", "second-node", images["demo-corpus"]]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as node:
        try:
            assert node.stdout is not None
            assert node.stdout.readline() == f"ready {SECOND}\n"
            yield
        finally:
            node.terminate()
    assert node.returncode == 0


@pytest.fixture
def shared_claim(kube: Kube, tmp_path: Path) -> Iterator[str]:
    """A ReadWriteOnce claim on storage that every node reaches, as a cloud's disk is: no node is named in it."""
    name = "two-nodes-shared"
    tmp_path.chmod(0o777)
    size = {"storage": "1Gi"}
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "capacity": size,
            "storageClassName": "",
            "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": {"path": str(tmp_path), "type": "Directory"},
            "claimRef": {"namespace": NAMESPACE, "name": name},
        },
    }
    kube.apply(volume, _claim(name, {"storageClassName": "", "volumeName": name}))
    yield name
    _remove(kube, name)
    kube.run("delete", "pv", name, "--ignore-not-found")


@pytest.fixture
def local_claim(kube: Kube) -> Iterator[str]:
    """A claim of localkube's own class, whose volumes name the node that their first pod was placed on."""
    name = "two-nodes-local"
    kube.apply(_claim(name, {}))
    yield name
    _remove(kube, name)


def _claim(name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    resources = {"requests": {"storage": "1Gi"}}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": resources, **spec},
    }


def _remove(kube: Kube, claim: str) -> None:
    kube.run("delete", "pods", "-n", NAMESPACE, "-l", f"{CLAIM_LABEL}={claim}", "--grace-period=1")
    kube.run("delete", "pvc", claim, "-n", NAMESPACE)


@pytest.fixture
def start(kube: Kube, images: dict[str, str]) -> Callable[..., None]:
    def start(*pods: Mapping[str, Any]) -> None:
        """Create pods at once. They tolerate the second node's taint, which keeps everybody else's pods away."""
        for pod in pods:
            pod["spec"]["containers"][0]["image"] = images["demo-corpus"]
            pod["spec"]["tolerations"] = [{"key": "localkube/second-node", "operator": "Exists"}]
        kube.apply(*pods)

    return start


def _running(kube: Kube, name: str) -> str:
    """The node that the pod runs on, once it does."""
    return kube.until(f"pod {name} runs", lambda: _node_of(kube, name, "Running"), 120)


def _node_of(kube: Kube, name: str, phase: str) -> str | None:
    pod = kube.get("pod", name) or {}
    return str(pod["spec"]["nodeName"]) if pod.get("status", {}).get("phase") == phase else None


def _refused(kube: Kube, name: str) -> str:
    """Why the scheduler places the pod nowhere, once it has said so."""

    def look() -> str | None:
        conditions = ((kube.get("pod", name) or {}).get("status") or {}).get("conditions", ())
        return next((str(c["message"]) for c in conditions if c.get("reason") == "Unschedulable"), None)

    return kube.until(f"pod {name} is refused", look, 60)


def _end(kube: Kube, *names: str) -> None:
    """Let pods come to their end as a stage does, so that they stay as Succeeded."""
    for name in names:
        kube.run("exec", name, "-n", NAMESPACE, "--", "/bin/busybox", "touch", "/tmp/end")
        kube.until(f"pod {name} succeeds", lambda name=name: _node_of(kube, name, "Succeeded"), 60)


def test_the_pods_of_a_claim_that_many_nodes_mount_may_spread(
    kube: Kube, shared_claim: str, start: Callable[..., None]
) -> None:
    """How the scheduler weighs nodes depends on what else runs; what it must not be kept from is another node."""
    for number, node in enumerate((FIRST, SECOND), start=1):
        where = {"kubernetes.io/hostname": node}
        start(consumer(f"spread-{number}", shared_claim, mode="ReadWriteMany", requests=LITTLE, node_selector=where))
    assert [_running(kube, "spread-1"), _running(kube, "spread-2")] == [FIRST, SECOND]


def test_pods_of_a_claim_that_begin_together_land_on_one_node(
    kube: Kube, shared_claim: str, start: Callable[..., None]
) -> None:
    names = ("together-1", "together-2")
    start(*(consumer(name, shared_claim, requests=MUCH) for name in names))
    assert len({_running(kube, name) for name in names}) == 1


@pytest.mark.parametrize("node", [FIRST, SECOND])
def test_the_first_pod_goes_where_it_fits_and_the_others_follow(
    kube: Kube, shared_claim: str, start: Callable[..., None], node: str
) -> None:
    start(consumer("first", shared_claim, requests=MUCH, node_selector={"kubernetes.io/hostname": node}))
    assert _running(kube, "first") == node
    start(consumer("second", shared_claim, requests=LITTLE), consumer("third", shared_claim, requests=LITTLE))
    assert (_running(kube, "second"), _running(kube, "third")) == (node, node)


def test_the_others_follow_to_the_node_with_the_gpu(kube: Kube, shared_claim: str, start: Callable[..., None]) -> None:
    _offer(kube, GPU, "1")
    start(consumer("gpu", shared_claim, requests=MUCH, limits={GPU: "1"}))
    assert _running(kube, "gpu") == SECOND
    start(consumer("no-gpu", shared_claim, requests=LITTLE))
    assert _running(kube, "no-gpu") == SECOND


def _offer(kube: Kube, resource: str, count: str) -> None:
    patch = {"status": {field: {resource: count} for field in ("capacity", "allocatable")}}
    kube.run("patch", "node", SECOND, "--subresource=status", "--type=merge", "-p", json.dumps(patch))


def test_another_claims_pods_attract_nobody(
    kube: Kube, shared_claim: str, local_claim: str, start: Callable[..., None]
) -> None:
    start(consumer("here", shared_claim, requests=MUCH, node_selector={"kubernetes.io/hostname": SECOND}))
    assert _running(kube, "here") == SECOND
    start(consumer("elsewhere", local_claim, requests=LITTLE))
    assert _running(kube, "elsewhere") == FIRST


def test_a_running_pod_keeps_the_others_off_every_other_node(
    kube: Kube, shared_claim: str, start: Callable[..., None]
) -> None:
    start(consumer("here", shared_claim, requests=MUCH, node_selector={"kubernetes.io/hostname": SECOND}))
    assert _running(kube, "here") == SECOND
    start(consumer("there", shared_claim, requests=LITTLE, node_selector={"kubernetes.io/hostname": FIRST}))
    assert "didn't match pod affinity rules" in _refused(kube, "there")


def test_a_pod_that_has_ended_holds_nobody(kube: Kube, shared_claim: str, start: Callable[..., None]) -> None:
    """Between two stages no pod is alive, so the next one may go to another node: the volume has to follow."""
    start(consumer("stage-1", shared_claim, requests=MUCH, node_selector={"kubernetes.io/hostname": SECOND}))
    assert _running(kube, "stage-1") == SECOND
    _end(kube, "stage-1")
    start(consumer("stage-2", shared_claim, requests=LITTLE, node_selector={"kubernetes.io/hostname": FIRST}))
    assert _running(kube, "stage-2") == FIRST


def test_a_local_volume_holds_its_pods_though_none_runs(
    kube: Kube, local_claim: str, start: Callable[..., None]
) -> None:
    start(consumer("stage-1", local_claim, requests=MUCH, node_selector={"kubernetes.io/hostname": SECOND}))
    assert _running(kube, "stage-1") == SECOND
    _end(kube, "stage-1")
    start(consumer("stage-2", local_claim, requests=LITTLE))
    assert _running(kube, "stage-2") == SECOND
    _end(kube, "stage-2")
    start(consumer("stage-3", local_claim, requests=LITTLE, node_selector={"kubernetes.io/hostname": FIRST}))
    assert "didn't match PersistentVolume's node affinity" in _refused(kube, "stage-3")
