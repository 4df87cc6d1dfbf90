"""Norms of rows, and of query and key heads with their rotary positions. See `ops` for what all calls share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import torch
import triton

from embedding_stages.encoder.packed.kernels import head_norm, norms
from embedding_stages.encoder.packed.ops import Heads, Norm

_PROGRAMS: Final = 528  # four for each of a Hopper GPU's processors; more only means more partial sums
_ELEMENTS_A_WARP: Final = 512  # of one half of a row's heads


@dataclass(frozen=True, slots=True)
class Turn:
    """The rotary angles of a pack's tokens."""

    positions: torch.Tensor  # int32 (T,)
    cosine: torch.Tensor  # float32 (most positions, size / 2)
    sine: torch.Tensor  # likewise


def add_norm(
    x: torch.Tensor, delta: torch.Tensor | None, weight: torch.Tensor, norm: Norm
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(x + delta, its norm, 1 / RMS or deviation): (T, d), (T, d), float32 (T,). x itself when delta is None."""
    rows, width = x.shape
    total = x if delta is None else torch.empty_like(x)
    normed = torch.empty_like(x)
    rstd = torch.empty(rows, dtype=torch.float32, device=x.device)
    norms.add_norm[(rows,)](
        x, delta, weight, total, normed, rstd, norm.eps, ADD=delta is not None, **_row_sizes(width, norm)
    )
    return total, normed, rstd


def norm_backward(
    grad: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    rstd: torch.Tensor,
    residual: torch.Tensor | None,
    norm: Norm,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(gradient of x with the residual's added, gradient of weight): (T, d) and float32 (d,)."""
    rows, width = x.shape
    programs = min(rows, _PROGRAMS)
    dx = torch.empty_like(x)
    parts = torch.empty(programs, width, dtype=torch.float32, device=x.device)
    norms.norm_backward[(programs,)](
        grad, x, weight, rstd, residual, dx, parts, rows, ADD=residual is not None, **_row_sizes(width, norm)
    )
    return dx, parts.sum(0)


def norm_rotate_(
    qkv: torch.Tensor,
    queries: torch.Tensor,
    keys: torch.Tensor,
    turn: Turn,
    heads: Heads,
    norm: Norm,
    *,
    keep: bool = False,
    keys_only: bool = False,
) -> torch.Tensor | None:
    """RMS norm and rotary positions on the queries and keys of qkv (T, (queries + 2 keys) * size), in place.

    `queries` and `keys` are the weights (size,). With `keep`, what was there before: (T, (queries + keys) * size).
    `keys_only` leaves the queries to `ops.attend`.
    """
    if keys_only:
        qkv, heads = qkv[:, heads.queries * heads.size :], replace(heads, queries=0)
    count = heads.queries + heads.keys
    raw = qkv.new_empty(len(qkv), count * heads.size) if keep else None
    head_norm.norm_rotate[(len(qkv),)](
        qkv, raw, queries, keys, turn.positions, turn.cosine, turn.sine, norm.eps, KEEP=keep,
        **_head_sizes(qkv, heads, norm),
    )  # fmt: skip
    return raw


def norm_rotate_backward_(
    grad: torch.Tensor,
    raw: torch.Tensor,
    queries: torch.Tensor,
    keys: torch.Tensor,
    turn: Turn,
    heads: Heads,
    norm: Norm,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Turns the gradient of qkv into that before `norm_rotate_`, whose `raw` this is.

    The gradients of both weights, float32 (size,).
    """
    programs = min(len(grad), _PROGRAMS)
    parts = torch.empty(programs, 2, heads.size, dtype=torch.float32, device=grad.device)
    head_norm.norm_rotate_backward[(programs,)](
        grad, raw, queries, keys, turn.positions, turn.cosine, turn.sine, parts, len(grad), norm.eps,
        **_head_sizes(grad, heads, norm),
    )  # fmt: skip
    for_queries, for_keys = parts.sum(0)
    return for_queries, for_keys


def _row_sizes(width: int, norm: Norm) -> dict[str, int | bool]:
    return {
        "D": width,
        "BLOCK": triton.next_power_of_2(width),
        "CENTER": norm.center,
        "PLUS_ONE": norm.plus_one,
        "num_warps": 4 if width <= 2048 else 8,
    }


def _head_sizes(qkv: torch.Tensor, heads: Heads, norm: Norm) -> dict[str, int | bool]:
    count = heads.queries + heads.keys
    block = triton.next_power_of_2(count)
    return {
        "STRIDE": qkv.stride(0),
        "QUERIES": heads.queries,
        "HEADS": count,
        "BLOCK": block,
        "HALF": heads.size // 2,
        "PLUS_ONE": norm.plus_one,
        "num_warps": 4 if block * heads.size // 2 <= 4 * _ELEMENTS_A_WARP else 8,
    }
