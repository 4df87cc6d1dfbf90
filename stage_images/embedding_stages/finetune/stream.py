"""A safetensors file written piece by piece, from whatever device the tensors are on.

The library's own writer wants all tensors in main memory at once and holds Python's lock meanwhile: a training step
would wait for it.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch

_PIECE: Final = 16 * 2**20  # numbers that are in main memory at a time
_KINDS: Final = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}


def write(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write contiguous float tensors. Format: https://huggingface.co/docs/safetensors, header then bytes.

    The tensors must not change meanwhile; copies from an accelerator run beside its other work.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    place = 0
    for name, tensor in tensors.items():
        size = tensor.nbytes
        header[name] = {
            "dtype": _KINDS[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [place, place + size],
        }
        place += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (math.ceil(len(text) / 8) * 8 - len(text))
    copier = _Copier(next(iter(tensors.values())).device)
    with path.open("wb", buffering=0) as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors.values():
            for piece in torch.split(tensor.reshape(-1), _PIECE):
                _write_all(stream.fileno(), copier.bytes_of(piece))


class _Copier:
    """Brings pieces to main memory, on a stream of its own."""

    def __init__(self, device: torch.device) -> None:
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            self._stream.wait_stream(torch.cuda.default_stream(device))
            self._staged: torch.Tensor | None = None

    def bytes_of(self, piece: torch.Tensor) -> memoryview:
        """The piece's bytes; valid until the next call."""
        if self._stream is not None:
            if self._staged is None or self._staged.dtype != piece.dtype:
                self._staged = torch.empty(_PIECE, dtype=piece.dtype, pin_memory=True)
            staged = self._staged[: piece.numel()]
            with torch.cuda.stream(self._stream):
                staged.copy_(piece, non_blocking=True)
            self._stream.synchronize()
            piece = staged
        return piece.view(torch.uint8).numpy().data


def _write_all(descriptor: int, data: memoryview) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
