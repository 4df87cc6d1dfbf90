"""From a stage of the manifest to its pods: image, GPUs, resources, and how many share the work."""

from __future__ import annotations

from typing import Any

import pytest
from unit.operator.builders import IMAGES, a_spec

from embedding_operator.resource.api import TORCH_SERVER, Workers
from embedding_stages.contract import Stage

SHARED = {"accessModes": ["ReadWriteMany"]}


@pytest.mark.parametrize(
    ("stages", "strategy"),
    [
        ({}, "BlueGreen"),
        ({"deploy": {"backend": {"nim": {}}, "image": "nim:1"}}, "Recreate"),
        ({"deploy": {"image": "onnxruntime-gpu:1", "resources": {"limits": {"nvidia.com/gpu": 1}}}}, "Recreate"),
        ({"deploy": {"backend": {"torch": {}}}}, "Recreate"),
        ({"deploy": {"backend": {"torch": {}}, "resources": {"limits": {"amd.com/gpu": 1}}}}, "Recreate"),
        ({"deploy": {"backend": {"torch": {}}, "resources": {"limits": {"nvidia.com/gpu": 0}}}}, "BlueGreen"),
        ({"deploy": {"resources": {"limits": {"nvidia.com/gpu": 0}}}}, "BlueGreen"),
        ({"deploy": {"backend": {"nim": {}}, "image": "nim:1", "strategy": "BlueGreen"}}, "BlueGreen"),
    ],
)
def test_a_server_with_a_gpu_is_recreated_unless_the_manifest_says_otherwise(stages: Any, strategy: str) -> None:
    assert a_spec(stages=stages).deploy.strategy == strategy


@pytest.mark.parametrize(
    ("deploy", "image", "gpus"),
    [
        ({}, IMAGES[Stage.DEPLOY], None),
        ({"backend": {"onnx": {}}}, IMAGES[Stage.DEPLOY], None),
        ({"backend": {"torch": {}}}, IMAGES[TORCH_SERVER], "1"),
        ({"backend": {"torch": {}}, "resources": {"limits": {"nvidia.com/mig-1g.5gb": 1}}}, IMAGES[TORCH_SERVER], None),
        ({"backend": {"torch": {}}, "image": "mine:1"}, "mine:1", "1"),
        ({"backend": {"nim": {}}, "image": "nim:1"}, "nim:1", "1"),
    ],
)
def test_each_backend_has_its_image_and_its_gpu(deploy: Any, image: str, gpus: str | None) -> None:
    pod = a_spec(stages={"deploy": deploy}).stages[Stage.DEPLOY].pod
    assert (pod.image, pod.resources["limits"].get("nvidia.com/gpu")) == (image, gpus)


@pytest.mark.parametrize(
    ("deploy", "precision"),
    [
        ({}, "float32"),
        ({"image": "onnxruntime-gpu:1", "resources": {"limits": {"nvidia.com/gpu": 1}}}, "float32"),
        ({"backend": {"torch": {}}}, "bfloat16"),
        ({"backend": {"torch": {}}, "resources": {"limits": {"nvidia.com/mig-1g.5gb": 1}}}, "bfloat16"),
        ({"backend": {"torch": {}}, "resources": {"limits": {"nvidia.com/gpu": 0}}}, "float32"),
        ({"backend": {"nim": {}}, "image": "nim:1"}, "float32"),
        ({"backend": {"nim": {"generation": 2}}, "image": "nim:2"}, "float32"),
    ],
)
def test_the_evaluation_computes_in_what_the_server_computes_in(deploy: Any, precision: str) -> None:
    spec = a_spec(stages={"deploy": deploy})
    assert spec.stages[Stage.EVAL].settings["precision"] == spec.deploy.precision == precision


