"""The recipe's loss."""

from __future__ import annotations

import torch

from embedding_stages.errors import StageError


def candidate_loss(
    queries: torch.Tensor, candidates: torch.Tensor, present: torch.Tensor, temperature: float
) -> torch.Tensor:
    """The loss of each example, float32 (n,).

    queries (n, hidden) and candidates (n, c, hidden) are of length 1, column 0 is the positive, present
    (n, c) is False where an example has fewer negatives than others. Cross-entropy of the positive under a
    softmax of cosine / temperature over the example's own candidates; other examples' passages play no part
    (NVIDIA embed recipe, profile llama: no in-batch negatives, temperature 0.02).
    """
    logits = torch.einsum("nh,nch->nc", queries.float(), candidates.float()) / temperature
    logits = logits.masked_fill(~present, float("-inf"))
    return torch.logsumexp(logits, dim=1) - logits[:, 0]


def not_finite(loss: float, norm: float) -> StageError:
    """What to raise for a step whose mean loss or gradient norm is NaN or infinite."""
    return StageError(
        "LossNotFinite",
        f"loss {loss}, gradient norm {norm}: lower spec.stages.finetune.learningRate or look for "
        "damaged training texts",
    )
