"""Servers that are not the project's own, by strict stand-ins of them: one training, then each server to Ready.

The stand-ins (tests/stand_ins) refuse what the real ones refuse, and announce what they announce.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from e2e.kube import NAMESPACE, Kube
from e2e.manifests import fine_tune

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
        "backend": {"nim": None, "vllm": None, **backend},
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


def test_a_server_that_refuses_its_variables_says_so_in_the_status(kube: Kube, images: dict[str, str]) -> None:
    """The manifest says 2.0, the image is of 2.4: the server's words reach the condition, and what serves goes on."""
    deploy = _deploy(images["stand-ins"], "nim-2.4")
    kube.patch(NAME, {"stages": {"deploy": {**deploy, "backend": {"nim": {"generation": "2.0"}, "vllm": None}}}})
    condition = kube.until_condition(NAME, "Deployed", "False", "ServerCrashed", timeout_s=200)
    assert "NIM_MODEL_PATH is not supported by this release" in condition["message"]
    assert _ask(kube, "still there?", {"inputTypes": [], "prefixes": {"query": ""}, "requestFields": {}}, "query")
    kube.run("delete", "eft", NAME, "-n", NAMESPACE, "--wait", timeout_s=120)
