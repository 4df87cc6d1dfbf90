"""localkube heals: whatever dies, `up` brings it back, and what runs in the cluster does not notice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from e2e.kube import NAMESPACE, ROOT, Kube

COMPONENTS = (
    "containerd",
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "provisioner",
)
SECURITY = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def _tool(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)


def _pid(name: str) -> int:
    state = Path(_tool("hack/localkube", "kubeconfig").stdout.strip()).parent
    return int(json.loads((state / "run" / f"{name}.json").read_text())["pid"])


@pytest.fixture(scope="module", autouse=True)
def localkube() -> None:
    chosen = _tool("hack/cluster", "choice").stdout.strip()
    if chosen != "localkube":
        pytest.skip(f"the cluster is {chosen}, which starts its components itself")


@pytest.fixture(scope="module")
def answering(kube: Kube, images: dict[str, str]) -> dict[str, Any]:
    """A pod that answers over HTTP, and the Service in front of it."""
    container = {
        "name": "web",
        "image": images["demo-corpus"],
        "args": ["httpd", "-f", "-p", "8080", "-h", "/docs"],
        "ports": [{"containerPort": 8080}],
        "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
        "securityContext": SECURITY,
    }
    metadata = {"name": "web", "namespace": NAMESPACE, "labels": {"app": "web"}}
    spec = {
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "terminationGracePeriodSeconds": 1,
        "containers": [container],
    }
    service = {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}
    kube.apply(
        {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec},
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": service},
    )
    kube.run("wait", "--for=condition=Ready", "--timeout=60s", "pod/web", "-n", NAMESPACE)
    pod, found = kube.get("pod", "web"), kube.get("service", "web")
    assert pod is not None
    assert found is not None
    return {"uid": pod["metadata"]["uid"], "url": f"http://{found['spec']['clusterIP']}/argparse.txt"}


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def test_a_service_whose_endpoint_left_and_came_back_while_kube_proxy_was_dead_answers(
    kube: Kube, answering: dict[str, Any]
) -> None:
    def select(app: str) -> None:
        kube.run("patch", "service", "web", "-n", NAMESPACE, "-p", json.dumps({"spec": {"selector": {"app": app}}}))

    select("nobody")
    kube.until("nobody answers for a Service without endpoints", lambda: not _answers(answering["url"]), 120)
    os.kill(_pid("kube-proxy"), signal.SIGKILL)
    select("web")
    up = _tool("hack/localkube", "up")
    assert up.returncode == 0, up.stderr
    kube.until("the Service answers again", lambda: _answers(answering["url"]), 120)


@pytest.mark.parametrize("name", COMPONENTS)
def test_a_killed_component_comes_back_and_pods_go_on(kube: Kube, answering: dict[str, Any], name: str) -> None:
    killed = _pid(name)
    os.kill(killed, signal.SIGKILL)
    up = _tool("hack/localkube", "up")
    assert up.returncode == 0, up.stderr
    assert f"started {name}\n" in up.stderr
    assert _pid(name) != killed
    status = _tool("hack/localkube", "status")
    assert status.returncode == 0, status.stdout
    # A restarted kubelet calls its pods unready until it has probed them, so a Service may refuse for a moment.
    kube.until(f"the pod answers after {name} was killed", lambda: _answers(answering["url"]), 120)
    pod = kube.get("pod", "web")
    assert pod is not None
    assert pod["metadata"]["uid"] == answering["uid"]
    assert pod["status"]["containerStatuses"][0]["restartCount"] == 0
