"""Servers that are not the project's own, by strict stand-ins of them: one training, then each server to Ready.

The stand-ins (tests/stand_ins) refuse what the real ones refuse, and announce what they announce.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from e2e.kube import NAMESPACE, ROOT, Kube
from e2e.manifests import fine_tune
from simulation.nim_operator import deployment_of, service_of

NAME = "servers"
BASE = "sentence-transformers/all-MiniLM-L6-v2"
MADE_FOR = {"hidden_size": 384, "num_hidden_layers": 6}  # MiniLM's config.json
NEMOTRON = "nvcr.io/nim/nvidia/nemotron-3-embed-1b:2.4.0"


def _deploy(image: str, kind: str) -> dict[str, Any]:
    """The deploy stage with a stand-in, and without what the one before it had."""
    release = kind.removeprefix("nim-")
    backend = {"vllm": {}} if kind == "vllm" else {"nim": {"generation": release, "sharedMemory": "64Mi"}}
    env = {"STAND_IN": kind, "STAND_IN_NAME": BASE, "STAND_IN_CONFIG": json.dumps(MADE_FOR)}
    return {
        "image": image,
        "backend": {"nim": None, "nimService": None, "vllm": None, **backend},
        "env": [] if kind == "vllm" else [{"name": name, "value": value} for name, value in env.items()],
        "resources": {"limits": {"nvidia.com/gpu": 0}, "requests": {"memory": "512Mi"}},
    }


def _ask(kube: Kube, text: str, contract: dict[str, Any], role: str) -> list[float]:
    """As the contract tells clients to."""
    told = contract["inputTypes"]
    body = {
        "model": BASE,
        "input": text if told else f"{contract['prefixes'][role]}{text}",
        **contract["requestFields"],
    }
    answer = kube.post(NAME, "/v1/embeddings", body | ({"input_type": role} if told else {}))
    vector: list[float] = answer["data"][0]["embedding"]
    return vector


def test_an_image_that_takes_another_model_is_refused_before_anything_is_trained(
    kube: Kube, images: dict[str, str]
) -> None:
    body = fine_tune(NAME, images["demo-model"])
    body["spec"]["stages"]["deploy"] = {"image": NEMOTRON, "backend": {"nim": {}}}
    kube.apply(body)
    condition = kube.until_condition(NAME, "Validated", "False", "InvalidSpec", timeout_s=120)
    assert condition["message"].startswith("spec.stages.deploy.image: ")
    assert "take another image" in condition["message"]
    assert {stage for stage, names in kube.jobs_of(NAME).items() if names} == {"inputs"}


@pytest.mark.parametrize("kind", ["nim-1", "nim-2.0", "nim-2.2", "nim-2.4", "vllm"])
def test_each_server_reaches_ready_and_answers_as_the_contract_says(
    kind: str, kube: Kube, images: dict[str, str]
) -> None:
    kube.patch(NAME, {"stages": {"deploy": _deploy(images["stand-ins"], kind)}})
    generation = int((kube.get("eft", NAME) or {})["metadata"]["generation"])
    status = kube.until_ready(NAME, generation=generation, timeout_s=500)
    assert status["verification"]["withinTolerance"] is True
    exported = next(stage for stage in status["stages"] if stage["name"] == "export")
    assert exported["state"] == ("Succeeded" if kind == "nim-1" else "Skipped")
    vector = _ask(kube, "How do I read a CSV file?", status["served"]["contract"], "query")
    assert len(vector) == 384
    trained = kube.jobs_of(NAME)["finetune"]
    assert len(trained) == 1


@pytest.fixture
def nim_service_crd(kube: Kube) -> Iterator[None]:
    crd = str(ROOT / "tests" / "apiserver" / "nimservices.yaml")
    kube.run("apply", "-f", crd)
    yield
    kube.run("delete", "-f", crd, "--wait", timeout_s=120)


def _play_nim_operator(kube: Kube) -> bool:
    """One pass of the NIM Operator over what there is; True once one is Ready."""
    ready = False
    for raw in kube.list("nimservices"):
        made, name = deployment_of(raw), raw["metadata"]["name"]
        pod = made["spec"]["template"]["spec"]
        secure = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        user = {"runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532, "runAsNonRoot": True}
        # The namespace enforces the restricted standard; a cache of its own, as the claim is mounted read-only.
        pod["securityContext"] = {**user, "seccompProfile": {"type": "RuntimeDefault"}}
        pod["volumes"].append({"name": "cache", "emptyDir": {}})
        server = pod["containers"][0]
        server["volumeMounts"] = [*server["volumeMounts"], {"name": "cache", "mountPath": "/opt/cache"}]
        server["readinessProbe"] = {"httpGet": {"path": "/v1/health/ready", "port": "api"}, "periodSeconds": 2}
        for container in (server, *pod["initContainers"]):
            container["securityContext"] = secure
        for item, version in ((made, "apps/v1"), (service_of(raw), "v1")):
            item["apiVersion"], item["metadata"]["namespace"] = version, NAMESPACE
            item["metadata"]["ownerReferences"][0]["apiVersion"] = raw["apiVersion"]
            kube.apply(item)
        status = (kube.get("deployment", name) or {}).get("status") or {}
        here = status.get("availableReplicas") == status.get("updatedReplicas") == raw["spec"]["replicas"]
        said = json.dumps({"status": {"state": "Ready" if here else "NotReady"}})
        kube.run("patch", "nimservice", name, "-n", NAMESPACE, "--subresource=status", "--type=merge", "-p", said)
        ready = ready or here
    return ready


def test_a_nim_service_is_made_followed_and_taken_away(
    kube: Kube, images: dict[str, str], nim_service_crd: None
) -> None:
    """This test plays the NIM Operator; the pods are real."""
    deploy = _deploy(images["stand-ins"], "nim-2.4")
    nim = {"nim": None, "nimService": {"generation": "2.4", "sharedMemory": "64Mi"}, "vllm": None}
    kube.patch(NAME, {"stages": {"deploy": {**deploy, "backend": nim}}})
    generation = int((kube.get("eft", NAME) or {})["metadata"]["generation"])

    def look() -> bool:
        _play_nim_operator(kube)
        status = kube.status(NAME)
        ready = next((c for c in status.get("conditions", ()) if c["type"] == "Ready"), {})
        return status.get("observedGeneration") == generation and ready.get("status") == "True"

    kube.until("Ready behind a NIMService", look, 300, every_s=2)
    status = kube.status(NAME)
    assert len(_ask(kube, "How do I read a CSV file?", status["served"]["contract"], "query")) == 384
    (nim_service,) = kube.list("nimservices")
    assert nim_service["metadata"]["name"].startswith(f"{NAME}-")
    kube.patch(NAME, {"stages": {"deploy": _deploy(images["stand-ins"], "nim-2.4") | {"drainSeconds": 0}}})
    generation = int((kube.get("eft", NAME) or {})["metadata"]["generation"])
    kube.until_ready(NAME, generation=generation, timeout_s=300)
    kube.until("the NIMService is gone", lambda: not kube.list("nimservices"), 120)
    assert _ask(kube, "still there?", kube.status(NAME)["served"]["contract"], "query")


def test_a_server_that_refuses_its_variables_says_so_in_the_status(kube: Kube, images: dict[str, str]) -> None:
    """The manifest says 2.0, the image is of 2.4: the server's words reach the condition, and what serves goes on."""
    deploy = _deploy(images["stand-ins"], "nim-2.4")
    kube.patch(NAME, {"stages": {"deploy": {**deploy, "backend": {"nim": {"generation": "2.0"}, "vllm": None}}}})
    condition = kube.until_condition(NAME, "Deployed", "False", "ServerCrashed", timeout_s=200)
    assert "NIM_MODEL_PATH is not supported by this release" in condition["message"]
    assert _ask(kube, "still there?", kube.status(NAME)["served"]["contract"], "query")
    kube.run("delete", "eft", NAME, "-n", NAMESPACE, "--wait", timeout_s=120)
