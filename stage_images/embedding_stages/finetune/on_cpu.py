"""What a padded step does differently on a CPU, where a small model's step is bound by what each pass writes.

A dense gradient of the word table is as large as the table. Written and added up for every forward pass, it took up to
a third of a step in bfloat16. So there are fewer passes, and until they are done the table's gradient is kept as the
rows that the texts name.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import torch

TOKENS: Final = 4096  # of a part, at least: their graphs take 0.6 GB with MiniLM-L6
_LARGE: Final = 4096  # rows of a table whose gradient is worth keeping sparse


def keep_sparse(module: torch.nn.Module) -> None:
    """From now on the gradients of large tables hold the looked-up rows alone, until `make_dense`."""
    for part in module.modules():
        if isinstance(part, torch.nn.Embedding) and part.num_embeddings >= _LARGE:
            part.sparse = True


def make_dense(parameters: Iterable[torch.nn.Parameter]) -> None:
    """What clipping, the optimizer and the exchange between workers expect."""
    for value in parameters:
        if value.grad is not None and value.grad.is_sparse:
            value.grad = value.grad.to_dense()
