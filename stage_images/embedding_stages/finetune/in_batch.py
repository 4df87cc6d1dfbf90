"""In-batch negatives: each question is also compared with the passages of the step's other questions.

The pool is the whole step (`globalBatchSize` examples), whatever the micro-batch and however many ranks share it, so
gradients do not depend on how a step is cut. Of equal texts the pool holds one. What is a positive of the question in
any line of the training set, or has the text of one, is no negative of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray

from embedding_stages.encoder.protocol import Encoder
from embedding_stages.finetune.batches import Example, Part, rows_of
from embedding_stages.finetune.dataset import TrainingSet
from embedding_stages.finetune.loss import mean_over_sizes
from embedding_stages.finetune.world import World


class Pool:
    """What is known of the training set's texts: which are equal, and which are positives of which question."""

    def __init__(self, data: TrainingSet) -> None:
        numbers: dict[tuple[int, ...], int] = {}
        self._text = [numbers.setdefault(tuple(row), len(numbers)) for row in data.rows]  # equal rows, one number
        self._positives: dict[int, set[int]] = {}
        for example in data.examples:
            self._positives.setdefault(self._text[example.query], set()).add(self._text[example.candidates[0]])

    def tables(self, examples: Sequence[Example], rows: Sequence[int]) -> tuple[torch.Tensor, ...]:
        """Places in `rows` of the queries (e,) and of the pool's passages (p,), the positive's column (e,), and where
        a passage is the question's positive or a negative of it (e, p).
        """
        place = {row: number for number, row in enumerate(rows)}
        column: dict[int, int] = {}
        passages: list[int] = []
        for row in sorted({row for example in examples for row in example.candidates}):
            if self._text[row] not in column:
                column[self._text[row]] = len(passages)
                passages.append(place[row])
        compared = np.ones((len(examples), len(passages)), dtype=np.bool_)
        right = [column[self._text[example.candidates[0]]] for example in examples]
        for number, example in enumerate(examples):
            known = (column.get(text) for text in self._positives[self._text[example.query]])
            compared[number, [one for one in known if one is not None]] = False
            compared[number, right[number]] = True
        queries = torch.tensor([place[example.query] for example in examples])
        return queries, torch.tensor(passages), torch.tensor(right), torch.from_numpy(compared)


class SharedPool:
    """The pool of one step, whose texts several ranks encode: each its share, and all get the vectors of all."""

    def __init__(self, pool: Pool, encoder: Encoder, world: World, *, temperature: float, sizes: Sequence[int]) -> None:
        self._pool = pool
        self._encoder = encoder
        self._world = world
        self._temperature = temperature
        self._sizes = sizes
        self._exchanged = False  # whether this attempt at a step has got the other ranks' vectors

    def dealt(self, examples: Sequence[Example], lengths: Sequence[int] | NDArray[np.int64]) -> list[int]:
        """The rows that this rank encodes; the ranks have about as many tokens each."""
        longest_first = sorted(rows_of(examples), key=lambda row: (-lengths[row], row))
        return longest_first[self._world.rank :: self._world.size]

    @contextmanager
    def exchanging(self, part: Part) -> Iterator[None]:
        """An attempt at a step: what fails before the vectors are exchanged fails after that instead, since the other
        ranks wait for them.
        """
        self._exchanged = False
        try:
            yield
        finally:
            if not self._exchanged:
                self._everyones(part, torch.zeros(0, 0))

    def losses(self, part: Part, table: torch.Tensor) -> torch.Tensor:
        """The loss of each of the part's examples, float32 (e,); `table` holds the vectors of the part's groups."""
        tables = [each.to(table.device) for each in self._pool.tables(part.examples, rows_of(part.examples))]
        return in_batch_losses(self._everyones(part, table), tables, self._temperature, self._sizes)

    def _everyones(self, part: Part, table: torch.Tensor) -> torch.Tensor:
        """float32 (rows of the examples, vector size): this rank's vectors with their graph, the others' without."""
        place = {row: number for number, row in enumerate(rows_of(part.examples))}
        device = self._encoder.device
        found = torch.zeros(len(place), self._encoder.description.vector_size, device=device)
        here = torch.tensor([place[row] for group in part.groups for row in group], device=device)
        if len(table):
            found[here] = table.detach()
        self._world.sum_([found])
        self._exchanged = True
        return found.index_copy(0, here, table) if len(table) else found


def in_batch_losses(
    vectors: torch.Tensor, tables: Sequence[torch.Tensor], temperature: float, sizes: Sequence[int] = ()
) -> torch.Tensor:
    """The loss of each example, float32 (e,): cross-entropy of its positive under a softmax of cosine / temperature
    over the pool. Vectors (rows, hidden) and `sizes` are those of `example_losses`.
    """
    queries, passages, right, compared = tables

    def losses(some: torch.Tensor) -> torch.Tensor:
        logits = (some[queries].float() @ some[passages].float().T / temperature).masked_fill(~compared, float("-inf"))
        return torch.logsumexp(logits, dim=1) - logits.gather(1, right[:, None])[:, 0]

    return mean_over_sizes(vectors, sizes, losses)
