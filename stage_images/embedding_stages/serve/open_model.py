"""Which kind of model a folder holds."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from embedding_stages.errors import BadInput
from embedding_stages.serve.model import GRAPH_FILE, Log, Model


def open_model(folder: Path, log: Log) -> Model:
    """An exported graph or a checkpoint. Raises BadInput `ServingModelInvalid` or `EncoderDescriptionInvalid`."""
    if (folder / GRAPH_FILE).is_file():
        _need("onnxruntime", f"{GRAPH_FILE} needs ONNX Runtime: use the image `serve`")
        from embedding_stages.serve.onnx_model import OnnxModel  # only its image has ONNX Runtime

        return OnnxModel(folder)
    if any(folder.glob("*.safetensors")):
        _need("torch", "a checkpoint needs PyTorch: use the image `serve-torch` (spec.stages.deploy.backend.torch)")
        from embedding_stages.serve.checkpoint_model import CheckpointModel  # only its image has PyTorch

        return CheckpointModel(folder, log)
    raise BadInput("ServingModelInvalid", f"{folder} holds neither {GRAPH_FILE} nor a checkpoint (*.safetensors)")


def _need(package: str, cure: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise BadInput("ServingModelInvalid", f"{package} is not installed, and {cure}")
