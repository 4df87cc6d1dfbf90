"""The two functions that go between padded batches and flat tokens."""

from __future__ import annotations

import torch
from torch.nn.functional import pad


def unpad_input(
    hidden_states: torch.Tensor, attention_mask: torch.Tensor, unused_mask: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int, torch.Tensor]:
    """The valid tokens of (batch, tokens, ...): themselves, their places, cumulative lengths, the longest, lengths."""
    if unused_mask is not None:
        raise NotImplementedError("unused_mask")
    lengths = attention_mask.sum(dim=-1, dtype=torch.int32)
    places = attention_mask.flatten().nonzero().flatten()
    ends = pad(lengths.cumsum(0, dtype=torch.int32), (1, 0))
    return hidden_states.flatten(0, 1).index_select(0, places), places, ends, int(lengths.max()), lengths


def pad_input(hidden_states: torch.Tensor, indices: torch.Tensor, batch: int, seqlen: int) -> torch.Tensor:
    """The reverse: (batch, seqlen, ...) with zeros where no token is."""
    padded = hidden_states.new_zeros(batch * seqlen, *hidden_states.shape[1:])
    return padded.index_copy(0, indices, hidden_states).unflatten(0, (batch, seqlen))
