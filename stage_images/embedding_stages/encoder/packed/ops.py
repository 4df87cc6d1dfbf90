"""The kernels as functions of tensors. Shapes: T tokens of a pack (filler included), n sequences.

All tensors of a call are contiguous and on one device: CUDA, or the CPU under Triton's interpreter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import torch
import triton

from embedding_stages.encoder.packed.kernels import attention, optimizer, rowwise

_LOG2E: Final = 1.4426950408889634
# Tiles of the attention programs, the best of those that bench/time_kernels.py tries.
_TILE_ROWS: Final = 64  # of queries: tokens x heads that share a key head
_KEY_STEP: Final = 32  # tokens of keys that a tile of queries takes at a time
KEY_TILE: Final = 64  # tokens of keys whose gradients a program computes
_MOST_SIZE_STAGED: Final = 128  # of a head whose keys are loaded three steps ahead: larger ones have no room
OPTIMIZER_BLOCK: Final = 1024  # elements; flat arrays have a multiple of it


@dataclass(frozen=True, slots=True)
class Heads:
    """How a row of q, k and v together is divided."""

    queries: int
    keys: int  # a divisor of `queries`
    size: int  # a power of 2; need not be the hidden size's share
    scale: float = 0.0  # of the scores; 0: one over the root of `size`

    @property
    def group_rows(self) -> int:
        """Query heads of a key head, rounded up to a power of 2."""
        return int(triton.next_power_of_2(self.queries // self.keys))

    @property
    def query_tile(self) -> int:
        """Tokens of a tile of queries."""
        return max(16, _TILE_ROWS // self.group_rows)


@dataclass(frozen=True, slots=True)
class Sight:
    """Which tokens of its sequence a token sees."""

    causal: bool = False  # none after itself
    window: int = 0  # none further away than so many tokens; 0: however far


EVERYTHING: Final = Sight()


@dataclass(frozen=True, slots=True)
class Distances:
    """What the distance from a query to a key adds to their score, of each head; as many of keys as of queries.

    A distance is key less query, in tokens; the most that is told apart is half of the tables' lengths.
    """

    bucket_of: torch.Tensor  # int32 (2 far + 1,): the bucket of each distance, the most negative one first
    bias: torch.Tensor  # float32 (heads, 2 far + 1)
    buckets: int  # a power of 2

    @classmethod
    def of(cls, table: torch.Tensor, bucket_of: torch.Tensor) -> Distances:
        """From the summands of each bucket (buckets, heads)."""
        bias = table.detach().float()[bucket_of.long()].t() * _LOG2E
        return cls(bucket_of, bias.contiguous(), len(table))

    @property
    def far(self) -> int:
        """The distance that all beyond share."""
        return len(self.bucket_of) // 2


@dataclass(frozen=True, slots=True)
class Norm:
    """Which norm; RMS norm times a weight by default."""

    eps: float
    center: bool = False  # layer norm without a bias
    plus_one: bool = False  # times 1 + the weight


def rotate_(
    qkv: torch.Tensor,
    positions: torch.Tensor,
    cosine: torch.Tensor,
    sine: torch.Tensor,
    heads: Heads,
    *,
    keys_only: bool = False,
) -> None:
    """Rotary positions on the queries and keys of qkv (T, (queries + 2 keys) * size), in place.

    positions int32 (T,); cosine and sine float32 (most positions, size / 2); -sine turns back. `keys_only` leaves the
    queries to `attend`.
    """
    first, turned = (heads.queries, heads.keys) if keys_only else (0, heads.queries + heads.keys)
    rowwise.rotate[(len(qkv),)](
        qkv[:, first * heads.size :], positions, cosine, sine, STRIDE=qkv.shape[1], HEADS=turned,
        BLOCK=triton.next_power_of_2(turned), HALF=heads.size // 2, num_warps=1 if keys_only else 4,
    )  # fmt: skip


def sequence_mean(states: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
    """Mean of each sequence's rows of (T, d): float32 (n, d). starts int32 (n + 1,)."""
    width = states.shape[1]
    out = torch.empty(len(starts) - 1, width, dtype=torch.float32, device=states.device)
    block = min(256, triton.next_power_of_2(width))
    grid = (len(starts) - 1, triton.cdiv(width, block))
    rowwise.sequence_mean[grid](states, starts, out, D=width, BLOCK=block, ROWS=16, num_warps=4)
    return out


