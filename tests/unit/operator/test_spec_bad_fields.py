"""A manifest that cannot be acted on: each error names its field."""

from __future__ import annotations

from typing import Any

import pytest
from unit.operator.builders import IMAGES, OPEN_AI, a_manifest

from embedding_operator.resource.api import SpecError
from embedding_operator.resource.spec import parse_spec


def stages(**items: Any) -> dict[str, Any]:
    return {"stages": items}


def backend(**nim: Any) -> dict[str, Any]:
    return stages(deploy={"image": "nim:1", "backend": {"nim": nim}})


BAD: list[tuple[dict[str, Any], str]] = [
    ({"baseModel": None}, "spec.baseModel"),
    ({"baseModel": {"name": "m"}}, "spec.baseModel.source"),
    ({"baseModel": {"name": "m", "source": {}}}, "spec.baseModel.source"),
    ({"baseModel": {"name": "m", "source": {"pvc": {}}}}, "spec.baseModel.source.pvc.claimName"),
    *(
        (
            {"baseModel": {"name": "m", "source": {"huggingFace": {"revision": "a" * 40} | said}}},
            f"spec.baseModel.source.huggingFace.{field}",
        )
        for said, field in (
            ({"tokenSecretRef": {"name": "hub"}}, "tokenSecretRef"),
            ({"caBundle": {"key": "ca.crt"}}, "caBundle"),
            ({"caBundle": {"name": ""}}, "caBundle"),
        )
    ),
    ({"corpus": {}}, "spec.corpus.source"),
    (
        {"corpus": {"source": {"pvc": {"claimName": "a"}, "configMap": {"name": "b"}}}},
        "spec.corpus.source",
    ),
    ({"corpus": {"source": {"configMap": {"name": ""}}}}, "spec.corpus.source.configMap.name"),
    (
        {"corpus": {"source": {"pvc": {"claimName": "a", "path": "../b"}}}},
        "spec.corpus.source.pvc.path",
    ),
    ({"corpus": {"source": {"image": {"path": "/docs"}}}}, "spec.corpus.source.image.reference"),
    ({"corpus": {"source": {"image": {"reference": "docs:1"}}}}, "spec.corpus.source.image.path"),
    *(
        ({"corpus": {"source": {"image": {"reference": "docs:1", "path": path}}}}, "spec.corpus.source.image.path")
        for path in ("", "/", "//", ".", "/.", "./", "/./.", "/proc", "proc", "//proc/", "./sys/a", "/dev/shm")
    ),
    ({"corpus": {"source": {"configMap": {"name": "d"}}, "minTextLength": "x"}}, "spec.corpus.minTextLength"),
    ({"evaluation": {"beir": {"configMap": {"name": "d"}}}}, "spec.evaluation.beir"),
    ({"evaluation": {"kValues": [10, 5]}}, "spec.evaluation.kValues"),
    ({"evaluation": {"kValues": [0, 10]}}, "spec.evaluation.kValues"),
    ({"evaluation": {"kValues": ["10"]}}, "spec.evaluation.kValues"),
    ({"evaluation": {"kValues": [1, 5]}}, "spec.evaluation.kValues"),
    (stages(sdg={}), "spec.stages.sdg.provider"),
    (stages(sdg={"provider": {"extractive": {}, **OPEN_AI}}), "spec.stages.sdg.provider"),
    *(
        (
            stages(sdg={"provider": {"dataDesigner": {"baseURL": "http://a", "model": "m"} | changes}}),
            f"spec.stages.sdg.provider.dataDesigner.{field}",
        )
        for changes, field in (
            ({"baseURL": "llm:8000"}, "baseURL"),
            ({"complexity": 7}, "complexity"),
            ({"complexity": 1}, "complexity"),
            ({"hops": 0}, "hops"),
            ({"hops": 4}, "hops"),
            ({"types": {"multiHop": 0, "structural": 0, "contextual": 0}}, "types"),
            ({"reasoning": ["magical"]}, "reasoning"),
            ({"duplicateCosine": "1.1"}, "duplicateCosine"),
            ({"documentsPerBundle": 0}, "documentsPerBundle"),
            ({"embedding": {"baseURL": "http://b"}}, "embedding.model"),
            ({"embedding": {"model": "e", "apiKeySecretRef": {"name": "a", "key": "b"}}}, "embedding.apiKeySecretRef"),
        )
    ),
    (stages(sdg={"provider": OPEN_AI, "preview": 0}), "spec.stages.sdg.preview"),
    (stages(sdg={"provider": OPEN_AI, "maxTokensTotal": 0}), "spec.stages.sdg.maxTokensTotal"),
    (
        stages(sdg={"provider": OPEN_AI, "prices": {"promptPerMillion": "-1"}}),
        "spec.stages.sdg.prices.promptPerMillion",
    ),
    (
        stages(sdg={"provider": {"openAI": {"baseURL": "file:///etc", "model": "m"}}}),
        "spec.stages.sdg.provider.openAI.baseURL",
    ),
    (
        stages(sdg={"provider": {"openAI": {"baseURL": "http://a", "apiKeySecretRef": {"name": "a"}}}}),
        "spec.stages.sdg.provider.openAI.apiKeySecretRef",
    ),
    *(
        (
            stages(sdg={"provider": {"openAI": {"baseURL": "http://a", "model": "m"} | changes}}),
            f"spec.stages.sdg.provider.openAI.{field}",
        )
        for changes, field in (
            ({"baseURL": "https://me:secret@llm/v1"}, "baseURL"),
            ({"baseURL": "https://me@llm/v1?api-version=1"}, "baseURL"),
            ({"baseURL": "http://[::1/v1"}, "baseURL"),
            ({"caBundle": {"key": "ca.crt"}}, "caBundle"),
            ({"parameters": {"model": "other"}}, "parameters.model"),
            ({"parameters": {"stream": True}}, "parameters.stream"),
            ({"parameters": {"messages": None}}, "omitParameters"),
            ({"omitParameters": ["model"]}, "omitParameters"),
            ({"parameters": {"seed": 1}, "omitParameters": ["seed"]}, "omitParameters"),
            ({"parameters": {"stop": "x" * 5000}}, "parameters"),
            ({"judge": {}}, "judge.model"),
            ({"judge": {"model": "j", "baseURL": "ftp://llm"}}, "judge.baseURL"),
            ({"judge": {"model": "j", "apiKeySecretRef": {"name": "a", "key": "b"}}}, "judge.apiKeySecretRef"),
            ({"judge": {"model": "j", "caBundle": {"name": "a"}}}, "judge.caBundle"),
            ({"judge": {"model": "j", "parameters": {"model": "k"}}}, "judge.parameters.model"),
        )
    ),
    (stages(sdg={"provider": {"extractive": {}}, "pairsPerDocument": 0}), "spec.stages.sdg.pairsPerDocument"),
    (stages(prep={"margin": "1.5"}), "spec.stages.prep.margin"),
    (stages(prep={"margin": "nan"}), "spec.stages.prep.margin"),
    (stages(prep={"qualityThreshold": "high"}), "spec.stages.prep.qualityThreshold"),
    (stages(prep={"batchSize": True}), "spec.stages.prep.batchSize"),
    (stages(finetune={"epochs": "three"}), "spec.stages.finetune.epochs"),
    (stages(finetune={"learningRate": "0"}), "spec.stages.finetune.learningRate"),
    (stages(finetune={"warmupSteps": -1}), "spec.stages.finetune.warmupSteps"),
    (stages(finetune={"epochs": 101}), "spec.stages.finetune.epochs"),
    (stages(finetune={"negativesPerQuery": 6}), "spec.stages.finetune.negativesPerQuery"),
    (stages(prep={"hardNegatives": 3}), "spec.stages.finetune.negativesPerQuery"),
    (stages(finetune={"side": "passage"}), "spec.stages.finetune.side"),
    *(
        (
            stages(
                finetune={"side": "query"}, deploy={"image": "nim:1", "backend": {"nim": {"generation": generation}}}
            ),
            "spec.stages.finetune.side",
        )
        for generation in (1, 2)
    ),
    ({"corpus": {"source": {"configMap": {"name": "d"}}, "version": "v" * 65}}, "spec.corpus.version"),
    (stages(finetune={"retries": -1}), "spec.stages.finetune.retries"),
    (stages(finetune={"timeoutSeconds": 0}), "spec.stages.finetune.timeoutSeconds"),
    (stages(finetune={"env": [{"name": "EFT_REQUEST"}]}), "spec.stages.finetune.env"),
    (stages(finetune={"gpusPerNode": -1}), "spec.stages.finetune.gpusPerNode"),
    (stages(finetune={"gpusPerNode": 17}), "spec.stages.finetune.gpusPerNode"),
    (
        stages(finetune={"gpusPerNode": 2, "resources": {"limits": {"nvidia.com/gpu": 4}}}),
        "spec.stages.finetune.gpusPerNode",
    ),
    (
        stages(finetune={"gpusPerNode": 1, "resources": {"limits": {"nvidia.com/mig-1g.10gb": 1}}}),
        "spec.stages.finetune.gpusPerNode",
    ),
    (
        stages(finetune={"gpusPerNode": 1, "resources": {"limits": {"amd.com/gpu": 1}}}),
        "spec.stages.finetune.gpusPerNode",
    ),
    (
        stages(finetune={"resources": {"limits": {"amd.com/gpu": "half"}}}),
        "spec.stages.finetune.resources.limits.amd.com/gpu",
    ),
    (stages(deploy={"resources": {"limits": {"amd.com/gpu": 1}}}), "spec.stages.deploy.resources.limits"),
    (
        stages(finetune={"resources": {"limits": {"nvidia.com/gpu": "1.5"}}}),
        "spec.stages.finetune.resources.limits.nvidia.com/gpu",
    ),
    (stages(finetune={"nodes": 0}), "spec.stages.finetune.nodes"),
    (stages(finetune={"nodes": 65}), "spec.stages.finetune.nodes"),
    (stages(finetune={"matryoshka": [4]}), "spec.stages.finetune.matryoshka"),
    (stages(finetune={"matryoshka": 64}), "spec.stages.finetune.matryoshka"),
    (stages(finetune={"validation": True}), "spec.stages.finetune.validation"),
    (stages(finetune={"validation": {"share": "0.6"}}), "spec.stages.finetune.validation.share"),
    (stages(finetune={"validation": {"patience": 0}}), "spec.stages.finetune.validation.patience"),
    (stages(finetune={"lora": {"rank": 0}}), "spec.stages.finetune.lora.rank"),
    (stages(finetune={"lora": {"targets": [""]}}), "spec.stages.finetune.lora.targets"),
    (stages(finetune={"lora": {}, "side": "query"}), "spec.stages.finetune.lora"),
    (stages(finetune={"validation": {}, "side": "query"}), "spec.stages.finetune.validation"),
    (stages(finetune={"inBatchNegatives": True, "side": "query"}), "spec.stages.finetune.inBatchNegatives"),
    (stages(finetune={"inBatchNegatives": True, "preset": "auto"}), "spec.stages.finetune.inBatchNegatives"),
    (stages(finetune={"parallelism": "TP"}), "spec.stages.finetune.parallelism"),
    (stages(finetune={"nodes": 2}), "spec.storage.accessModes"),
    (stages(finetune={"nodes": 2}) | {"storage": {"accessModes": ["ReadWriteOnce"]}}, "spec.storage.accessModes"),
    (stages(eval={"batchSize": 1.5}), "spec.stages.eval.batchSize"),
    (stages(deploy={"backend": {"nim": {}, "onnx": {}}}), "spec.stages.deploy.backend"),
    (stages(deploy={"backend": {"nim": {}}}), "spec.stages.deploy.image"),
    (stages(deploy={"backend": {"torch": {}, "onnx": {}}}), "spec.stages.deploy.backend"),
    (stages(deploy={"resources": {"limits": {"nvidia.com/gpu": 1}}}), "spec.stages.deploy.resources.limits"),
    (stages(deploy={"replicas": 0}), "spec.stages.deploy.replicas"),
    (stages(deploy={"strategy": "Canary"}), "spec.stages.deploy.strategy"),
    (stages(deploy={"env": [{"name": "NIM_CUSTOM_MODEL", "value": "/"}]}), "spec.stages.deploy.env"),
    (
        stages(deploy={"resources": {"limits": {"nvidia.com/gpu": "half"}}}),
        "spec.stages.deploy.resources.limits.nvidia.com/gpu",
    ),
    (backend(generation=3), "spec.stages.deploy.backend.nim.generation"),
    (backend(ngcKeySecretRef={"key": "k"}), "spec.stages.deploy.backend.nim.ngcKeySecretRef"),
    ({"tolerance": {"atOne": "2"}}, "spec.tolerance.atOne"),
    ({"tolerance": {"atFiveAndAbove": "-0.1"}}, "spec.tolerance.atFiveAndAbove"),
    ({"tolerance": {"minCosine": "1.1"}}, "spec.tolerance.minCosine"),
    ({"storage": {"existingClaim": "a", "size": "1Gi"}}, "spec.storage"),
    (
        {"storage": {"existingClaim": "a"}, "corpus": {"source": {"pvc": {"claimName": "a"}}}},
        "spec.corpus.source.pvc.path",
    ),
    (
        {"storage": {"existingClaim": "a"}, "evaluation": {"beir": {"pvc": {"claimName": "a", "path": "/"}}}},
        "spec.evaluation.beir.pvc.path",
    ),
    ({"storage": {"accessModes": ["ReadWriteOncePod"]}}, "spec.storage.accessModes"),
    ({"storage": {"accessModes": ["ReadWriteOnce", "ReadOnlyMany"]}}, "spec.storage.accessModes"),
    ({"runPolicy": {"startDeadlineSeconds": "soon"}}, "spec.runPolicy.startDeadlineSeconds"),
    ({"runPolicy": {"activeDeadlineSeconds": 0}}, "spec.runPolicy.activeDeadlineSeconds"),
    ({"limits": {"gpuSeconds": "1h"}}, "spec.limits.gpuSeconds"),
    ({"limits": {"llmTokens": 0}}, "spec.limits.llmTokens"),
    ({"retention": {"failedSeconds": -1}}, "spec.retention.failedSeconds"),
    ({"retention": {"revisions": 0}}, "spec.retention.revisions"),
]


@pytest.mark.parametrize(("sections", "field"), BAD, ids=[field for _, field in BAD])
def test_a_field_that_cannot_be_acted_on_is_named(sections: dict[str, Any], field: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec(a_manifest(**sections), IMAGES)
    assert caught.value.field == field
    assert str(caught.value).startswith(f"{field}: ")
