"""The recipe's loss, which learns the label, and the loss that learns a teacher's ranking."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from embedding_stages.encoder.packed.packs import Ints
from embedding_stages.errors import Stopped
from embedding_stages.finetune.batches import Example


def candidate_loss(
    queries: torch.Tensor, candidates: torch.Tensor, present: torch.Tensor, temperature: float
) -> torch.Tensor:
    """The loss of each example, float32 (n,).

    queries (n, hidden) and candidates (n, c, hidden) are of length 1, column 0 is the positive, present
    (n, c) is False where an example has fewer negatives than others. Cross-entropy of the positive under a
    softmax of cosine / temperature over the example's own candidates; other examples' passages play no part
    (NVIDIA embed recipe, profile llama: no in-batch negatives, temperature 0.02).
    """
    logits = _logits(queries, candidates, present, temperature)
    return torch.logsumexp(logits, dim=1) - logits[:, 0]


def ranking_loss(
    queries: torch.Tensor, candidates: torch.Tensor, present: torch.Tensor, scores: torch.Tensor, temperature: float
) -> torch.Tensor:
    """The distance of each example's ranking from the teacher's, float32 (n,); 0 where they agree.

    The arguments are those of `candidate_loss`, and scores (n, c) the teacher's on the scale of cosines, of any
    value where present is False. Kullback-Leibler divergence, in nats, from softmax(scores / temperature) to
    softmax(cosine / temperature) over the example's own candidates.
    """
    student = torch.log_softmax(_logits(queries, candidates, present, temperature), dim=1)
    teacher = torch.log_softmax((scores.float() / temperature).masked_fill(~present, float("-inf")), dim=1)
    apart = (teacher - student).masked_fill(~present, 0.0)  # where no candidate is: infinity less infinity
    return (teacher.exp() * apart).sum(dim=1)


def _logits(queries: torch.Tensor, candidates: torch.Tensor, present: torch.Tensor, temperature: float) -> torch.Tensor:
    """cosine / temperature, float32 (n, c), minus infinity where no candidate is."""
    logits = torch.einsum("nh,nch->nc", queries.float(), candidates.float()) / temperature
    return logits.masked_fill(~present, float("-inf"))


def tables_of(examples: Sequence[Example], rows: Sequence[int]) -> tuple[Ints, ...]:
    """Which vectors each example compares, where `rows` tells whose vectors there are, and in which order.

    Places of the queries (e,), places of the candidates (e, c), 1 where a candidate exists (e, c), and, where the
    examples have scores, these (e, c) as the bits of float32: what is sent along with a pack is int32.
    """
    place = {row: number for number, row in enumerate(rows)}
    shape = len(examples), max(len(example.candidates) for example in examples)
    candidates, present = np.zeros(shape, dtype=np.int32), np.zeros(shape, dtype=np.int32)
    scores = np.zeros(shape, dtype=np.float32)
    for number, example in enumerate(examples):
        count = len(example.candidates)
        candidates[number, :count] = [place[row] for row in example.candidates]
        present[number, :count] = 1
        scores[number, : len(example.scores)] = example.scores
    queries = np.array([place[example.query] for example in examples], dtype=np.int32)
    return queries, candidates, present, *([scores.view(np.int32)] if examples[0].scores else [])


def example_losses(
    vectors: torch.Tensor, tables: Sequence[torch.Tensor], temperature: float, sizes: Sequence[int] = ()
) -> torch.Tensor:
    """The loss of each example, float32 (e,): towards the scores where `tables_of` found some, else the label.

    vectors (rows, hidden) are of length 1; the tables are on their device. `sizes`, each below hidden, are what vectors
    are cut to as well: then the loss is the mean over them and the whole.
    """
    return mean_over_sizes(vectors, sizes, lambda cut_to: _losses(cut_to, tables, temperature))


def mean_over_sizes(
    vectors: torch.Tensor, sizes: Sequence[int], losses: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """`losses` of the vectors as they are and cut to each size; the mean of these."""
    whole = losses(vectors)
    return torch.stack([whole, *(losses(cut(vectors, size)) for size in sizes)]).mean(dim=0) if sizes else whole


def cut(vectors: torch.Tensor, size: int) -> torch.Tensor:
    """float32 (rows, size) of length 1: the first numbers of each row, scaled, as a server answers that is asked for
    `size` dimensions.
    """
    return torch.nn.functional.normalize(vectors[:, :size].float(), p=2.0, dim=-1)


def _losses(vectors: torch.Tensor, tables: Sequence[torch.Tensor], temperature: float) -> torch.Tensor:
    queries, candidates, present, *scores = tables
    compared = vectors[queries], vectors[candidates], present.bool()
    if not scores:
        return candidate_loss(*compared, temperature)
    return ranking_loss(*compared, scores[0].view(torch.float32), temperature)


def not_finite(loss: float, norm: float) -> Stopped:
    """What to raise for a step whose mean loss or gradient norm is NaN or infinite. The same steps would end there."""
    return Stopped(
        "LossNotFinite",
        f"loss {loss}, gradient norm {norm}: training diverged: lower the learning rate; where the first step is so "
        "already, the base model is damaged or overflows: choose another revision (spec.baseModel)",
        field="spec.stages.finetune.learningRate",
    )
