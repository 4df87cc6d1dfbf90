"""A stage whose work several processes share: one node or several, and what its pods are told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from unit.operator.builders import OWNER, Raw, a_request, a_spec
from unit.operator.job_pods import JOBS, job, pod

from embedding_operator.objects.manifests.job import job_name, template_of
from embedding_operator.objects.manifests.workers import build_rendezvous_service
from embedding_operator.resource.api import Spec
from embedding_operator.resource.labels import SERVING_LABEL
from embedding_stages import contract
from embedding_stages.contract import Stage


def workers(**finetune: Any) -> Spec:
    return a_spec(stages={"finetune": finetune}, storage={"accessModes": ["ReadWriteMany"]})


def variables(body: Raw) -> dict[str, str]:
    return {
        item["name"]: item["value"] for item in body["containers"][0]["env"] if item["name"] != contract.ENV_REQUEST
    }


@pytest.mark.parametrize("finetune", [{}, {"gpusPerNode": 0}, {"gpusPerNode": 1, "nodes": 1, "parallelism": "FSDP"}])
def test_one_process_is_told_nothing_of_others(finetune: Any) -> None:
    body = job(workers(**finetune), Stage.FINETUNE)["spec"]
    assert variables(body["template"]["spec"]) == {}
    assert "shm" not in str(body)
    assert "subdomain" not in str(body)
    assert (body["completions"], body["parallelism"], "completionMode" in body) == (1, 1, False)


def test_several_gpus_of_one_node_share_memory() -> None:
    spec = workers(gpusPerNode=4, parallelism="FSDP")
    body = pod(spec, Stage.FINETUNE)
    assert variables(body) == {"EFT_NODES": "1", "EFT_PROCESSES": "4", "EFT_PARALLELISM": "FSDP"}
    assert body["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "4"
    assert body["volumes"][-1] == {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "4Gi"}}
    assert body["containers"][0]["volumeMounts"][-1] == {"name": "shm", "mountPath": "/dev/shm"}
    assert not {"subdomain", "topologySpreadConstraints"} & body.keys()
    assert "completionMode" not in job(spec, Stage.FINETUNE)["spec"]


def test_the_pods_of_several_nodes_meet_at_index_0() -> None:
    manifest = job(workers(gpusPerNode=0, nodes=3), Stage.FINETUNE)
    name, body = manifest["metadata"]["name"], manifest["spec"]
    assert (body["completionMode"], body["completions"], body["parallelism"]) == ("Indexed", 3, 3)
    assert (body["backoffLimit"], body["podReplacementPolicy"]) == (0, "Failed")
    template = body["template"]["spec"]
    assert variables(template) == {
        contract.ENV_NODES: "3",
        contract.ENV_PROCESSES: "1",
        contract.ENV_PARALLELISM: "DDP",
        contract.ENV_COORDINATOR: f"{name}-0.{name}:29500",
    }
    assert template["containers"][0]["command"] == ["python3", "-m", "embedding_stages.finetune"]
    assert template["subdomain"] == name
    (spread,) = template["topologySpreadConstraints"]
    assert spread["whenUnsatisfiable"] == "ScheduleAnyway"
    assert spread["labelSelector"]["matchLabels"] == {"batch.kubernetes.io/job-name": name}
    service = build_rendezvous_service(OWNER, name, Stage.FINETUNE)
    assert service["metadata"]["name"] == name
    assert service["metadata"]["ownerReferences"] == manifest["metadata"]["ownerReferences"]
    assert SERVING_LABEL not in service["metadata"]["labels"]
    assert (service["spec"]["clusterIP"], service["spec"]["publishNotReadyAddresses"]) == ("None", True)
    assert service["spec"]["selector"] == spread["labelSelector"]["matchLabels"]


@pytest.mark.parametrize("stage", [stage for stage in JOBS if stage is not Stage.FINETUNE])
def test_the_other_stages_are_one_process(stage: Stage) -> None:
    assert job(workers(gpusPerNode=8, nodes=2), stage)["spec"] == job(workers(), stage)["spec"]


def test_the_longest_host_name_has_63_characters() -> None:
    name = job_name(replace(OWNER, name="a" * 37), a_request(Stage.FINETUNE, attempt=9999))
    assert len(f"{name}-63") == 63


@pytest.mark.parametrize(
    "finetune", [{"gpusPerNode": 2}, {"nodes": 2}, {"nodes": 2, "gpusPerNode": 2}, {"nodes": 2, "parallelism": "FSDP"}]
)
def test_the_template_hash_knows_how_many_share_the_work(finetune: Any) -> None:
    plain, shared = (template_of(job(spec, Stage.FINETUNE)) for spec in (workers(), workers(**finetune)))
    assert plain != shared
    assert template_of(job(workers(**finetune), Stage.FINETUNE, settings={"seed": 1})) == shared