@pytest.mark.parametrize(
    ("given", "requests", "limits"),
    [
        ({}, {"cpu": "500m", "memory": "2Gi"}, {"nvidia.com/gpu": "1"}),
        ({"limits": {"nvidia.com/gpu": 0}}, {"cpu": "500m", "memory": "2Gi"}, {}),
        (
            {"limits": {"nvidia.com/mig-1g.10gb": 1}},
            {"cpu": "500m", "memory": "2Gi"},
            {"nvidia.com/mig-1g.10gb": "1"},
        ),
        (  # a network device is no GPU
            {"limits": {"nvidia.com/hostdev": 1}},
            {"cpu": "500m", "memory": "2Gi"},
            {"nvidia.com/hostdev": "1", "nvidia.com/gpu": "1"},
        ),
        *(
            ({"limits": {key: 1}}, {"cpu": "500m", "memory": "2Gi"}, {key: "1"})
            for key in ("amd.com/gpu", "gpu.intel.com/i915", "gpu.intel.com/xe", "habana.ai/gaudi")
        ),
        ({"limits": {"amd.com/gpu": 0}}, {"cpu": "500m", "memory": "2Gi"}, {}),
        (
            {"limits": {"example.com/nic": 1}},
            {"cpu": "500m", "memory": "2Gi"},
            {"example.com/nic": "1", "nvidia.com/gpu": "1"},
        ),
        (
            {"limits": {"memory": "1Gi", "nvidia.com/gpu": 0}},
            {"cpu": "500m", "memory": "1Gi"},
            {"memory": "1Gi"},
        ),
        (
            {"requests": {"memory": "3Gi"}, "limits": {"memory": "4Gi", "nvidia.com/gpu": 2}},
            {"cpu": "500m", "memory": "3Gi"},
            {"memory": "4Gi", "nvidia.com/gpu": "2"},
        ),
    ],
)
def test_resources_are_the_users_over_the_defaults_and_one_gpu(given: Any, requests: Any, limits: Any) -> None:
    pod = a_spec(stages={"finetune": {"resources": given}}).stages[Stage.FINETUNE].pod
    assert pod.resources == {"requests": requests, "limits": limits}


@pytest.mark.parametrize(
    ("finetune", "gpus", "workers"),
    [
        ({}, "1", Workers()),
        ({"gpusPerNode": 1}, "1", Workers()),
        ({"gpusPerNode": 0}, None, Workers()),
        ({"gpusPerNode": 4}, "4", Workers(per_node=4)),
        ({"gpusPerNode": 0, "resources": {"limits": {"amd.com/gpu": 1}}}, None, Workers()),
        ({"gpusPerNode": 4, "resources": {"limits": {"nvidia.com/gpu": "4"}}}, "4", Workers(per_node=4)),
        ({"gpusPerNode": 0, "resources": {"limits": {"nvidia.com/gpu": 0}}}, None, Workers()),
        ({"resources": {"limits": {"nvidia.com/gpu": 2}}}, "2", Workers(per_node=2)),
        ({"resources": {"limits": {"nvidia.com/mig-1g.10gb": 2}}}, None, Workers()),
        ({"nodes": 3, "parallelism": "FSDP"}, "1", Workers(nodes=3, parallelism="FSDP")),
        ({"nodes": 2, "gpusPerNode": 8}, "8", Workers(nodes=2, per_node=8)),
        ({"nodes": 2, "gpusPerNode": 0}, None, Workers(nodes=2)),
    ],
    ids=str,
)
def test_a_process_for_every_gpu_of_every_node(finetune: Any, gpus: str | None, workers: Workers) -> None:
    pod = a_spec(stages={"finetune": finetune}, storage=SHARED).stages[Stage.FINETUNE].pod
    assert pod.resources["limits"].get("nvidia.com/gpu") == gpus
    assert pod.workers == workers


@pytest.mark.parametrize(
    "storage", [SHARED, {"accessModes": ["ReadWriteOnce", "ReadWriteMany"]}, {"existingClaim": "w"}]
)
def test_a_workspace_that_several_nodes_can_mount(storage: Any) -> None:
    assert a_spec(stages={"finetune": {"nodes": 2}}, storage=storage).stages[Stage.FINETUNE].pod.workers.nodes == 2


@pytest.mark.parametrize("stage", [Stage.INPUTS, Stage.SDG, Stage.EXPORT, Stage.DEPLOY, Stage.VERIFY])
def test_stages_without_a_model_on_the_gpu_ask_for_none(stage: Stage) -> None:
    assert a_spec().stages[stage].pod.resources["limits"] == {}
