"""What the API server accepts before the operator sees it, and what the schema itself has to be."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from apiserver.api import EFT, ROOT, Api, at, examples, resource
from apiserver.manifests import IMAGES
from apiserver.schema import IMAGE, OPEN_AI, SECRET

from embedding_operator.resource.spec import parse_spec

AZURE = {
    "baseURL": "https://name.example/openai/deployments/m?api-version=2024-10-21",
    "model": "m",
    "caBundle": {"name": "pki", "key": "all.pem"},
    "parameters": {"max_tokens": 8192, "stop": ["x"], "chat_template_kwargs": {"enable_thinking": False}},
    "omitParameters": ["seed"],
}
POD: dict[str, Any] = {
    "image": f"mine@sha256:{'0' * 64}",
    "resources": {
        "requests": {"cpu": "500m", "memory": "1.5Gi", "ephemeral-storage": "1e9"},
        "limits": {"nvidia.com/gpu": 2, "memory": "8Gi"},
    },
    "nodeSelector": {"nvidia.com/gpu.product": "H100"},
    "tolerations": [{"key": "gpu", "operator": "Equal", "value": "a", "effect": "NoExecute", "tolerationSeconds": 0}],
    "priorityClassName": "batch",
    "runtimeClassName": "nvidia",
    "podLabels": {"team.example/cost-centre": "search"},
    "podAnnotations": {"team.example/why": "a text, with spaces"},
    "env": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}, {"name": "EMPTY"}],
    "timeoutSeconds": 600,
}
JOB = {**POD, "retries": 0}

ACCEPTED: dict[str, dict[str, Any]] = {
    "the smallest": {},
    "everything said": {
        "suspend": True,
        "imagePullSecrets": [{"name": "a"}, {"name": "b"}],
        "baseModel": {
            "maxTokens": 512,
            "prefixes": {"query": "query: ", "passage": ""},
            "source": {"pvc": None, "image": IMAGE},
        },
        "corpus": {"source": {"configMap": None, "image": IMAGE}, "include": ["**/*.md"], "minTextLength": 1},
        "evaluation": {
            "beir": {"image": IMAGE},
            "kValues": [1, 10, 20],
            "freeze": False,
            "guards": [{"name": "general", "beir": {"image": IMAGE}, "maxRegression": "0.05"}],
        },
        "gates": {
            "metrics": ["ndcg@20", "recall@1"],
            "minRelativeUplift": "0.01",
            "maxRegression": {"base": "0", "active": "0.5"},
            "criterion": "NotInferior",
            "onFail": "Warn",
            "enabled": True,
        },
        "verification": {"intervalSeconds": 3600},
        "schedule": {
            "cron": "0,30 6-20/2 1,15 jan-MAR mon-fri",
            "timeZone": "America/Port-au-Prince",
            "onCorpusChange": "Report",
        },
        "stages": {
            "inputs": JOB,
            "sdg": {
                **JOB,
                "provider": {"extractive": None, "openAI": {**OPEN_AI, "judge": {"model": "strict"}}},
                "pairsPerDocument": 3,
                "concurrency": 64,
                "judgeConcurrency": 4,
                "maxTokensTotal": 10**9,
                "preview": 5,
                "prices": {"promptPerMillion": "0.06", "completionPerMillion": 0.24},
                "seed": 0,
            },
            "prep": {**JOB, "qualityThreshold": "8", "evalFraction": "0.25", "margin": "1", "hardNegatives": 7},
            "finetune": {**JOB, "epochs": 1, "learningRate": "2.5e-5", "weightDecay": "0", "warmupSteps": 0},
            "eval": {**JOB, "batchSize": 16},
            "export": {**JOB, "precision": "fp16"},
            "deploy": {**POD, "backend": {"onnx": {}}, "modelName": "team/m", "replicas": 3, "strategy": "BlueGreen"},
            "verify": JOB,
        },
        "tolerance": {"atOne": "0.02", "atFiveAndAbove": "0", "minCosine": "0.95"},
        "storage": {"size": "10Gi", "storageClassName": "fast", "accessModes": ["ReadWriteMany"]},
        "runPolicy": {"startDeadlineSeconds": 60, "activeDeadlineSeconds": 86400},
        "limits": {"gpuSeconds": 180_000, "llmTokens": 10**9},
        "retention": {"succeededSeconds": 0, "failedSeconds": 604_800, "revisions": 2},
    },
    "decimals without quotes": {
        "stages": {
            "prep": {"qualityThreshold": 8, "evalFraction": 0.25},
            "finetune": {"learningRate": 1e-5, "weightDecay": 0, "temperature": 0.0001},
        },
        "tolerance": {"atOne": 0.02, "atFiveAndAbove": 1, "minCosine": 0.95},
    },
    "no GPU, said as a number": at("stages.finetune.resources.limits", {"nvidia.com/gpu": 0}),
    "no GPU, said as a text": at("stages.finetune.resources.limits", {"nvidia.com/gpu": "0"}),
    "several GPUs": at("stages.finetune", {"gpusPerNode": 8, "nodes": 1, "parallelism": "FSDP"}),
    "as many GPUs, said twice": at(
        "stages.finetune", {"gpusPerNode": 2, "resources": {"limits": {"nvidia.com/gpu": "2", "memory": "64Gi"}}}
    ),
    "several nodes, a claim that exists": {
        "stages": {"finetune": {"nodes": 4}},
        "storage": {"existingClaim": "shared"},
    },
    "several nodes, a claim that they can share": {
        "stages": {"finetune": {"nodes": 64, "gpusPerNode": 0}},
        "storage": {"storageClassName": "nfs", "accessModes": ["ReadWriteMany", "ReadWriteOnce"]},
    },
    "a labelled set in a volume": at("evaluation.beir.pvc", {"claimName": "labelled", "path": "beir"}),
    "queries' side alone, on torch": {
        "stages": {"finetune": {"side": "query"}, "deploy": {"backend": {"torch": {}}}},
    },
    "sizes, a validation, adapters and in-batch negatives": {
        "stages": {
            "finetune": {"matryoshka": [64, 32], "validation": {}, "lora": {"rank": 8}, "inBatchNegatives": True}
        },
    },
    "both sides, and a NIM": {
        "stages": {"finetune": {"side": "both"}, "deploy": {"image": "nim:1", "backend": {"nim": {}}}},
    },
    "an endpoint with a query, parameters and certificates": at(
        "stages.sdg.provider", {"extractive": None, "openAI": AZURE}
    ),
    "a NIM": at("stages.deploy", {"image": "nim:1", "backend": {"nim": {"ngcKeySecretRef": SECRET}}}),
    "the server on torch": at("stages.deploy.backend", {"torch": {}}),
    "a NIM of generation 2": at("stages.deploy", {"image": "nim:2", "backend": {"nim": {"generation": 2}}}),
    **{
        f"a NIM of generation {said!r}": at(
            "stages.deploy", {"image": "nim:2.4", "backend": {"nim": {"generation": said}}}
        )
        for said in (1, "1", "2", "2.0", "2.2", "2.4", "auto")
    },
    "a NIM by its operator": at(
        "stages.deploy", {"image": "nim:2.4", "backend": {"nimService": {"generation": "auto"}}}
    ),
    "vLLM": at("stages.deploy", {"image": "vllm:1", "backend": {"vllm": {"sharedMemory": "4Gi"}}}),
    "a model from a hub": at("baseModel.source", {"pvc": None, "huggingFace": {"revision": "a" * 40}}),
    "a hub with a certificate of its own": at(
        "baseModel.source", {"pvc": None, "huggingFace": {"revision": "a" * 40, "caBundle": {"name": "pki"}}}
    ),
    "an existing claim": at("storage.existingClaim", "shared"),
    **{
        f"of an image the folder {path}": at("evaluation.beir.image", {"reference": "x", "path": path})
        for path in ("docs", "/./docs", "/a/proc", "/process", "/.hidden", "...")
    },
    "a folder whose name begins with dots": at(
        "corpus.source", {"configMap": None, "pvc": {"claimName": "c", "path": "..a/b"}}
    ),
}


@pytest.mark.parametrize("row", ACCEPTED)
def test_accepted_and_understood(api: Api, scratch: str, row: str) -> None:
    stored = api.make(EFT.format(scratch), resource(scratch, ACCEPTED[row]), dryRun="All")
    assert stored["spec"] == resource(scratch, ACCEPTED[row])["spec"], "the schema adds nothing to what Git holds"
    parse_spec(stored["spec"], IMAGES)


@pytest.mark.parametrize("name", examples())
def test_every_example_is_accepted_as_its_reader_applies_it(api: Api, namespace: str, name: str) -> None:
    manifest = examples()[name]
    manifest["metadata"]["namespace"] = namespace
    api.kubectl("apply", "--validate=strict", "-f", "-", stdin=json.dumps(manifest))
    parse_spec(manifest["spec"], IMAGES)


def _walk(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, inner in (schema.get("properties") or {}).items():
        yield from _walk(inner, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from _walk(schema[key], f"{path}[]")


def test_nothing_a_user_writes_is_unbounded_and_nothing_is_defaulted() -> None:
    crd = yaml.safe_load((ROOT / "crds" / "embeddingfinetunes.embedding-operator.dev.yaml").read_text())
    spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    bounds = {"string": ("maxLength", "enum"), "array": ("maxItems",), "integer": ("maximum", "enum", "format")}
    for path, schema in _walk(spec, "spec"):
        assert "default" not in schema, path
        wanted = bounds.get(schema.get("type", ""), ())
        assert not wanted or any(key in schema for key in wanted), f"{path} has none of {wanted}"
        assert "additionalProperties" not in schema or "maxProperties" in schema, path
