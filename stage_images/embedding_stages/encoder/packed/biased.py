"""The kernels of models with biases and layer norms as functions of tensors; `ops` has the others.

Shapes: T tokens of a pack (filler included), n sequences. All tensors of a call are contiguous and on one device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

import torch
import triton

from embedding_stages.encoder.packed.kernels import biased, layer_norm

Activation = Literal["gelu", "gelu_tanh", "relu"]
_ELEMENTS: Final = 2048  # of rows that a program of a norm takes at a time
_NORM_PROGRAMS: Final = 528  # four for each of a Hopper GPU's processors; more only means more partial sums
_COLUMNS: Final = 256  # of a program that goes down the rows
_ROWS: Final = 8  # that it takes at a time: so many loads are under way
_COLUMN_PROGRAMS: Final = 2112  # sixteen small ones for each processor


class Normed(NamedTuple):
    """What a layer norm gives, and what its backward pass needs of it."""

    out: torch.Tensor  # (T, d)
    total: torch.Tensor  # (T, d): what was normed
    mean: torch.Tensor  # float32 (T,)
    rstd: torch.Tensor  # float32 (T,)

    def kept(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What `layer_norm_backward` takes."""
        return self.total, self.mean, self.rstd


def add_layer_norm(x: torch.Tensor, delta: torch.Tensor, vectors: torch.Tensor, eps: float) -> Normed:
    """The layer norm of x + delta + bias: (T, d) twice; vectors (3, d) are bias, gain and shift."""
    return _normed(x, delta, vectors, vectors[1:], eps, len(x), keep=True)


def add_layer_norm_(x: torch.Tensor, delta: torch.Tensor, vectors: torch.Tensor, eps: float) -> torch.Tensor:
    """`add_layer_norm` written over delta, with nothing kept."""
    return _normed(x, delta, vectors, vectors[1:], eps, len(x), keep=False, out=delta).out


def embed(
    tables: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    norm: torch.Tensor,
    eps: float,
    *,
    ids: torch.Tensor,
    places: torch.Tensor,
    first: int,
    keep: bool,
) -> Normed:
    """The layer norm of words[ids] + positions[first + places] + types[0].

    tables are words, positions and types, (rows, d); norm (2, d) is gain and shift, ids and places int32 (T,). Without
    `keep` only `out` is defined.
    """
    return _normed(*tables, norm, eps, len(ids), keep=keep, at=(ids, places, first))


