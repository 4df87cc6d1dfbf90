"""What the manifest may ask of the export, given the server and the GPU. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from embedding_operator.resource.api import Deploy, PodSettings, SpecError
from embedding_operator.resource.pods import has_nvidia
from embedding_stages.contract import settings as tables

FIELD: Final = "spec.stages.export"


def check_export(export: Mapping[str, Any], pod: PodSettings, deploy: Deploy, *, own_server: bool) -> None:
    """`export` are the stage's settings; `own_server`: the manifest names the server's image. Raises SpecError."""
    if export["quantization"] != tables.NO_QUANTIZATION and export["precision"] == tables.BF16:
        raise SpecError(
            f"{FIELD}.precision",
            f"{export['quantization']} cannot be calibrated in bf16, which ONNX Runtime does not compute on a CPU; set "
            "it to fp16 or fp32",
        )
    _check_server(export, deploy, own_server=own_server)
    if export["format"] == tables.TENSORRT:
        _check_engine(pod)


def _check_server(export: Mapping[str, Any], deploy: Deploy, *, own_server: bool) -> None:
    """What was possible before these settings joined stays possible, such as fp16 for a server of the checkpoint."""
    joined = {
        "format": export["format"] == tables.TENSORRT,
        "quantization": export["quantization"] != tables.NO_QUANTIZATION,
        "precision": export["precision"] == tables.BF16,
    }
    asked = next((name for name, said in joined.items() if said), "")
    if asked and deploy.profile.serves_checkpoint:
        generation = f" of generation {deploy.profile.generation}" if deploy.profile.generation > 1 else ""
        raise SpecError(
            f"{FIELD}.{asked}",
            f"backend {deploy.backend}{generation} serves the checkpoint itself, nothing is exported for it; leave it "
            "out, or take a backend of the exported model, such as onnx, in spec.stages.deploy.backend",
        )
    on_cpus = deploy.profile.default_image is not None and not own_server
    if export["precision"] == tables.BF16 and on_cpus:
        raise SpecError(
            f"{FIELD}.precision",
            f"the {deploy.backend} server of the default image computes on CPUs, where ONNX Runtime has no bf16; set "
            "it to fp32 or fp16, or name an image with onnxruntime-gpu in spec.stages.deploy.image",
        )


def _check_engine(pod: PodSettings) -> None:
    if not pod.own_image:
        raise SpecError(
            f"{FIELD}.image",
            "the operator's own export image has no TensorRT, which comes from NVIDIA's index; build "
            "stage_images/export with --build-arg TENSORRT=1 and name that image, or set format to onnx",
        )
    if not has_nvidia(pod.resources):
        raise SpecError(
            f"{FIELD}.resources.limits",
            "TensorRT builds an engine on the GPU that it is for; give nvidia.com/gpu: 1, or set format to onnx",
        )
