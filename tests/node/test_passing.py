"""Faults that pass, in the middle of a stage and under a server: nobody acts on the resource, and it goes on by itself.

One resource lives through all of them, in the order of this file. Each test begins a new revision of it, which is held
in the middle of `sdg`; the revision before it serves meanwhile.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from e2e.kube import NAMESPACE, OPERATOR_NAMESPACE, ROOT, Kube
from node.machine import dead, node_says, short_of_memory
from node.middle import NAME, Middle, deleted, model
from node.record import Record
from settings import NODE_NAME

API_AWAY_S = 120
OPERATOR_AWAY_S = 600
OWNER = f"embedding-operator.dev/owner={NAME}"


@pytest.fixture(scope="module")
def middle(kube: Kube, images: dict[str, str], record: Record) -> Iterator[Middle]:
    with model() as server:
        found = Middle(kube, record, server, images["demo-model"])
        found.serve()
        yield found
        found.go_on()
        deleted(kube)


def _evict(kube: Kube, pod: str) -> None:
    """By the Eviction API, as a drain, an autoscaler of nodes or a descheduler does."""
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": NAMESPACE}}
    kube.run("create", "--raw", f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}/eviction", "-f", "-",
             stdin=json.dumps(eviction))  # fmt: skip


def _restarts(kube: Kube) -> list[int]:
    pods = kube.list("pods", "app.kubernetes.io/name=embedding-operator", OPERATOR_NAMESPACE)
    return [item["status"]["containerStatuses"][0]["restartCount"] for item in pods]


def test_an_evicted_pod_is_followed_by_another_of_the_same_attempt(kube: Kube, middle: Middle) -> None:
    pod = middle.begin()
    with middle.asked_all_the_time() as client:
        _evict(kube, pod)
        middle.until_asked_by_another_pod(pod)
        middle.until_ready()
    assert middle.pods()[0].disruption == "EvictionByEvictionAPI"
    assert client.failures == []


def test_a_drained_node_takes_stage_and_server_and_both_come_back(kube: Kube, middle: Middle) -> None:
    """The resource's pods alone: there is no other node for those of the operator."""
    pod = middle.begin()
    drain = ("drain", NODE_NAME, "--ignore-daemonsets", "--delete-emptydir-data", "--force")
    kube.run(*drain, f"--pod-selector={OWNER}", "--timeout=170s")
    kube.until("sdg waits for a node", lambda: middle.stage().get("reason") == "Unschedulable", 60)
    assert middle.stage()["state"] == "Waiting"
    assert "uncordon" in middle.stage()["message"]
    kube.until_condition(NAME, "Ready", "False")
    kube.run("uncordon", NODE_NAME)
    middle.until_asked_by_another_pod(pod)
    middle.until_ready()


def test_a_node_that_runs_short_of_memory_evicts_the_stage_and_it_comes_back(kube: Kube, middle: Middle) -> None:
    """Whatever else the kubelet ends meanwhile, server and operator among it, comes back too."""
    first = middle.begin()
    with short_of_memory():
        kube.until("the node says so", lambda: node_says(kube, "MemoryPressure") == "True", 60)
        kube.until("the stage's pod is evicted", lambda: middle.pods()[0].disruption == "TerminationByKubelet", 180)
    middle.until_asked_by_another_pod(first)
    middle.until_ready()
    assert node_says(kube, "MemoryPressure") == "False"


def test_a_kubelet_that_is_away_for_a_while_loses_nothing(kube: Kube, middle: Middle) -> None:
    """The pod goes on, and ends, while nobody hears of it."""
    middle.begin()
    with dead("kubelet"):
        kube.until("the node does not answer", lambda: node_says(kube) == "Unknown", 120)
        kube.until("sdg says so", lambda: middle.stage().get("reason") == "NodeLost", 60)
        assert f"node {NODE_NAME} does not answer" in middle.stage()["message"]
        assert middle.stage()["state"] == "Running"
        middle.go_on()
        time.sleep(20)
        assert middle.stage()["reason"] == "NodeLost"
    middle.until_ready()
    (pod,) = middle.pods()
    assert pod.end == "0 Completed"


