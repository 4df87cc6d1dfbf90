"""Which of the two encoders runs a model here: over packs where that works, else over padded batches."""

from __future__ import annotations

import errno
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import torch

from embedding_stages import full_disk
from embedding_stages.contract.servers import Precision
from embedding_stages.encoder.description import EncoderDescription, description_of
from embedding_stages.encoder.model import PaddedEncoder

if TYPE_CHECKING:
    from embedding_stages.encoder.packed.encoder import PackedEncoder

# What trainers and the server tell apart; whoever only embeds or saves takes `protocol.Encoder`.
AnyEncoder: TypeAlias = "PaddedEncoder | PackedEncoder"
Log = Callable[..., None]
_PASSING: Final = (errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)


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
    """The encoder in `folder`: packed on a CUDA device where the family packs, padded otherwise.

    `dtype` is the packed model's, `padded_dtype` goes to `PaddedEncoder.load`. Raises BadInput (see `describe_model`).
    A model that cannot be packed although its family packs is logged with the reason: it will be slower.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda"):
        description = description_of(folder)
        if description.family.packs:
            reason = _obstacle(folder, description, torch.device(device), dtype)
            if reason is None:
                from embedding_stages.encoder.packed.encoder import PackedEncoder

                return PackedEncoder.load(folder, device=device, dtype=dtype)
            log("texts are padded, not packed: slower", reason=reason)
    return PaddedEncoder.load(folder, device=device, dtype=padded_dtype)


def load_in_precision(folder: Path, precision: Precision | None, *, log: Log = _silent) -> AnyEncoder:
    """The encoder in `folder` that computes in `precision`, on the GPU when there is one; None: as `load_encoder` does.

    float32 means every bit of it: padded, for packs are half-precision, and without TF32. Raises what `load_encoder`
    does.
    """
    if precision == "float32":
        torch.set_float32_matmul_precision("highest")
        return PaddedEncoder.load(folder, dtype=torch.float32)
    if precision == "bfloat16":
        return load_encoder(folder, padded_dtype=torch.bfloat16, log=log)
    return load_encoder(folder, log=log)


def _obstacle(folder: Path, description: EncoderDescription, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why packs cannot run this model on this machine, or None."""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    from embedding_stages.encoder.packed.check import works

    config, kind = json.loads((folder / "config.json").read_bytes()), description.family.packed_model()
    try:
        shape = kind.shape_of(config, description)
    except ValueError as error:
        return f"the packed model does not know {error}"
    try:
        right = works(kind.kernel_errors(shape, device, dtype))
    except Exception as error:  # whatever a compiler of another machine may raise
        if full_disk.is_full(error) or isinstance(error, torch.OutOfMemoryError) or _passes(error):
            raise
        return f"the kernels cannot be built: {type(error).__name__}"
    return None if right else "the kernels compute something else on this accelerator"


def _passes(error: Exception) -> bool:
    """Whether the machine lacked something for a moment: of several workers, the others would take packs."""
    return isinstance(error, OSError) and error.errno in _PASSING
