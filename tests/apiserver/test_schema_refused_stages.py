"""What the API server refuses of a manifest's stages before the operator sees it: their settings, pods and servers."""

from __future__ import annotations

import pytest
from apiserver.api import Api, Null, at
from apiserver.schema import OPEN_AI, SECRET, Refusal, must_refuse

from embedding_stages.contract.servers import RESERVED_VARIABLES

REFUSED: dict[str, Refusal] = {
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
    "several GPUs in another stage": (at("stages.eval.nodes", 2), "spec.stages.eval.nodes", "unknown field"),
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
} | {
    f"the server's own variable {name}": (
        at("stages.deploy.env", [{"name": name}]),
        "spec.stages.deploy.env[0].name",
        "the operator sets this variable",
    )
    for name in sorted(RESERVED_VARIABLES)
}


@pytest.mark.parametrize("row", REFUSED)
def test_refused_by_field_and_with_a_reason(api: Api, scratch: str, row: str) -> None:
    must_refuse(api, scratch, REFUSED[row])
