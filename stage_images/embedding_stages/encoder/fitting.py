"""Embedding in batches that shrink until they fit the accelerator, and results that lie in memory once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from embedding_stages.encoder.description import Role
from embedding_stages.encoder.protocol import Encoder
from embedding_stages.errors import OutOfMemory
from embedding_stages.vectors import Vectors


class FittingEncoder:
    """An encoder and the batch size that has fitted so far."""

    def __init__(self, encoder: Encoder, batch_size: int, log: Callable[..., None]) -> None:
        self._encoder = encoder
        self._batch_size = batch_size
        self._log = log

    def embed(self, texts: Sequence[str], *, role: Role, **options: Any) -> Vectors:
        """float32 (len(texts), hidden); `options` are those of `Encoder.embed`.

        Raises OutOfMemory `GPUOutOfMemory` when a single text does not fit.
        """
        import torch  # takes seconds to import

        while True:
            try:
                return self._encoder.embed(texts, role=role, batch_size=self._batch_size, **options)
            except torch.OutOfMemoryError as error:
                # Packs were cut down to one text before: to repeat them would change nothing.
                if self._batch_size == 1 or not self._encoder.batched:
                    raise OutOfMemory(
                        "GPUOutOfMemory", f"one text does not fit the accelerator: use a larger one ({error})"
                    ) from error
            self._batch_size //= 2
            torch.cuda.empty_cache()  # not in the handler: its traceback holds what did not fit
            self._log("out of memory, smaller batches", batchSize=self._batch_size)


def stacked(rows: int, blocks: Iterable[Vectors]) -> Vectors:
    """`rows` rows out of consecutive blocks, each of which may go once it is copied."""
    result: Vectors | None = None
    at = 0
    for block in blocks:
        if result is None:
            result = np.empty((rows, block.shape[1]), dtype=np.float32)
        result[at : at + len(block)] = block
        at += len(block)
    if result is None or at != rows:
        raise ValueError(f"blocks hold {at} rows, expected {rows}")
    return result