def test_an_api_server_that_is_away_for_two_minutes_loses_nothing(kube: Kube, middle: Middle) -> None:
    """The stage ends meanwhile, and what serves answers.

    When the server is back, Kubernetes may take the node, which could not report, for lost, and what runs there for
    unready, until the node reports again.
    """
    middle.begin()
    restarts = _restarts(kube)
    with middle.asked_all_the_time() as client:
        with dead("kube-apiserver"):
            time.sleep(API_AWAY_S / 4)
            middle.go_on()
            time.sleep(API_AWAY_S * 3 / 4)
            meanwhile = client.answers, list(client.failures)
        middle.until_ready()
    (pod,) = middle.pods()
    assert pod.end == "0 Completed"
    assert meanwhile[0] > 0
    assert meanwhile[1] == []
    assert _restarts(kube) == restarts, "no process of the operator ended"
    log = kube.run("logs", "-n", OPERATOR_NAMESPACE, "-l", "app.kubernetes.io/name=embedding-operator", "--tail=-1")
    assert "Traceback" not in log


@contextmanager
def _another_node() -> Iterator[None]:
    """Where all nodes are lost, Kubernetes thinks that it is itself cut off, and gives up no pod."""
    command = [sys.executable, "hack/localkube", "second-node"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as node:
        try:
            assert node.stdout is not None
            assert node.stdout.readline().startswith("ready ")
            yield
        finally:
            node.terminate()


def test_a_node_that_is_lost_for_longer_than_its_pods_may_wait(kube: Kube, middle: Middle) -> None:
    """Kubernetes gives the pod up, and nobody confirms its end until the kubelet is back: no other is made before."""
    seconds = [
        {"key": f"node.kubernetes.io/{taint}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 10}
        for taint in ("unreachable", "not-ready")
    ]
    with _another_node():
        first = middle.begin(tolerations=seconds)
        with dead("kubelet"):
            kube.until("the node does not answer", lambda: node_says(kube) == "Unknown", 120)
            kube.until("sdg says so", lambda: middle.stage().get("reason") == "NodeLost", 60)
            kube.until("its pod is given up", lambda: middle.pods()[0].disruption == "DeletionByTaintManager", 90)
            kube.until("somebody has to act", lambda: middle.stage()["state"] == "Waiting", 300)
            assert middle.stage()["reason"] == "NodeLost"
            assert "node.kubernetes.io/out-of-service" in middle.stage()["message"]
            assert len(middle.pods()) == 1, "the first may still write to the volume"
        middle.until_asked_by_another_pod(first)
    middle.until_ready()
    told = middle.reasons()
    lost = told[told.index("NodeLost") : len(told) - told[::-1].index("NodeLost")]
    assert set(lost) == {"NodeLost"}, "from the first word of it to the last nothing else was said"


def test_an_operator_that_is_away_for_ten_minutes_takes_up_what_ended_meanwhile(kube: Kube, middle: Middle) -> None:
    middle.begin()
    job = middle.pods()[0].job
    deployment = ("-n", OPERATOR_NAMESPACE, "deployment/embedding-operator")
    kube.run("scale", *deployment, "--replicas=0")
    away = time.monotonic()
    try:
        with middle.asked_all_the_time() as client:
            middle.go_on()
            kube.run("wait", "-n", NAMESPACE, f"job/{job}", "--for=condition=Complete", "--timeout=120s")
            assert middle.stage()["state"] == "Running", "nobody is there to say what it became"
            time.sleep(max(0.0, OPERATOR_AWAY_S - (time.monotonic() - away)))
    finally:
        kube.run("scale", *deployment, "--replicas=2")
        kube.run("rollout", "status", *deployment, "--timeout=120s")
    middle.until_ready()
    (pod,) = middle.pods()
    assert pod.end == "0 Completed"
    assert client.failures == []


def test_nothing_is_left_of_it(kube: Kube, middle: Middle) -> None:
    kube.run("delete", "eft", NAME, "-n", NAMESPACE, "--wait", timeout_s=120)
    kinds = "jobs,pods,deployments,services,configmaps,persistentvolumeclaims"
    kube.until("every child is gone", lambda: not kube.list(kinds, OWNER), 180)
