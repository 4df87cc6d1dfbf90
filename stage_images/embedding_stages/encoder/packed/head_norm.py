"""RMS norm and rotary positions of query and key heads, as functions of tensors. See `ops` for what all calls share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
import triton

from embedding_stages.encoder.packed.kernels import head_norm
from embedding_stages.encoder.packed.ops import Heads

_PROGRAMS: Final = 1056  # eight for each of a Hopper GPU's processors; more only means more partial sums
_ELEMENTS_A_WARP: Final = 512  # of one half of a row's heads


@dataclass(frozen=True, slots=True)
class Turn:
    """The rotary angles of a pack's tokens."""

    positions: torch.Tensor  # int32 (T,)
    cosine: torch.Tensor  # float32 (most positions, size / 2)
    sine: torch.Tensor  # likewise


def norm_rotate_(
    qkv: torch.Tensor,
    queries: torch.Tensor,
    keys: torch.Tensor,
    turn: Turn,
    heads: Heads,
    eps: float,
    *,
    plus_one: bool = False,
    keep: bool = False,
) -> torch.Tensor | None:
    """RMS norm, times a weight, and rotary positions on the queries and keys of qkv (T, ...), in place.

    `queries` and `keys` are the weights (size,), to which 1 is added with `plus_one`. With `keep`, what was there
    before: (T, (queries + keys) * size).
    """
    count = heads.queries + heads.keys
    raw = qkv.new_empty(len(qkv), count * heads.size) if keep else None
    head_norm.norm_rotate[(len(qkv),)](
        qkv, raw, queries, keys, turn.positions, turn.cosine, turn.sine, eps, KEEP=keep, **_sizes(qkv, heads, plus_one)
    )
    return raw


def norm_rotate_backward_(
    grad: torch.Tensor,
    raw: torch.Tensor,
    queries: torch.Tensor,
    keys: torch.Tensor,
    turn: Turn,
    heads: Heads,
    eps: float,
    *,
    plus_one: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Turns the gradient of qkv into that before `norm_rotate_`, whose `raw` this is.

    The gradients of both weights, float32 (size,).
    """
    programs = min(len(grad), _PROGRAMS)
    parts = torch.empty(programs, 2, heads.size, dtype=torch.float32, device=grad.device)
    head_norm.norm_rotate_backward[(programs,)](
        grad, raw, queries, keys, turn.positions, turn.cosine, turn.sine, parts, len(grad), eps,
        **_sizes(grad, heads, plus_one),
    )  # fmt: skip
    for_queries, for_keys = parts.sum(0)
    return for_queries, for_keys


def _sizes(qkv: torch.Tensor, heads: Heads, plus_one: bool) -> dict[str, int | bool]:
    count = heads.queries + heads.keys
    block = triton.next_power_of_2(count)
    return {
        "STRIDE": qkv.shape[1],
        "QUERIES": heads.queries,
        "HEADS": count,
        "BLOCK": block,
        "HALF": heads.size // 2,
        "PLUS_ONE": plus_one,
        "num_warps": 4 if block * heads.size // 2 <= 4 * _ELEMENTS_A_WARP else 8,
    }
