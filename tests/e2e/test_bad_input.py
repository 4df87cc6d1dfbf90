"""Bad input: a condition that names the field and the cure within 30 seconds, no crash loop, cured by an edit."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from typing import Any

import pytest
from e2e.kube import NAMESPACE, Kube
from e2e.manifests import config_map, fine_tune

JUNK = base64.b64encode(os.urandom(4096)).decode()
NO_SECRET = {"name": "no-such", "key": "k"}
OPEN_AI = {"baseURL": "http://llm.nowhere.svc:8000/v1", "model": "m", "apiKeySecretRef": NO_SECRET}

# name -> (spec patch, condition, reason, what the message must name, patch that cures it)
CASES: dict[str, tuple[dict[str, Any], str, str, tuple[str, ...], dict[str, Any]]] = {
    "no-claim": (
        {"corpus": {"source": {"configMap": None, "pvc": {"claimName": "no-such-claim"}}}},
        "DataReady",
        "VolumeMissing",
        ("spec.corpus.source.pvc.claimName", "no-such-claim", "create it or correct"),
        {"corpus": {"source": {"pvc": None, "configMap": {"name": "docs"}}}},
    ),
    "no-config-map": (
        {"corpus": {"source": {"configMap": {"name": "no-such-docs"}}}},
        "DataReady",
        "ConfigMapMissing",
        ("spec.corpus.source.configMap.name", "no-such-docs", "create it or correct"),
        {"corpus": {"source": {"configMap": {"name": "docs"}}}},
    ),
    "empty-corpus": (
        {"corpus": {"source": {"configMap": {"name": "empty-docs"}}}},
        "DataReady",
        "CorpusEmpty",
        ("spec.corpus",),
        {"corpus": {"source": {"configMap": {"name": "docs"}}}},
    ),
    "junk": (
        {"corpus": {"source": {"configMap": {"name": "junk-docs"}}}},
        "DataReady",
        "CorpusUnreadable",
        ("spec.corpus",),
        {"corpus": {"source": {"configMap": {"name": "docs"}}}},
    ),
    "unknown-model": (
        {"baseModel": {"source": {"image": {"path": "/no/such/model"}}}},
        "DataReady",
        "SourceImagePathMissing",
        ("spec.baseModel.source.image.path", "/no/such/model"),
        {"baseModel": {"source": {"image": {"path": "/model"}}}},
    ),
    "not-a-model": (
        {"baseModel": {"source": {"image": {"reference": "demo-corpus", "path": "/docs"}}}},
        "DataReady",
        "BaseModel",
        ("spec.baseModel",),
        {"baseModel": {"source": {"image": {"reference": "demo-model", "path": "/model"}}}},
    ),
    "wrong-secret": (
        {"stages": {"sdg": {"provider": {"extractive": None, "openAI": OPEN_AI}}}},
        "DataReady",
        "SecretMissing",
        ("spec.stages.sdg.provider.openAI.apiKeySecretRef.name", "no-such", "create it or correct"),
        {"stages": {"sdg": {"provider": {"openAI": None, "extractive": {}}}}},
    ),
}


def _with_images(value: Any, images: dict[str, str]) -> Any:
    """`reference: demo-model` stands for the reference under which that image was loaded."""
    if not isinstance(value, dict):
        return value
    return {
        key: images[item] if key == "reference" and item in images else _with_images(item, images)
        for key, item in value.items()
    }


def _merge(into: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    for key, value in patch.items():
        if value is None:
            into.pop(key, None)
        elif isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value
    return into


LATER = "wrong-later-images"
WRONG = {stage: {"image": f"localhost/no-such/{stage}:1"} for stage in ("finetune", "deploy")}


@pytest.fixture(scope="module", autouse=True)
def applied(kube: Kube, images: dict[str, str]) -> Iterator[None]:
    """All of them at once: they wait for different things."""
    kube.apply(
        config_map("empty-docs", {"readme.txt": "   "}),
        config_map("junk-docs", {}, {"junk.txt": JUNK, "more.txt": JUNK}),
    )
    for name, (patch, *_) in CASES.items():
        manifest = fine_tune(name, images["demo-model"])
        _merge(manifest["spec"], _with_images(patch, images))
        kube.apply(manifest)
    manifest = fine_tune(LATER, images["demo-model"])
    _merge(manifest["spec"]["stages"], {"sdg": {"provider": {"extractive": None, "openAI": OPEN_AI}}, **WRONG})
    kube.apply(manifest)
    yield
    kube.run("delete", "eft", *CASES, LATER, "-n", NAMESPACE, "--ignore-not-found", "--wait")


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_named_and_cured(kube: Kube, images: dict[str, str], name: str) -> None:
    _, kind, reason, named, cure = CASES[name]

    def look() -> dict[str, Any] | None:
        found = kube.condition(name, kind)
        return found if found.get("status") == "False" and found.get("reason", "").startswith(reason) else None

    condition = kube.until(f"{kind}=False {reason} on {name}; now {kube.status(name)}", look, 30)
    for text in named:
        assert text in condition["message"], condition["message"]
    assert kube.condition(name, "Ready")["status"] == "False"
    stage = "sdg" if name == "wrong-secret" else "inputs"
    assert len(kube.jobs_of(name).get(stage, [])) == 1, "bad input is not tried again and again"

    kube.patch(name, _with_images(cure, images))
    kube.until(
        f"{name} goes on after the cure; now {kube.stage(name, stage)}",
        lambda: kube.stage(name, stage).get("state") in ("Succeeded", "Reused"),
        60,
    )
    # It has shown what it had to: stop it before it spends the machine on training.
    kube.patch(name, {"suspend": True})


def test_wrong_images_of_later_stages_are_named_while_an_early_one_waits(kube: Kube) -> None:
    """The node's own kubelet says so: nothing answers for localhost, which is told after a minute and a half."""

    def look() -> str:
        found = kube.condition(LATER, "Validated")
        said = str(found.get("message", "")) if found.get("reason") == "ImagePullFailed" else ""
        return said if all(f"spec.stages.{stage}.image" in said for stage in WRONG) else ""

    said = kube.until(f"the wrong images of {LATER}; now {kube.status(LATER)}", look, 180)
    assert said.count("the image cannot be pulled") == len(WRONG), "the others came"
    assert kube.stage(LATER, "sdg")["reason"] == "SecretMissing"
    selector = "embedding-operator.dev/image-check"
    (pod,) = (item for item in kube.list("pod", selector) if item["metadata"]["name"].startswith(LATER))
    came = [item for item in pod["status"]["containerStatuses"] if "terminated" in item["state"]]
    assert len(came) == len(pod["spec"]["containers"]) - len(WRONG)
    kube.patch(LATER, {"suspend": True})
    kube.until(
        "its pod to be gone", lambda: not kube.list("pod", f"{selector},embedding-operator.dev/owner={LATER}"), 60
    )
