"""Which of the two encoders runs a model here: over packs where that works, else over padded batches."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from embedding_stages.contract import ENCODER_FILE
from embedding_stages.encoder.description import EncoderDescription, describe_model
from embedding_stages.encoder.model import PaddedEncoder

if TYPE_CHECKING:
    from embedding_stages.encoder.packed.encoder import PackedEncoder

AnyEncoder: TypeAlias = "PaddedEncoder | PackedEncoder"
Log = Callable[..., None]


def _silent(message: str, **fields: Any) -> None:
    pass


def load_encoder(
    folder: Path,
    *,
    device: str | None = None,
    dtype: torch.dtype = torch.bfloat16,
    padded_dtype: torch.dtype | None = None,
    log: Log = _silent,
) -> AnyEncoder:
    """The encoder in `folder`: packed for a Llama on a CUDA device, padded otherwise.

    `dtype` is the packed model's, `padded_dtype` goes to `PaddedEncoder.load`. Raises BadInput (see `describe_model`).
    A Llama that cannot be packed is logged with the reason: it will be slower.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and _architecture(folder) == "llama_bidirectional":
        reason = _obstacle(folder, torch.device(device), dtype)
        if reason is None:
            from embedding_stages.encoder.packed.encoder import PackedEncoder

            return PackedEncoder.load(folder, device=device, dtype=dtype)
        log("texts are padded, not packed: slower", reason=reason)
    return PaddedEncoder.load(folder, device=device, dtype=padded_dtype)


def _architecture(folder: Path) -> str:
    if (folder / ENCODER_FILE).is_file():
        return EncoderDescription.load(folder).architecture
    return describe_model(folder, prefixes=None, max_tokens=None).architecture


def _obstacle(folder: Path, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why packs cannot run this model on this machine, or None."""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    from embedding_stages.encoder.packed.check import works
    from embedding_stages.encoder.packed.llama import Shape

    try:
        shape = Shape.of(json.loads((folder / "config.json").read_bytes()))
    except ValueError as error:
        return f"the packed model does not know {error}"
    try:
        right = works(shape.heads, device, dtype)
    except Exception as error:  # whatever a compiler of another machine may raise
        return f"the kernels cannot be built: {type(error).__name__}"
    return None if right else "the kernels compute something else on this accelerator"
