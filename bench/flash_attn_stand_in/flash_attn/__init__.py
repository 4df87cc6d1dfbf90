"""Not flash-attn: its name and two of its functions, over the FlashAttention-2 kernels that are compiled into torch.

flash-attn has no wheel on the package index, and libraries that can do without padding do so only when they find it.
With this on the path they run as on a machine where it was built from source.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.attention.varlen import varlen_attn


def flash_attn_varlen_func(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    **unused: Any,
) -> torch.Tensor:
    """Attention inside each sequence: (tokens, heads, head size), sequences given by their cumulative lengths."""
    if dropout_p != 0.0 or any(value for name, value in unused.items() if name != "deterministic"):
        raise NotImplementedError(f"only plain attention: dropout {dropout_p}, {sorted(unused)}")
    left, right = window_size
    return varlen_attn(
        q,
        k,
        v,
        cu_seqlens_q.int(),
        cu_seqlens_k.int(),
        int(max_seqlen_q),
        int(max_seqlen_k),
        scale=softmax_scale,
        window_size=(left, 0) if causal else (left, right),
    )


def flash_attn_func(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """Attention over a padded batch, every sequence of full length: (batch, tokens, heads, head size)."""
    batch, queries = q.shape[:2]
    keys = k.shape[1]
    ends_q = torch.arange(0, (batch + 1) * queries, queries, device=q.device, dtype=torch.int32)
    ends_k = torch.arange(0, (batch + 1) * keys, keys, device=q.device, dtype=torch.int32)
    flat = (tensor.flatten(0, 1) for tensor in (q, k, v))
    return flash_attn_varlen_func(*flat, ends_q, ends_k, queries, keys, *args, **kwargs).unflatten(0, (batch, queries))


def flash_attn_with_kvcache(*_: Any, **__: Any) -> torch.Tensor:
    """Imported by name elsewhere; an encoder has no cache."""
    raise NotImplementedError
