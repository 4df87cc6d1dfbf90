"""Which tokens a token sees, for models over padded batches."""

from __future__ import annotations

import torch


def visible(mask: torch.Tensor, *, causal: bool = False, window: int | None = None) -> torch.Tensor:
    """bool (batch, 1, tokens, tokens), true where the query of the third axis sees the key of the last.

    `mask` is int64 (batch, tokens), 1 on tokens and 0 on padding. A query sees every token; with `causal`, none after
    its own; with `window`, none that is more than so many tokens away. Padding sees itself too where there is a window:
    what sees nothing is no number, and would spread. transformers takes a 4-D mask as it is, in the place of the mask
    that it would make.
    """
    tokens = mask.shape[1]
    seen = mask.bool()[:, None, None, :].expand(-1, 1, tokens, -1)
    if causal or window is not None:
        near = torch.ones(tokens, tokens, dtype=torch.bool, device=mask.device)
        near = near.tril() if causal else near
        near = near if window is None else near.triu(-window).tril(window)
        seen = seen & near
    if window is not None:
        seen = seen | torch.eye(tokens, dtype=torch.bool, device=mask.device)
    return seen
