"""Jobs and their pods as the tests of job manifests look at them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from unit.operator.builders import OPEN_AI, OWNER, Raw, a_request, a_spec

from embedding_operator.objects.manifests.job import build_job
from embedding_operator.resource.api import Spec
from embedding_stages.contract import Stage

JOBS = [stage for stage in Stage if stage is not Stage.DEPLOY]
HUB = {"name": "m", "source": {"huggingFace": {"revision": "a" * 40, "tokenSecretRef": {"name": "hub", "key": "t"}}}}
IMAGE = {"reference": "files:1", "path": "/data/docs/", "pullPolicy": "Never"}


def a_claim(name: str, path: str) -> Raw:
    return {"name": "m", "source": {"pvc": {"claimName": name, "path": path}}}


RICH = a_spec(
    baseModel={"name": "m", "source": {"image": {"reference": "model:1", "path": "/model"}}},
    corpus={"source": {"image": IMAGE}},
    evaluation={"beir": {"pvc": {"claimName": "labelled"}}},
    imagePullSecrets=[{"name": "registry"}],
    stages={
        "sdg": {"provider": OPEN_AI},
        "finetune": {
            "nodeSelector": {"gpu": "h100"},
            "tolerations": [{"key": "gpu", "operator": "Exists"}],
            "priorityClassName": "high",
            "runtimeClassName": "nvidia",
            "env": [{"name": "NCCL_DEBUG", "value": "INFO"}],
            "timeoutSeconds": 7,
        },
    },
)


def replace_resources(spec: Spec, stage: Stage, resources: Raw) -> Spec:
    settings = spec.stages[stage]
    changed = replace(settings, pod=replace(settings.pod, resources=resources))
    return replace(spec, stages={**spec.stages, stage: changed})


def job(spec: Spec, stage: Stage = Stage.SDG, **changes: Any) -> Raw:
    return build_job(OWNER, spec, a_request(stage, image=spec.stages[stage].pod.image, **changes))


def pod(spec: Spec, stage: Stage = Stage.SDG) -> Raw:
    found: Raw = job(spec, stage)["spec"]["template"]["spec"]
    return found
