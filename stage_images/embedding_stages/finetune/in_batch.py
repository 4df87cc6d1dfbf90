"""In-batch negatives: each question is also compared with the passages of the step's other questions.

The pool is the whole step (`globalBatchSize` examples), whatever the micro-batch and however many ranks share it, so
gradients do not depend on how a step is cut. Of equal texts the pool holds one. What is a positive of the question in
any line of the training set, or has the text of one, is no negative of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from embedding_stages.finetune.batches import Example
from embedding_stages.finetune.dataset import TrainingSet
from embedding_stages.finetune.loss import mean_over_sizes


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
