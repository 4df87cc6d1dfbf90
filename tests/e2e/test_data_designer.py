"""Questions by NeMo Data Designer on a real cluster, to Ready: the real library, an endpoint that is scripted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from e2e.kube import NAMESPACE, ROOT, Kube
from e2e.manifests import config_map, fine_tune

NAME, LLM = "designer", "llm"
SCRIPT = {"rate": 20, "burst": 20, "latency": [0.05, 0.5], "junk": 0.05, "cut": 0.05}
FILES = ("scripted_llm.py", "scripted_answers.py")


def _endpoint(image: str) -> list[dict[str, Any]]:
    """A pod that answers as an LLM does, and its Service. The sdg image has the Python that it needs."""
    metadata = {"name": LLM, "namespace": NAMESPACE, "labels": {"app": LLM}}
    container = {
        "name": LLM,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "/scripts/scripted_llm.py", "--port", "8000", "--script", json.dumps(SCRIPT)],
        "ports": [{"containerPort": 8000}],
        "readinessProbe": {"httpGet": {"path": "/stats", "port": 8000}, "periodSeconds": 1},
        "volumeMounts": [{"name": "scripts", "mountPath": "/scripts"}],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    pod = {
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": [{"name": "scripts", "configMap": {"name": "scripts"}}],
    }
    port = {"selector": {"app": LLM}, "ports": [{"port": 8000, "targetPort": 8000}]}
    return [
        config_map("scripts", {name: (ROOT / "tests" / name).read_text() for name in FILES}),
        {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod},
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": port},
    ]


@pytest.fixture(scope="module", autouse=True)
def endpoint(kube: Kube, images: dict[str, str]) -> Iterator[None]:
    kube.apply(*_endpoint(images["sdg"]))
    kube.run("wait", "--for=condition=Ready", "--timeout=120s", f"pod/{LLM}", "-n", NAMESPACE)
    yield
    kube.run("delete", "eft", NAME, "-n", NAMESPACE, "--ignore-not-found", "--wait", timeout_s=300)
    kube.run("delete", "pod,service", LLM, "-n", NAMESPACE, "--wait", timeout_s=120)


def _resource(images: dict[str, str], **sdg: Any) -> dict[str, Any]:
    resource = fine_tune(NAME, images["demo-model"])
    provider = {
        "baseURL": f"http://{LLM}.{NAMESPACE}.svc:8000/v1",
        "model": "writer",
        "judge": {"model": "strict"},
        "embedding": {"model": "embedder"},
        "complexity": 3,
        "documentsPerBundle": 2,
    }
    prices = {"promptPerMillion": "0.5", "completionPerMillion": "2"}
    resource["spec"]["stages"]["sdg"] = {"provider": {"dataDesigner": provider}, "prices": prices, **sdg}
    return resource


def test_a_preview_stops_after_sdg_and_tells_the_bill(kube: Kube, images: dict[str, str]) -> None:
    kube.apply(_resource(images, preview=2))

    def stopped() -> str:
        failure = kube.status(NAME).get("lastFailure") or {}
        return str(failure.get("message", "")) if failure.get("reason") == "PreviewDone" else ""

    message = kube.until("PreviewDone", stopped, 300)
    assert "All documents would take about" in message
    assert kube.jobs_of(NAME).keys() == {"inputs", "sdg"}


def test_the_recipe_by_data_designer_gets_ready(kube: Kube, images: dict[str, str]) -> None:
    kube.run("patch", "eft", NAME, "-n", NAMESPACE, "--type=json", "-p",
             json.dumps([{"op": "remove", "path": "/spec/stages/sdg/preview"}]))  # fmt: skip
    kube.until_ready(NAME, generation=kube.generation(NAME), timeout_s=600)
    sdg = kube.stage(NAME, "sdg")
    assert sdg["state"] == "Succeeded"
    details, counts = sdg["details"], sdg["counts"]
    assert sum(details["questionTypes"].values()) == counts["pairs"] > 10
    assert details["questionTypes"]["multi_hop"] > 0
    assert not set(details["complexities"]) & {"1", "2"}
    assert details["llmCost"]["total"] > 0
    assert details["embeddingTokens"]["calls"] > 0
    stats = json.loads(
        kube.run("exec", LLM, "-n", NAMESPACE, "--", "python3", "-c",
                 "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8000/stats').read().decode())")
    )  # fmt: skip
    assert stats["answeredTwice"] == 0, "the preview's answers were not paid again"
    assert details["llmTokens"]["calls"] == stats["answered"]