def attend(
    qkv: torch.Tensor,
    query_tiles: torch.Tensor,
    heads: Heads,
    sight: Sight = EVERYTHING,
    turn: tuple[torch.Tensor, torch.Tensor] | None = None,
    gain: torch.Tensor | None = None,
    norm: Norm | None = None,
    distances: Distances | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention within each sequence: (T, queries * size) and the logarithms that `attend_backward` needs.

    With `turn`, the cosine and sine of `rotate_`, the queries of qkv get their rotary positions on the way; with `gain`
    (size,), after `norm` with that weight.
    """
    out = qkv.new_empty(len(qkv), heads.queries * heads.size)
    lse = torch.empty(len(qkv), heads.queries, dtype=torch.float32, device=qkv.device)
    count = query_tiles.shape[1]
    eps, plus_one = (norm.eps, int(norm.plus_one)) if gain is not None and norm is not None else (None, 0)
    attention.forward[(count, heads.keys)](
        qkv, out, lse, query_tiles, count, _scale(heads), _bias(distances), *(turn or (None, None)), gain, eps,
        **_sizes(heads, sight, distances), TOKENS=heads.query_tile, KEYS=_KEY_STEP, TURN=turn is not None,
        NORM=gain is not None, PLUS_ONE=plus_one, num_warps=_attention_warps(heads),
        num_stages=3 if heads.size <= _MOST_SIZE_STAGED else 2,
    )  # fmt: skip
    return out, lse


def attend_backward(
    grad: torch.Tensor,
    qkv: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    query_tiles: torch.Tensor,
    key_tiles: torch.Tensor,
    heads: Heads,
    sight: Sight = EVERYTHING,
    distances: Distances | None = None,
    sums: torch.Tensor | None = None,
    turn: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> torch.Tensor:
    """The gradient of qkv; with `turn`, the cosine and sine of `rotate_`, of what qkv was before `rotate_`.

    `sums`, float32 (tiles of queries, heads, buckets), gets parts of the gradient of what `distances` was made of.
    """
    dqkv = torch.empty_like(qkv)
    delta = torch.empty_like(lse)
    sizes, scale, warps = _sizes(heads, sight, distances), _scale(heads), _attention_warps(heads)
    bias, bucket_of = _bias(distances), None if distances is None else distances.bucket_of
    buckets = 0 if distances is None or sums is None else distances.buckets
    count, angles, turns = query_tiles.shape[1], turn or (None, None), turn is not None
    attention.backward_queries[(count, heads.keys)](
        qkv, out, grad, lse, delta, dqkv, query_tiles, count, scale, bias, bucket_of, sums, *angles, **sizes,
        BUCKETS=buckets, TOKENS=heads.query_tile, KEYS=_KEY_STEP, TURN=turns, num_warps=warps,
        num_stages=_backward_stages(heads),
    )  # fmt: skip
    count, (tokens, stages) = key_tiles.shape[1], _steps_of_queries(heads)
    attention.backward_keys[(count, heads.keys)](
        qkv, grad, lse, delta, dqkv, key_tiles, count, scale, bias, *angles, **sizes,
        TOKENS=tokens, KEYS=KEY_TILE, TURN=turns, num_warps=warps, num_stages=stages,
    )  # fmt: skip
    return dqkv


@dataclass(frozen=True, slots=True, kw_only=True)
class AdamW:
    """The numbers of torch.optim.AdamW, and the norm above which gradients are scaled down."""

    beta1: float
    beta2: float
    eps: float
    decay: float
    most: float


def adamw_(
    settings: AdamW,
    weights: torch.Tensor,
    gradient: torch.Tensor,
    master: torch.Tensor,
    mean: torch.Tensor,
    variance: torch.Tensor,
    norm: torch.Tensor,
    *,
    decayed: int,
    rate: float,
    step: int,
) -> None:
    """Update number `step` (from 1) of flat arrays, all (count,), and clear the gradient.

    count is a multiple of OPTIMIZER_BLOCK. master, mean and variance are float32; weights is master's working copy,
    or master itself. The first `decayed` elements decay. When `norm`, the gradient's length (a float32 tensor), is
    not finite, only the gradient changes.
    """
    optimizer.adamw[(len(weights) // OPTIMIZER_BLOCK,)](
        weights, gradient, master, mean, variance, norm, decayed,
        rate * settings.decay, rate / (1.0 - settings.beta1**step), settings.beta2,
        1.0 - settings.beta1, 1.0 - settings.beta2, math.sqrt(1.0 - settings.beta2**step), settings.eps, settings.most,
        COPY=weights.data_ptr() != master.data_ptr(), BLOCK=OPTIMIZER_BLOCK, num_warps=8,
    )  # fmt: skip


def _scale(heads: Heads) -> float:
    return _LOG2E * (heads.scale or 1.0 / math.sqrt(heads.size))


def _bias(distances: Distances | None) -> torch.Tensor | None:
    return None if distances is None else distances.bias


def _sizes(heads: Heads, sight: Sight, distances: Distances | None) -> dict[str, int | bool]:
    return {
        "HEADS": heads.queries,
        "KEY_HEADS": heads.keys,
        "GROUP_ROWS": heads.group_rows,
        "SIZE": heads.size,
        "CAUSAL": sight.causal,
        "WINDOW": sight.window,
        "FAR": 0 if distances is None else distances.far,
    }


def _steps_of_queries(heads: Heads) -> tuple[int, int]:
    """Tokens of queries that `backward_keys` takes at a time, and steps ahead that it loads them."""
    if heads.size == _MOST_SIZE_STAGED and heads.group_rows == 2:  # Qwen3's: 15 % faster than one larger step
        return 16, 3
    return heads.query_tile, 1


def _backward_stages(heads: Heads) -> int:
    """Steps ahead that `backward_queries` loads keys and values: fewer where they take more room."""
    if heads.size > _MOST_SIZE_STAGED:
        return 1
    return 3 if heads.size <= _MOST_SIZE_STAGED // 2 else 2


def _attention_warps(heads: Heads) -> int:
    """Twice as many where a tile's sums would not fit the registers of four."""
    return 4 if heads.size <= _MOST_SIZE_STAGED else 8
