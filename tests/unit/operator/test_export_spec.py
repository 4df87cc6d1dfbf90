"""What the manifest may ask of the export: formats, numbers, the GPU, and what each kind of server can serve."""

from __future__ import annotations

from typing import Any

import pytest
from unit.operator.builders import a_ref, a_spec, a_stage

from embedding_operator.resource.api import SpecError
from embedding_operator.resource.pipeline import inputs_of
from embedding_operator.resource.status import Status
from embedding_stages.contract import Artefact, Stage

GPU, OWN = "nvidia.com/gpu", {"image": "team/export:trt"}
NIM_2 = {"image": "nim:2", "backend": {"nim": {"generation": 2}}}


def asked(export: dict[str, Any], deploy: dict[str, Any] | None = None, **spec: Any) -> Any:
    return a_spec(stages={"export": export, **({"deploy": deploy} if deploy else {})}, **spec)


REFUSED: list[tuple[dict[str, Any], dict[str, Any] | None, str, str]] = [
    ({"quantization": "int8"}, NIM_2, "quantization", "backend nim of generation 2 serves the checkpoint itself"),
    ({"quantization": "fp8"}, {"backend": {"torch": {}}}, "quantization", "backend torch serves the checkpoint"),
    ({"format": "tensorrt", **OWN}, NIM_2, "format", "or take a backend of the exported model"),
    ({"precision": "bf16"}, NIM_2, "precision", "nothing is exported for it; leave it out"),
    ({"precision": "bf16"}, None, "precision", "set it to fp32 or fp16, or name an image with onnxruntime-gpu"),
    ({"precision": "bf16", "quantization": "fp8"}, {"image": "ort-gpu:1"}, "precision", "set it to fp16 or fp32"),
    ({"format": "tensorrt"}, None, "image", "--build-arg TENSORRT=1"),
    ({"format": "tensorrt", **OWN, "resources": {"limits": {GPU: 0}}}, None, "resources.limits", "give nvidia.com/gpu"),
    ({"quantization": "int4"}, None, "quantization", "int8"),
    ({"maxNdcgDrop": 2}, None, "maxNdcgDrop", "1"),
]


@pytest.mark.parametrize(("export", "deploy", "field", "cure"), REFUSED)
def test_what_cannot_work_is_named_with_a_cure(
    export: dict[str, Any], deploy: dict[str, Any] | None, field: str, cure: str
) -> None:
    with pytest.raises(SpecError, match=cure) as raised:
        asked(export, deploy)
    assert raised.value.field == f"spec.stages.export.{field}"


@pytest.mark.parametrize("accelerator", ["none", "amd"])
def test_an_engine_needs_a_gpu_of_nvidias(accelerator: str) -> None:
    with pytest.raises(SpecError) as raised:
        asked({"format": "tensorrt", **OWN}, accelerator=accelerator)
    assert raised.value.field == "spec.stages.export.resources.limits"


TAKEN: list[tuple[dict[str, Any], dict[str, Any] | None, dict[str, str]]] = [
    ({}, None, {}),
    ({"precision": "fp16"}, NIM_2, {}),  # as it was before
    ({"quantization": "int8", "precision": "fp16"}, None, {}),
    ({"quantization": "fp8"}, {"image": "nim:1", "backend": {"nim": {}}}, {}),
    ({"precision": "bf16"}, {"image": "ort-gpu:1"}, {}),
    ({"format": "tensorrt", **OWN}, None, {GPU: "1"}),
    (
        {"format": "tensorrt", **OWN, "resources": {"limits": {"nvidia.com/mig-1g.10gb": 1}}},
        None,
        {"nvidia.com/mig-1g.10gb": "1"},
    ),
]


@pytest.mark.parametrize(("export", "deploy", "gpus"), TAKEN)
def test_only_an_engine_asks_for_a_gpu(
    export: dict[str, Any], deploy: dict[str, Any] | None, gpus: dict[str, str]
) -> None:
    assert asked(export, deploy).stages[Stage.EXPORT].pod.resources["limits"] == gpus


@pytest.mark.parametrize(("export", "reads"), [({}, False), ({"quantization": "int8"}, True)])
def test_only_quantization_reads_the_training_set(export: dict[str, Any], reads: bool) -> None:
    prepared = a_stage(
        Stage.PREP, artefacts={name: a_ref(name) for name in (Artefact.TRAINING_SET, Artefact.EVALUATION_SET)}
    )
    trained = a_stage(Stage.FINETUNE, artefacts={Artefact.CHECKPOINT: a_ref()})
    found = inputs_of(Stage.EXPORT, asked(export), Status(stages=(prepared, trained)))
    assert found is not None
    assert (Artefact.TRAINING_SET in found) is reads
