"""What the API server accepts and refuses, before the operator sees it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from apiserver.api import Api, examples, resource

from embedding_operator.api import SpecError
from embedding_operator.spec import parse_spec
from embedding_operator.status import Condition, Served, StageStatus, Status
from embedding_stages.contract import Artefact, ArtefactRef, Stage

OPEN_AI = {"baseURL": "http://llm:8000/v1", "model": "m", "apiKeySecretRef": {"name": "llm", "key": "token"}}
IMAGES = dict.fromkeys(Stage, "image:1")

ACCEPTED: dict[str, dict[str, Any]] = {
    "the smallest": {},
    "an OpenAI provider": {"stages": {"sdg": {"provider": {"extractive": None, "openAI": OPEN_AI}}}},
    "no GPU, said as a number": {"stages": {"finetune": {"resources": {"limits": {"nvidia.com/gpu": 0}}}}},
    "a learning rate as people write it": {"stages": {"finetune": {"learningRate": "2.5e-5"}}},
    "a labelled set": {"evaluation": {"beir": {"pvc": {"claimName": "labelled", "path": "beir"}}}},
    "a NIM": {
        "stages": {"deploy": {"image": "nim:1", "backend": {"nim": {"ngcKeySecretRef": {"name": "ngc", "key": "k"}}}}}
    },
    "a model from a hub": {
        "baseModel": {"source": {"pvc": None, "huggingFace": {"revision": "a" * 40}}},
    },
    "an existing claim": {"storage": {"existingClaim": "shared"}},
}

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no source of documents": ({"corpus": {"source": {"configMap": None}}}, "give exactly one of pvc, configMap"),
    "two sources of documents": ({"corpus": {"source": {"pvc": {"claimName": "x"}}}}, "give exactly one of pvc"),
    "two sources of the model": (
        {"baseModel": {"source": {"image": {"reference": "x", "path": "/m"}}}},
        "give exactly one of pvc, image, huggingFace",
    ),
    "a branch instead of a commit": (
        {"baseModel": {"source": {"pvc": None, "huggingFace": {"revision": "main"}}}},
        "spec.baseModel.source.huggingFace.revision",
    ),
    "no provider": ({"stages": {"sdg": {"provider": {"extractive": None}}}}, "give exactly one of extractive"),
    "two providers": ({"stages": {"sdg": {"provider": {"openAI": OPEN_AI}}}}, "give exactly one of extractive"),
    "an endpoint that is no URL": (
        {"stages": {"sdg": {"provider": {"extractive": None, "openAI": {**OPEN_AI, "baseURL": "llm:8000"}}}}},
        "baseURL",
    ),
    "cut-offs out of order": ({"evaluation": {"kValues": [10, 1]}}, "rising order"),
    "cut-offs twice": ({"evaluation": {"kValues": [1, 10, 10]}}, "unique"),
    "cut-offs without ten": ({"evaluation": {"kValues": [1, 5]}}, "must contain 10"),
    "a tolerance that is no number": ({"tolerance": {"atOne": "low"}}, "spec.tolerance.atOne"),
    "a number where a decimal string is wanted": ({"tolerance": {"atOne": 0.03}}, "spec.tolerance.atOne"),
    "no epochs": ({"stages": {"finetune": {"epochs": 0}}}, "spec.stages.finetune.epochs"),
    "a NIM without its image": ({"stages": {"deploy": {"backend": {"nim": {}}}}}, "needs image"),
    "a NIM and our server": ({"stages": {"deploy": {"image": "x", "backend": {"nim": {}, "onnx": {}}}}}, "exactly one"),
    "a claim and a size": ({"storage": {"existingClaim": "x", "size": "1Gi"}}, "not both"),
    "a size that is no quantity": ({"storage": {"size": "big"}}, "spec.storage.size"),
    "the operator's own variables": (
        {"stages": {"prep": {"env": [{"name": "EFT_REQUEST", "value": "{}"}]}}},
        "belong to the operator",
    ),
    "an unknown field": ({"stages": {"finetune": {"epoch": 3}}}, "epoch"),
    "a pod template": ({"stages": {"finetune": {"podTemplate": {}}}}, "podTemplate"),
    "a host path": ({"corpus": {"source": {"hostPath": {"path": "/etc"}}}}, "hostPath"),
    "a reference into another namespace": (
        {"corpus": {"source": {"configMap": {"name": "x", "namespace": "kube-system"}}}},
        "namespace",
    ),
}

BAD_NAMES = ("1st", "has.dot", "a" * 41)


@pytest.mark.parametrize("row", ACCEPTED)
def test_accepted(api: Api, namespace: str, row: str) -> None:
    manifest = resource(namespace, ACCEPTED[row])
    api.kubectl("apply", "--validate=strict", "-f", "-", stdin=json.dumps(manifest))
    parse_spec(api.get("eft", "docs", namespace)["spec"], IMAGES)


@pytest.mark.parametrize("row", REFUSED)
def test_refused(api: Api, namespace: str, row: str) -> None:
    patch, message = REFUSED[row]
    done = api.attempt("apply", "--validate=strict", "-f", "-", stdin=json.dumps(resource(namespace, patch)))
    assert done.returncode != 0
    assert message in done.stderr


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_jobs_cannot_have_is_refused(api: Api, namespace: str, name: str) -> None:
    done = api.attempt("apply", "-f", "-", stdin=json.dumps(resource(namespace, name=name)))
    assert "Jobs and Services are named after it" in done.stderr


@pytest.mark.parametrize("name", examples())
def test_every_example_is_accepted_and_parsed(api: Api, namespace: str, name: str) -> None:
    manifest = examples()[name]
    manifest["metadata"]["namespace"] = namespace
    api.kubectl("apply", "--validate=strict", "-f", "-", stdin=json.dumps(manifest))
    try:
        parse_spec(manifest["spec"], IMAGES)
    except SpecError as error:
        pytest.fail(str(error))


def test_storage_cannot_change(api: Api, namespace: str) -> None:
    api.apply(resource(namespace, {"storage": {"size": "1Gi"}}))
    done = api.attempt("apply", "-f", "-", stdin=json.dumps(resource(namespace, {"storage": {"size": "2Gi"}})))
    assert "storage cannot change" in done.stderr


def test_a_resource_that_nobody_has_looked_at_says_so(api: Api, namespace: str) -> None:
    api.apply(resource(namespace))
    assert api.get("eft", "docs", namespace)["status"]["observedGeneration"] == -1


def _rich_status() -> Status:
    digest = "sha256:" + "0" * 64
    figures = {"ndcg@10": 0.61559, "recall@10": 0.69296}
    stages = tuple(
        StageStatus(
            name=stage,
            state="Succeeded",
            reason="Completed",
            message="done",
            fingerprint="f" * 64,
            image="image:1",
            job_name="docs-x-1",
            attempt=2,
            distrusted=1,
            revision=1,
            reused_from=1,
            started_at="2026-01-01T00:00:00Z",
            finished_at="2026-01-01T00:00:00Z",
            percent=5,
            step=1,
            total_steps=20,
            eta_seconds=3,
            artefacts={Artefact.CORPUS: ArtefactRef(path="inputs/corpus-0", digest=digest)},
            counts={"documents": 5},
            details={"any": {"thing": [1]}},
            metrics={"base": figures},
        )
        for stage in Stage
    )
    condition = Condition(
        type="Ready",
        status="True",
        reason="Verified",
        message="fine",
        observed_generation=1,
        last_transition_time="2026-01-01T00:00:00Z",
    )
    shown = {name: f"{value:.5f}" for name, value in figures.items()}
    return Status(
        observed_generation=1,
        revision=1,
        phase="Ready",
        current_stage="verify",
        progress="done",
        uplift="+10.9%",
        stages=stages,
        conditions=(condition, Condition.from_json({**condition.to_json(), "type": "Verified"})),
        served=Served(
            active_fingerprint="a" * 64,
            active_revision=1,
            candidate_fingerprint="b" * 64,
            candidate_revision=2,
            artefact_digest=digest,
            url="http://docs.ns:8000/v1/embeddings",
            model="m",
            contract={"dimensions": [384]},
        ),
        metrics={
            "base": shown,
            "fineTuned": shown,
            "served": shown,
            "relativeUplift": "0.10900",
            "confidenceInterval": ["0.07000", "0.15000"],
            "queries": 312,
        },
        verification={
            "withinTolerance": True,
            "effectiveTolerance": {"@1": "0.03001"},
            "largestDifference": {"metric": "recall@10", "difference": "0.00000"},
            "queries": 312,
            "changedQueries": 1,
            "invalidVectors": 0,
            "artefactDigest": digest,
        },
        last_failure={
            "stage": "prep",
            "job": "docs-prep-0-1",
            "reason": "PodLost",
            "message": "gone",
            "exitCode": -1,
            "node": "n",
            "time": "2026-01-01T00:00:00Z",
            "logTail": "…",
        },
        resolved={"stages": {"prep": {"margin": 0.95}}},
    )


def test_a_full_status_is_kept_to_the_last_field_and_shown_in_columns(api: Api, namespace: str) -> None:
    api.apply(resource(namespace))
    status = _rich_status().to_json()
    patch = json.dumps({"status": status})
    api.kubectl("patch", "eft", "docs", "-n", namespace, "--subresource=status", "--type=merge", "-p", patch)
    assert api.get("eft", "docs", namespace)["status"] == status
    header, row = api.kubectl("get", "eft", "-n", namespace).splitlines()
    assert header.split() == ["NAME", "PHASE", "STAGE", "PROGRESS", "NDCG@10", "UPLIFT", "VERIFIED", "AGE"]
    assert row.split()[:-1] == ["docs", "Ready", "verify", "done", "0.61559", "+10.9%", "True"]
    wide = api.kubectl("get", "eft", "-n", namespace, "-o", "wide")
    assert "http://docs.ns:8000/v1/embeddings" in wide