def layer_norm_backward(
    grad: torch.Tensor, kept: Sequence[torch.Tensor], gain: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(gradient of what was normed (T, d), parts float32 (programs, 3, d) of those of bias, gain and shift)."""
    rows, width = grad.shape
    total, mean, rstd = kept
    block, step, warps = _tile(width)
    programs = min(triton.cdiv(rows, step), _NORM_PROGRAMS)
    dx = torch.empty_like(grad)
    parts = torch.empty(programs, 3, width, dtype=torch.float32, device=grad.device)
    layer_norm.backward[(programs,)](
        grad, total, gain, mean, rstd, dx, parts, rows,
        D=width, BLOCK=block, ROWS=step, num_warps=warps,
    )  # fmt: skip
    return dx, parts


def add_position_sums_(table: torch.Tensor, rows: torch.Tensor, starts: torch.Tensor, *, first: int) -> None:
    """Add each sequence's rows of (T, d) to those of `table` (first + places, d), the first to number `first`.

    starts int32 (n + 1,).
    """
    width = rows.shape[1]
    block = min(128, triton.next_power_of_2(width))
    layer_norm.position_sums[(len(table) - first, triton.cdiv(width, block))](
        rows, starts, table, len(starts) - 1, FIRST=first, D=width, BLOCK=block, SEQUENCES=16, num_warps=4,
    )  # fmt: skip


def activate(x: torch.Tensor, bias: torch.Tensor, kind: Activation) -> torch.Tensor:
    """activation(x + bias): (T, w) and (w,)."""
    return _activated(x, bias, kind, torch.empty_like(x))


def activate_(x: torch.Tensor, bias: torch.Tensor, kind: Activation) -> torch.Tensor:
    """`activate` written over x."""
    return _activated(x, bias, kind, x)


def _activated(x: torch.Tensor, bias: torch.Tensor, kind: Activation, out: torch.Tensor) -> torch.Tensor:
    rows, width = x.shape
    block = min(_COLUMNS, triton.next_power_of_2(width))
    biased.activate[(triton.cdiv(rows, _ROWS), triton.cdiv(width, block))](
        x, bias, out, rows, WIDTH=width, BLOCK=block, ROWS=_ROWS, KIND=kind, num_warps=4
    )
    return out


def activate_backward_(
    x: torch.Tensor, bias: torch.Tensor, grad: torch.Tensor, kind: Activation
) -> tuple[torch.Tensor, torch.Tensor]:
    """(the gradient of x, written over it; parts float32 (programs, w) of the bias's)."""
    block, grid, parts = _columns(x)
    biased.activate_backward[grid](
        x, bias, grad, parts, len(x), WIDTH=x.shape[1], BLOCK=block, ROWS=_ROWS, KIND=kind, num_warps=4
    )
    return x, parts


def column_sums(x: torch.Tensor) -> torch.Tensor:
    """Parts, float32 (programs, w), of the sums of each column of (T, w)."""
    block, grid, parts = _columns(x)
    biased.column_sums[grid](x, parts, len(x), WIDTH=x.shape[1], BLOCK=block, ROWS=_ROWS, num_warps=4)
    return parts


def add_columns_(target: torch.Tensor, parts: torch.Tensor) -> None:
    """Add the sum of parts (programs, ...), whose rows are contiguous, to target (...), contiguous."""
    width = target.numel()
    block = min(64, triton.next_power_of_2(width))
    biased.add_columns[(triton.cdiv(width, block),)](
        parts, target, len(parts), STRIDE=parts.stride(0), WIDTH=width, BLOCK=block, ROWS=32, num_warps=4
    )


def _normed(
    x: torch.Tensor,
    delta: torch.Tensor,
    bias: torch.Tensor,
    norm: torch.Tensor,
    eps: float,
    rows: int,
    *,
    keep: bool,
    out: torch.Tensor | None = None,
    at: tuple[torch.Tensor | None, torch.Tensor | None, int] = (None, None, 0),
) -> Normed:
    width = x.shape[1]
    out = x.new_empty(rows, width) if out is None else out
    total, mean, rstd = out, out, out
    if keep:
        total = torch.empty_like(out)
        mean, rstd = torch.empty(2, rows, dtype=torch.float32, device=x.device).unbind()
    block, step, warps = _tile(width)
    ids, places, first = at
    layer_norm.add_norm[(triton.cdiv(rows, step),)](
        x, delta, bias, norm, ids, places, total, out, mean, rstd, rows, eps, FIRST=first,
        D=width, BLOCK=block, ROWS=step, GATHER=ids is not None, KEEP=keep, num_warps=warps,
    )  # fmt: skip
    return Normed(out, total, mean, rstd)


def _tile(width: int) -> tuple[int, int, int]:
    """Columns and rows that a program of a norm takes at a time, and its warps: 16 numbers a thread."""
    block = triton.next_power_of_2(width)
    rows = max(1, _ELEMENTS // block)
    return block, rows, max(4, min(16, block * rows // 512))


def _columns(x: torch.Tensor) -> tuple[int, tuple[int, int], torch.Tensor]:
    """Columns of a program that goes down the rows, the grid of such programs, and room for their sums."""
    rows, width = x.shape
    block = min(_COLUMNS, triton.next_power_of_2(width))
    across = triton.cdiv(width, block)
    programs = max(1, min(triton.cdiv(rows, _ROWS), _COLUMN_PROGRAMS // across))
    return block, (programs, across), torch.empty(programs, width, dtype=torch.float32, device=x.device)
