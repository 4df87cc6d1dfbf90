"""Resources in a namespace, and the operator's objects for them, built as the operator builds them."""

from __future__ import annotations

from typing import Any

from apiserver.api import EFT, Api, at, resource

from embedding_operator.objects.manifests.common import Owner
from embedding_operator.objects.manifests.job import build_job
from embedding_operator.objects.manifests.serving import build_deployment, build_service
from embedding_operator.objects.manifests.storage import build_workspace
from embedding_operator.objects.manifests.workers import build_rendezvous_service
from embedding_operator.resource.api import TORCH_SERVER, Spec
from embedding_operator.resource.spec import parse_spec
from embedding_stages.contract import Artefact, ArtefactRef, Stage, StageRequest

IMAGES: dict[str, str] = dict.fromkeys((*Stage, TORCH_SERVER), "image:1")
MODEL = ArtefactRef(path="export/f/servingModel", digest="sha256:" + "0" * 64)
FINGERPRINT = "0123456789abcdef" * 4
JOB_STAGES = [stage for stage in Stage if stage is not Stage.DEPLOY]
IMAGE = {"reference": "files:1", "path": "/files"}
SECRET = {"name": "s", "key": "k"}
OPEN_AI = {"baseURL": "http://llm:8000/v1", "model": "m", "apiKeySecretRef": SECRET, "caBundle": {"name": "pki"}}
HUB = {"revision": "a" * 40, "tokenSecretRef": SECRET, "caBundle": {"name": "pki"}}
NO_GPU = {"limits": {"nvidia.com/gpu": 0}}
POD: dict[str, Any] = {
    "resources": {
        "requests": {"cpu": "1000m", "memory": "1024Mi", "ephemeral-storage": "1e9"},
        "limits": {"cpu": "1.5", "memory": "2048Mi", "ephemeral-storage": "2G", "nvidia.com/gpu": 1},
    },
    "nodeSelector": {"gpu": "big"},
    "tolerations": [
        {"operator": "Exists"},
        {"key": "gpu", "value": "", "effect": "NoExecute", "tolerationSeconds": 0},
    ],
    "env": [{"name": "A", "value": "$(B) $$"}, {"name": "EMPTY"}],
    "timeoutSeconds": 60,
}

SPECS: dict[str, dict[str, Any]] = {
    "the smallest": {},
    "sources from images, a Secret for the LLM": {
        "baseModel": {"source": {"pvc": None, "image": IMAGE}, "prefixes": {"query": "", "passage": ""}},
        "corpus": {"source": {"configMap": None, "image": IMAGE}},
        "evaluation": {"beir": {"image": IMAGE}},
        "stages": {"sdg": {"provider": {"extractive": None, "openAI": OPEN_AI}}},
    },
    "sources from volumes, a claim that exists": {
        "corpus": {"source": {"configMap": None, "pvc": {"claimName": "docs", "path": "a/b"}}},
        "evaluation": {"beir": {"pvc": {"claimName": "labelled"}}},
        "storage": {"existingClaim": "shared"},
    },
    "everything in one claim": {
        "baseModel": {"source": {"pvc": {"claimName": "data", "path": "model"}}},
        "corpus": {"source": {"configMap": None, "pvc": {"claimName": "data", "path": "docs"}}},
        "evaluation": {"beir": {"pvc": {"claimName": "data", "path": "beir"}}},
        "storage": {"existingClaim": "data"},
    },
    "a model from a hub, everything about pods said": {
        "baseModel": {"source": {"pvc": None, "huggingFace": HUB}},
        "imagePullSecrets": [{"name": "pull"}],
        "stages": {stage.value: POD for stage in Stage} | {"deploy": {**POD, "backend": {"torch": {}}}},
        "storage": {"size": "1024Gi", "storageClassName": "", "accessModes": ["ReadWriteMany", "ReadWriteOnce"]},
    },
    "no GPU anywhere": at("stages", {stage: {"resources": NO_GPU} for stage in ("prep", "finetune", "eval")}),
    "training on four GPUs": at("stages.finetune", {"gpusPerNode": 4, "parallelism": "FSDP"}),
    "training on two nodes": {
        "stages": {"finetune": {"gpusPerNode": 0, "nodes": 2}},
        "storage": {"accessModes": ["ReadWriteMany"]},
    },
    "a NIM": {
        "stages": {
            "deploy": {
                "image": "nim:1",
                "backend": {"nim": {"ngcKeySecretRef": SECRET, "sharedMemory": "2048Mi"}},
                "resources": {"limits": {"memory": "8192Mi", "nvidia.com/gpu": 1}},
                "replicas": 2,
            }
        }
    },
    "the server on torch": at("stages.deploy.backend", {"torch": {}}),
    "a NIM of 2.4": at("stages.deploy", {"image": "nim:2.4.0", "backend": {"nim": {}}}),
    "vLLM": at("stages.deploy", {"image": "vllm:1", "backend": {"vllm": {}}}),
    "a NIM of generation 2": at("stages.deploy", {"image": "nim:2", "backend": {"nim": {"generation": 2}}}),
}


def made(api: Api, namespace: str, patch: dict[str, Any] | None = None, name: str = "docs") -> tuple[Owner, Spec]:
    """A resource in the API server, as the operator sees it."""
    live = api.make(EFT.format(namespace), resource(namespace, patch, name))
    return Owner(namespace=namespace, name=name, uid=live["metadata"]["uid"]), parse_spec(live["spec"], IMAGES)


def job(owner: Owner, spec: Spec, stage: Stage = Stage.SDG, attempt: int = 1) -> dict[str, Any]:
    request = StageRequest(
        stage=stage,
        fingerprint=FINGERPRINT,
        attempt=attempt,
        revision=1,
        image="image:1",
        settings={"text": "$(HOME) and $$"},
        inputs={Artefact.CORPUS: MODEL},
    )
    return build_job(owner, spec, request)


def deployment(owner: Owner, spec: Spec) -> dict[str, Any]:
    return build_deployment(owner, spec, FINGERPRINT, MODEL, check_image="image:1")


def service(owner: Owner) -> dict[str, Any]:
    return build_service(owner, owner.name, FINGERPRINT)


def kept_objects(owner: Owner, spec: Spec) -> list[dict[str, Any]]:
    """What is applied again whenever it differs."""
    found = [deployment(owner, spec), service(owner)]
    if spec.stages[Stage.FINETUNE].pod.workers.nodes > 1:
        training = job(owner, spec, Stage.FINETUNE)["metadata"]["name"]
        found.append(build_rendezvous_service(owner, training, Stage.FINETUNE))
    return found if spec.storage.existing_claim else [*found, build_workspace(owner, spec)]
