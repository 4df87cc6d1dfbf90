"""Small packs as CUDA graphs: one launch instead of some hundred and fifty, which take the host longer than the GPU.

A graph repeats the same launches on the same memory, so each of some sizes has a graph of its own, and a pack is
filled up to the next size: with filler, with sequences of no tokens, and with tiles that are computed twice.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch

from embedding_stages.encoder.packed.device import DevicePack, stage, unfold
from embedding_stages.encoder.packed.encoder import PackedEncoder
from embedding_stages.encoder.packed.packs import ROUND, Ints, Pack, Ragged, build_pack

# Beyond the last a GPU is busy for longer than the host needs to launch.
SIZES: Final = (64, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
_TOKENS_A_SEQUENCE: Final = 8  # fewer on average are no small pack
_NO_KEYS: Final = np.zeros((3, 0), dtype=np.int32)  # only gradients need tiles of keys


class SmallPacks:
    """The vectors of a few texts, soon. May be called from several threads.

    Without a GPU the same packs go through the model as they are.
    """

    def __init__(self, encoder: PackedEncoder, sizes: tuple[int, ...] = SIZES) -> None:
        """Captures one graph a size: about a second on a GPU, during which no other thread may use it."""
        self._lock = threading.Lock()
        self._slots: list[_Slot] = []
        pool = torch.cuda.graph_pool_handle() if encoder.device.type == "cuda" else None
        with torch.inference_mode():
            for size in sorted(sizes, reverse=True):  # the largest first: the others fit into its memory
                self._slots.insert(0, _Slot.of(encoder, size, pool))

    def vectors(self, texts: Ragged) -> torch.Tensor | None:
        """float32 (n, vector size) of length 1, or None when the texts are too many or too long. In inference mode."""
        count, tokens = len(texts.lengths), int(texts.starts[-1])
        slot = next((slot for slot in self._slots if slot.takes(count, tokens)), None)
        if slot is None:
            return None
        staged = slot.staged(texts)
        with self._lock:  # the order of copy, run and copy is the stream's: nobody may come between
            slot.there.copy_(staged, non_blocking=True)
            return slot.run()[:count].clone()


@dataclass(frozen=True, slots=True)
class _Slot:
    """The memory of packs of one size, and what computes their vectors from it."""

    encoder: PackedEncoder
    size: int
    there: torch.Tensor
    run: Callable[[], torch.Tensor]

    @classmethod
    def of(cls, encoder: PackedEncoder, size: int, pool: Any) -> _Slot:
        template = stretched(Ragged.of([[0] * ROUND]), size, encoder.model.shape.heads.query_tile)
        there = stage(template, encoder.device).to(encoder.device)
        pack = unfold(there, template)
        run = _plain(encoder, pack) if pool is None else _captured(encoder, pack, pool)
        return cls(encoder, size, there, run)

    def takes(self, count: int, tokens: int) -> bool:
        return tokens <= self.size and count <= _sequences(self.size)

    def staged(self, texts: Ragged) -> torch.Tensor:
        return stage(stretched(texts, self.size, self.encoder.model.shape.heads.query_tile), self.encoder.device)


def stretched(texts: Ragged, size: int, query_tile: int) -> Pack:
    """All `texts` in a pack whose tables have the same shapes for all texts that fit it."""
    pack = build_pack(texts, range(len(texts.lengths)), query_tile=query_tile, key_tile=ROUND, size=size)
    sequences = _sequences(size)
    # Every sequence, and every part of the filler, may end in a tile that is not full.
    tiles = size // query_tile + sequences + size // ROUND + 1
    starts = np.full(sequences + 1, pack.starts[-1], dtype=np.int32)
    starts[: len(pack.starts)] = pack.starts
    return replace(pack, starts=starts, query_tiles=_widened(pack.query_tiles, tiles), key_tiles=_NO_KEYS)


def _widened(tiles: Ints, count: int) -> Ints:
    """The last, of the shortest sequence, fills up: whoever computes it again writes the same."""
    return np.pad(tiles, ((0, 0), (0, count - tiles.shape[1])), mode="edge")


def _sequences(size: int) -> int:
    return size // _TOKENS_A_SEQUENCE


def _plain(encoder: PackedEncoder, pack: DevicePack) -> Callable[[], torch.Tensor]:
    return lambda: encoder.vectors(pack)


def _captured(encoder: PackedEncoder, pack: DevicePack, pool: Any) -> Callable[[], torch.Tensor]:
    stream = torch.cuda.Stream(encoder.device)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream(encoder.device))
    with torch.cuda.stream(stream):
        encoder.vectors(pack)  # what is compiled or allocated once must not be part of the graph
    torch.cuda.current_stream(encoder.device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        result = encoder.vectors(pack)

    def run() -> torch.Tensor:
        graph.replay()
        return result

    return run
