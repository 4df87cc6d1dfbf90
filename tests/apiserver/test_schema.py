"""What the API server accepts and refuses, before the operator sees it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from apiserver.api import EFT, ROOT, Api, Null, at, examples, resource

from embedding_operator.resource.api import TORCH_SERVER
from embedding_operator.resource.spec import parse_spec
from embedding_stages.contract import Stage
from embedding_stages.contract.servers import RESERVED_VARIABLES

SECRET = {"name": "llm", "key": "token"}
OPEN_AI = {"baseURL": "http://llm:8000/v1", "model": "m", "apiKeySecretRef": SECRET}
AZURE = {
    "baseURL": "https://name.example/openai/deployments/m?api-version=2024-10-21",
    "model": "m",
    "caBundle": {"name": "pki", "key": "all.pem"},
    "parameters": {"max_tokens": 8192, "stop": ["x"], "chat_template_kwargs": {"enable_thinking": False}},
    "omitParameters": ["seed"],
}
IMAGE = {"reference": "files:1", "path": "/files", "pullPolicy": "Always"}
IMAGES: dict[str, str] = dict.fromkeys((*Stage, TORCH_SERVER), "image:1")
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

HUB = at("baseModel.source", {"pvc": None, "huggingFace": {"revision": "main"}})
# row -> patch, the field that is named, what is said about it
REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "a minute that no hour has": (
        {"schedule": {"cron": "61 * * * *"}},
        "spec.schedule.cron",
        "the five fields of cron",
    ),
    "a look each minute": ({"schedule": {"cron": "* * * * *"}}, "spec.schedule.cron", "*/15, */20 or */30"),
    "a look each second": ({"schedule": {"cron": "* * * * * *"}}, "spec.schedule.cron", "the five fields of cron"),
    "a look each ten minutes": ({"schedule": {"cron": "*/10 * * * *"}}, "spec.schedule.cron", "*/15, */20 or */30"),
    "looks ten minutes apart": ({"schedule": {"cron": "0,10 3 * * *"}}, "spec.schedule.cron", "at least 15 apart"),
    "looks near to each other around the hour": (
        {"schedule": {"cron": "5,55 * * * *"}},
        "spec.schedule.cron",
        "also around the hour",
    ),
    "a shortcut of cron": ({"schedule": {"cron": "@daily"}}, "spec.schedule.cron", "such as '0 3 * * 1' for Mondays"),
    "a schedule without a time": ({"schedule": {"timeZone": "UTC"}}, "spec.schedule.cron", "Required value"),
    "a zone that is no name": (
        {"schedule": {"cron": "0 3 * * 1", "timeZone": "+01:00"}},
        "spec.schedule.timeZone",
        "such as Europe/Berlin",
    ),
    "a change with a word that is not known": (
        {"schedule": {"cron": "0 3 * * 1", "onCorpusChange": "Ignore"}},
        "spec.schedule.onCorpusChange",
        "Unsupported value",
    ),
    "adapters of queries' side alone": (
        {"stages": {"finetune": {"side": "query", "lora": {}}, "deploy": {"backend": {"torch": {}}}}},
        "spec.stages.finetune.lora",
        "set side to both",
    ),
    "validation of queries' side alone": (
        {"stages": {"finetune": {"side": "query", "validation": {}}, "deploy": {"backend": {"torch": {}}}}},
        "spec.stages.finetune.validation",
        "set side to both",
    ),
    "in-batch negatives towards scores": (
        {"stages": {"finetune": {"preset": "auto", "inBatchNegatives": True}}},
        "spec.stages.finetune.inBatchNegatives",
        "take preset recipe",
    ),
    "queries' side alone, and a NIM": (
        {"stages": {"finetune": {"side": "query"}, "deploy": {"image": "nim:1", "backend": {"nim": {}}}}},
        "spec.stages.finetune.side",
        "take backend onnx or torch",
    ),
    "no base model": ({"baseModel": None}, "spec.baseModel", "Required value"),
    "no documents": ({"corpus": None}, "spec.corpus", "Required value"),
    "no stages": ({"stages": None}, "spec.stages", "Required value"),
    "no source of documents": (
        at("corpus.source.configMap", None),
        "spec.corpus.source",
        "exactly one of pvc, configMap",
    ),
    "two sources of documents": (
        at("corpus.source.pvc", {"claimName": "x"}),
        "spec.corpus.source",
        "exactly one of pvc, configMap, image",
    ),
    "two sources of the model": (
        at("baseModel.source.image", IMAGE),
        "spec.baseModel.source",
        "exactly one of pvc, image",
    ),
    "two labelled sets": (
        at("evaluation.beir", {"pvc": {"claimName": "x"}, "image": IMAGE}),
        "spec.evaluation.beir",
        "exactly one of pvc, image",
    ),
    "a branch instead of a commit": (HUB, "spec.baseModel.source.huggingFace.revision", "a branch would"),
    "a path out of the volume": (
        at("baseModel.source.pvc.path", "a/../../b"),
        "spec.baseModel.source.pvc.path",
        "must not contain '..'",
    ),
    "a path out of the image": (
        at("evaluation.beir.image", {"reference": "x", "path": ".."}),
        "spec.evaluation.beir.image.path",
        "must not contain '..'",
    ),
    **{
        f"of an image the path {path}": (
            at("evaluation.beir.image", {"reference": "x", "path": path}),
            "spec.evaluation.beir.image.path",
            "must name a folder of the image",
        )
        for path in ("/", "//", ".", "/./.", "/proc", "./sys/a", "dev")
    },
    "one prefix of two": (at("baseModel.prefixes.query", "q"), "spec.baseModel.prefixes.passage", "Required value"),
    "no provider": (at("stages.sdg", {"provider": None}), "spec.stages.sdg.provider", "Required value"),
    "a provider without a name": (
        at("stages.sdg.provider.extractive", None),
        "spec.stages.sdg.provider",
        "exactly one of",
    ),
    "a provider without its braces": (
        {"stages": {"sdg": {"provider": Null({"extractive": None})}}},
        "spec.stages.sdg.provider",
        "write extractive: {}",
    ),
    "a server without its braces": (
        at("stages.deploy.backend", Null({"onnx": None})),
        "spec.stages.deploy.backend",
        "write onnx: {}",
    ),
    "two providers": (
        at("stages.sdg.provider.openAI", OPEN_AI),
        "spec.stages.sdg.provider",
        "exactly one of extractive",
    ),
    "an endpoint that is no URL": (
        at("stages.sdg.provider", {"extractive": None, "openAI": {**OPEN_AI, "baseURL": "llm:8000"}}),
        "spec.stages.sdg.provider.openAI.baseURL",
        "must start with http:// or https://",
    ),
    "a password in a URL": (
        at("stages.sdg.provider", {"extractive": None, "openAI": {**OPEN_AI, "baseURL": "https://me:x@llm/v1"}}),
        "spec.stages.sdg.provider.openAI.baseURL",
        "must not hold a user or a password",
    ),
    "certificates without the name of a ConfigMap": (
        at("stages.sdg.provider", {"extractive": None, "openAI": {**OPEN_AI, "caBundle": {"key": "ca.crt"}}}),
        "spec.stages.sdg.provider.openAI.caBundle.name",
        "Required value",
    ),
    "a hub's certificates without the name of a ConfigMap": (
        at("baseModel.source", {"pvc": None, "huggingFace": {"revision": "a" * 40, "caBundle": {"key": "ca.crt"}}}),
        "spec.baseModel.source.huggingFace.caBundle.name",
        "Required value",
    ),
    "parameters that are no object": (
        at("stages.sdg.provider", {"extractive": None, "openAI": {**OPEN_AI, "parameters": ["seed"]}}),
        "spec.stages.sdg.provider.openAI.parameters",
        "Invalid value",
    ),
    "a parameter that is omitted twice": (
        at("stages.sdg.provider", {"extractive": None, "openAI": {**OPEN_AI, "omitParameters": ["seed"] * 2}}),
        "spec.stages.sdg.provider.openAI.omitParameters[1]",
        "Duplicate value",
    ),
    **{
        f"Data Designer with {name} {value}": (
            at("stages.sdg.provider", {"extractive": None, "dataDesigner": {**OPEN_AI, name: value}}),
            f"spec.stages.sdg.provider.dataDesigner.{name}",
            says,
        )
        for name, value, says in (
            ("complexity", 7, "should be less than or equal to 5"),
            ("complexity", 1, "should be greater than or equal to 2"),
            ("hops", 0, "should be greater than or equal to 1"),
            ("hops", 4, "should be less than or equal to 3"),
            ("reasoning", ["magical"], "Unsupported value"),
            ("judge", {"baseURL": "http://judge/v1"}, "Required value"),
        )
    },
    "a Secret without its key": (
        at("stages.sdg.provider", {"extractive": None, "openAI": {**OPEN_AI, "apiKeySecretRef": {"name": "x"}}}),
        "spec.stages.sdg.provider.openAI.apiKeySecretRef.key",
        "Required value",
    ),
    "a gate's metric that is not evaluated": (
        at("gates.metrics", ["ndcg@7"]),
        "spec.gates.metrics",
        "must be among evaluation.kValues",
    ),
    "a gate's metric that is none": (at("gates.metrics", ["ndcg"]), "spec.gates.metrics[0]", "such as ndcg@10"),
    "a criterion that is none": (at("gates.criterion", "Nearly"), "spec.gates.criterion", "Unsupported value"),
    "a fall by more than everything": (
        at("gates.maxRegression.base", 2),
        "spec.gates.maxRegression.base",
        "less than or equal to 1",
    ),
    "two guards of one name": (
        at("evaluation.guards", [{"name": "a", "beir": {"image": IMAGE}}] * 2),
        "spec.evaluation.guards[1]",
        "Duplicate value",
    ),
    "a guard without a set": (
        at("evaluation.guards", [{"name": "a", "beir": {}}]),
        "spec.evaluation.guards[0].beir",
        "exactly one of pvc, image",
    ),
    "an acknowledgement that is no vector space": (
        at("stages.deploy.acknowledgedVectorSpace", "yes"),
        "spec.stages.deploy.acknowledgedVectorSpace",
        "16 hexadecimal digits",
    ),
    "a pinned revision of zero": (
        at("stages.deploy.pinRevision", 0),
        "spec.stages.deploy.pinRevision",
        "greater than or equal to 1",
    ),
    "canaries every second": (
        at("verification.intervalSeconds", 1),
        "spec.verification.intervalSeconds",
        "greater than or equal to 60",
    ),
    "cut-offs out of order": (at("evaluation.kValues", [10, 1]), "spec.evaluation.kValues", "rising order"),
    "cut-offs twice": (at("evaluation.kValues", [1, 10, 10]), "spec.evaluation.kValues", "unique"),
    "cut-offs without ten": (at("evaluation.kValues", [1, 5]), "spec.evaluation.kValues", "must contain 10"),
    "no cut-off": (at("evaluation.kValues", []), "spec.evaluation.kValues", "at least 1"),
    "a cut-off of zero": (
        at("evaluation.kValues", [0, 10]),
        "spec.evaluation.kValues[0]",
        "greater than or equal to 1",
    ),
    "a tolerance that is no number": (
        at("tolerance.atOne", "low"),
        "spec.tolerance.atOne",
        "a number between 0 and 1, such as 0.01",
    ),
    "a tolerance that is a list": (at("tolerance.atOne", [0.01]), "spec.tolerance.atOne", "at most 0 items"),
    "a tolerance that is an object": (at("tolerance.atOne", {"k": 1}), "spec.tolerance.atOne", "at most 0 items"),
    "a precision that ONNX Runtime lacks": (
        at("stages.export.precision", "int3"),
        "spec.stages.export.precision",
        "fp32",
    ),
    "a NIM without its image": (at("stages.deploy.backend.nim", {}), "spec.stages.deploy", "backend nim needs image"),
    "a NIM and our server": (
        at("stages.deploy", {"image": "x", "backend": {"nim": {}, "onnx": {}}}),
        "spec.stages.deploy.backend",
        "exactly one of onnx, torch, nim, nimService, vllm",
    ),
    "two servers of ours": (
        at("stages.deploy.backend", {"torch": {}, "onnx": {}}),
        "spec.stages.deploy.backend",
        "exactly one of onnx, torch, nim, nimService, vllm",
    ),
    "no server": (
        at("stages.deploy.backend", {}),
        "spec.stages.deploy.backend",
        "exactly one of onnx, torch, nim, nimService, vllm",
    ),
    "a NIM of an unknown generation": (
        at("stages.deploy", {"image": "x", "backend": {"nim": {"generation": 3}}}),
        "spec.stages.deploy.backend.nim.generation",
        "must be auto, '1', '2.0', '2.2' or '2.4', in quotes",
    ),
    "a NIM's generation without quotes": (
        at("stages.deploy", {"image": "x", "backend": {"nim": {"generation": 2.4}}}),
        "spec.stages.deploy.backend.nim.generation",
        "",
    ),
    "a NIM that its operator cannot mount": (
        at("stages.deploy", {"image": "x:2.0", "backend": {"nimService": {"generation": "2.0"}}}),
        "spec.stages.deploy.backend.nimService.generation",
        "must be auto, '1', '2.2' or '2.4', in quotes",
    ),
    "a NIMService without its image": (
        at("stages.deploy.backend.nimService", {}),
        "spec.stages.deploy",
        "backend nimService needs image",
    ),
    "vLLM without its image": (at("stages.deploy.backend.vllm", {}), "spec.stages.deploy", "backend vllm needs image"),
    "queries' side alone, and vLLM": (
        {"stages": {"finetune": {"side": "query"}, "deploy": {"image": "vllm:1", "backend": {"vllm": {}}}}},
        "spec.stages.finetune.side",
        "take backend onnx or torch",
    ),
    "a rollout that mixes models": (
        at("stages.deploy.strategy", "RollingUpdate"),
        "spec.stages.deploy.strategy",
        "BlueGreen",
    ),
    "several nodes, and no word about storage": (
        at("stages.finetune.nodes", 2),
        "spec.storage.accessModes",
        "must hold ReadWriteMany",
    ),
    "several nodes, and a volume of one": (
        {"stages": {"finetune": {"nodes": 2}}, "storage": {"accessModes": ["ReadWriteOnce"]}},
        "spec.storage.accessModes",
        "set nodes to 1",
    ),
    "other numbers of GPUs": (
        at("stages.finetune", {"gpusPerNode": 2, "resources": {"limits": {"nvidia.com/gpu": 1}}}),
        "spec.stages.finetune.gpusPerNode",
        "remove one of the two",
    ),
    "GPUs, and parts of them": (
        at("stages.finetune", {"gpusPerNode": 1, "resources": {"limits": {"nvidia.com/mig-1g.10gb": "1"}}}),
        "spec.stages.finetune.gpusPerNode",
        "remove one of the two",
    ),
    "a parallelism that there is not": (
        at("stages.finetune.parallelism", "TP"),
        "spec.stages.finetune.parallelism",
        "FSDP",
    ),
    "an image of a stage that is none": (
        at("stages.finetune.image", "https://registry.example/finetune:1"),
        "spec.stages.finetune.image",
        "must be an image, such as registry.example/team/name:1.0",
    ),
    "an image of the server in capitals": (at("stages.deploy.image", "Team/Server:1"), "deploy.image", "small letters"),
    "an image with documents that is none": (
        at("corpus.source", {"configMap": None, "image": {"reference": "docs:a b", "path": "/d"}}),
        "spec.corpus.source.image.reference",
        "must be an image",
    ),
    "several GPUs in another stage": (at("stages.eval.nodes", 2), "spec.stages.eval.nodes", "unknown field"),
    "a claim and a size": (at("storage", {"existingClaim": "x", "size": "1Gi"}), "spec.storage", "not both"),
    "a size that is no quantity": (at("storage.size", "big"), "spec.storage.size", "such as 20Gi"),
    "a volume of nothing": (at("storage.size", "0Gi"), "spec.storage.size", "such as 20Gi"),
    "an access mode that cannot be written": (
        at("storage.accessModes", ["ReadWriteOncePod"]),
        "spec.storage.accessModes",
        "values",
    ),
    "memory in words": (
        at("stages.prep.resources.limits.memory", "4 GB"),
        "spec.stages.prep.resources.limits[memory]",
        "GB is no unit",
    ),
    "less than no processor": (
        at("stages.prep.resources.requests.cpu", -1),
        "spec.stages.prep.resources.requests.cpu",
        "0",
    ),
    "a variable that no shell can name": (
        at("stages.prep.env", [{"name": "A B"}]),
        "spec.stages.prep.env[0].name",
        "variable's name",
    ),
    "a variable twice": (
        at("stages.prep.env", [{"name": "A"}, {"name": "A"}]),
        "spec.stages.prep.env[1]",
        "Duplicate value",
    ),
    "the operator's own variables": (
        at("stages.prep.env", [{"name": "EFT_REQUEST", "value": "{}"}]),
        "spec.stages.prep.env[0].name",
        "belong to the operator",
    ),
    "a variable from a Secret": (
        at("stages.prep.env", [{"name": "A", "valueFrom": {"secretKeyRef": SECRET}}]),
        "spec.stages.prep.env[0].valueFrom",
        "unknown field",
    ),
    "a misspelt field": (at("stages.finetune.epoch", 3), "spec.stages.finetune.epoch", "unknown field"),
    "a pod template": (at("stages.finetune.podTemplate", {}), "spec.stages.finetune.podTemplate", "unknown field"),
    "a security context": (at("stages.prep.securityContext", {}), "spec.stages.prep.securityContext", "unknown field"),
    "an account of the user's choice": (
        at("stages.prep.serviceAccountName", "admin"),
        "serviceAccountName",
        "unknown field",
    ),
    "a host path": (at("corpus.source.hostPath", {"path": "/etc"}), "spec.corpus.source.hostPath", "unknown field"),
    "a reference into another namespace": (
        at("corpus.source.configMap.namespace", "kube-system"),
        "spec.corpus.source.configMap.namespace",
        "unknown field",
    ),
} | {
    f"the server's own variable {name}": (
        at("stages.deploy.env", [{"name": name}]),
        "spec.stages.deploy.env[0].name",
        "the operator sets this variable",
    )
    for name in sorted(RESERVED_VARIABLES)
}

BAD_NAMES = ("1st", "has.dot", "ends-", "a" * 41)


@pytest.mark.parametrize("row", ACCEPTED)
def test_accepted_and_understood(api: Api, scratch: str, row: str) -> None:
    stored = api.make(EFT.format(scratch), resource(scratch, ACCEPTED[row]), dryRun="All")
    assert stored["spec"] == resource(scratch, ACCEPTED[row])["spec"], "the schema adds nothing to what Git holds"
    parse_spec(stored["spec"], IMAGES)


@pytest.mark.parametrize("row", REFUSED)
def test_refused_by_field_and_with_a_reason(api: Api, scratch: str, row: str) -> None:
    patch, field, reason = REFUSED[row]
    objection = api.objection(EFT.format(scratch), resource(scratch, patch))
    assert field in objection
    assert reason in objection


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_jobs_cannot_have_is_refused(api: Api, scratch: str, name: str) -> None:
    objection = api.objection(EFT.format(scratch), resource(scratch, name=name))
    # What no object of Kubernetes can be called is refused before the schema is asked.
    assert "Jobs and Services are named after it" in objection or "RFC 1123" in objection


def test_a_name_that_hosts_cannot_begin_with_is_refused(api: Api, scratch: str) -> None:
    patch = {"stages": {"finetune": {"nodes": 2}}, "storage": {"existingClaim": "shared"}}
    assert api.objection(EFT.format(scratch), resource(scratch, patch, "a" * 37)) == ""
    objection = api.objection(EFT.format(scratch), resource(scratch, patch, "a" * 38))
    assert "host names begin with it" in objection


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
