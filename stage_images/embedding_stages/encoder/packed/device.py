"""Packs on the accelerator: all tables of a pack travel in one copy from pinned memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from embedding_stages.encoder.packed.packs import Ints, Pack

_WORDS: Final = 4  # tables start at multiples of 16 bytes: kernels are compiled for aligned pointers


@dataclass(frozen=True, slots=True)
class DevicePack:
    """A `Pack` as tensors, int32. See there for the shapes."""

    ids: torch.Tensor
    positions: torch.Tensor
    starts: torch.Tensor
    query_tiles: torch.Tensor
    key_tiles: torch.Tensor
    tokens: int  # without filler
    extra: tuple[torch.Tensor, ...]  # what the caller sent along


def send(pack: Pack, device: torch.device, extra: Sequence[Ints] = ()) -> DevicePack:
    """Copy a pack, and further int32 arrays, to `device` without waiting for it."""
    there = stage(pack, device, extra).to(device, non_blocking=True)  # the pinned block is not reused before that
    return unfold(there, pack, extra)


def stage(pack: Pack, device: torch.device, extra: Sequence[Ints] = ()) -> torch.Tensor:
    """All tables in one int32 tensor in main memory, pinned for a copy to `device`."""
    arrays, places = _arranged(pack, extra)
    staged = torch.empty(places[-1], dtype=torch.int32, pin_memory=device.type == "cuda")
    view = staged.numpy()
    for array, place in zip(arrays, places, strict=False):
        view[place : place + array.size] = array.reshape(-1)
    return staged


def unfold(there: torch.Tensor, pack: Pack, extra: Sequence[Ints] = ()) -> DevicePack:
    """The tables as views of a tensor that `stage` filled with a pack of the same shapes."""
    arrays, places = _arranged(pack, extra)
    parts = [there[place : place + array.size].view(array.shape) for array, place in zip(arrays, places, strict=False)]
    ids, positions, starts, query_tiles, key_tiles, *rest = parts
    return DevicePack(ids, positions, starts, query_tiles, key_tiles, pack.tokens, tuple(rest))


def _arranged(pack: Pack, extra: Sequence[Ints]) -> tuple[list[Ints], list[int]]:
    arrays = [pack.ids, pack.positions, pack.starts, pack.query_tiles, pack.key_tiles, *extra]
    sizes = [0, *(-(-array.size // _WORDS) * _WORDS for array in arrays)]
    return arrays, [int(place) for place in np.cumsum(sizes)]
