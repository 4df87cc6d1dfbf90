"""Layer norm over rows, with the sums that come before it: residual and bias, or word, position and type.

The backward pass leaves three column sums beside the gradient: of the input's gradient (that of whatever vector was
added to every row), of the gain's and of the shift's. A program takes several rows at a time: small models have short
rows.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["rows"])
def add_norm(
    x, delta, bias, norm, ids, positions, total, normed, mean, rstd, rows, eps, FIRST: tl.constexpr,
    D: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr, GATHER: tl.constexpr, KEEP: tl.constexpr,
):  # fmt: skip
    """total = x + delta + bias; normed = layer_norm(total) * gain + shift; ROWS rows of D a program.

    norm (2, D) is gain and shift. With GATHER row i takes row ids[i] of x and row FIRST + positions[i] of delta. KEEP
    stores total, mean and rstd.
    """
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK)
    there = row < rows
    within = column < D
    inside = there[:, None] & within[None, :]
    place = row.to(tl.int64)[:, None] * D + column[None, :]
    if GATHER:
        word = tl.load(ids + row, mask=there, other=0).to(tl.int64)
        position = tl.load(positions + row, mask=there, other=0) + FIRST
        value = tl.load(x + word[:, None] * D + column[None, :], mask=inside, other=0.0).to(tl.float32)
        value += tl.load(delta + position[:, None] * D + column[None, :], mask=inside, other=0.0).to(tl.float32)
    else:
        value = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
        value += tl.load(delta + place, mask=inside, other=0.0).to(tl.float32)
    value += tl.load(bias + column, mask=within, other=0.0).to(tl.float32)[None, :]
    center = tl.sum(value, axis=1) / D
    apart = tl.where(inside, value - center[:, None], 0.0)
    scale = tl.rsqrt(tl.sum(apart * apart, axis=1) / D + eps)
    if KEEP:
        tl.store(total + place, value.to(total.dtype.element_ty), mask=inside)
        tl.store(mean + row, center, mask=there)
        tl.store(rstd + row, scale, mask=there)
    g = tl.load(norm + column, mask=within, other=0.0).to(tl.float32)
    s = tl.load(norm + D + column, mask=within, other=0.0).to(tl.float32)
    out = apart * scale[:, None] * g[None, :] + s[None, :]
    tl.store(normed + place, out.to(normed.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["rows"])
def backward(dh, total, gain, mean, rstd, dx, parts, rows, D: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr):
    """dx = gradient of total; parts (programs, 3, D): float32 sums over a program's rows for bias, gain and shift."""
    column = tl.arange(0, BLOCK)
    within = column < D
    g = tl.load(gain + column, mask=within, other=0.0).to(tl.float32)[None, :]
    for_bias = tl.zeros((ROWS, BLOCK), tl.float32)
    for_gain = tl.zeros((ROWS, BLOCK), tl.float32)
    for_shift = tl.zeros((ROWS, BLOCK), tl.float32)
    for start in range(tl.program_id(0) * ROWS, rows, tl.num_programs(0) * ROWS):
        row = start + tl.arange(0, ROWS)
        there = row < rows
        inside = there[:, None] & within[None, :]
        place = row.to(tl.int64)[:, None] * D + column[None, :]
        center = tl.load(mean + row, mask=there, other=0.0)[:, None]
        scale = tl.load(rstd + row, mask=there, other=0.0)[:, None]
        value = (tl.load(total + place, mask=inside, other=0.0).to(tl.float32) - center) * scale
        value = tl.where(inside, value, 0.0)
        grad = tl.load(dh + place, mask=inside, other=0.0).to(tl.float32)
        for_shift += grad
        for_gain += grad * value
        grad *= g
        change = grad - tl.sum(grad, axis=1)[:, None] / D - value * (tl.sum(grad * value, axis=1) / D)[:, None]
        change *= scale
        for_bias += change
        tl.store(dx + place, change.to(dx.dtype.element_ty), mask=inside)
    place = parts + tl.program_id(0) * 3 * D + column
    tl.store(place, tl.sum(for_bias, axis=0), mask=within)
    tl.store(place + D, tl.sum(for_gain, axis=0), mask=within)
    tl.store(place + 2 * D, tl.sum(for_shift, axis=0), mask=within)


@triton.jit(do_not_specialize=["sequences"])
def position_sums(rows, starts, table, sequences, FIRST: tl.constexpr, D: tl.constexpr, BLOCK: tl.constexpr,
                  SEQUENCES: tl.constexpr):  # fmt: skip
    """table[FIRST + p] += the sum of every sequence's row p, where it has one; program p does it in one order."""
    position = tl.program_id(0)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    within = column < D
    total = tl.zeros((SEQUENCES, BLOCK), tl.float32)
    for first in range(0, sequences, SEQUENCES):
        sequence = first + tl.arange(0, SEQUENCES)
        known = sequence < sequences
        row = tl.load(starts + sequence, mask=known, other=0) + position
        there = known & (row < tl.load(starts + sequence + 1, mask=known, other=0))
        place = row.to(tl.int64)[:, None] * D + column[None, :]
        total += tl.load(rows + place, mask=there[:, None] & within[None, :], other=0.0).to(tl.float32)
    place = table + (FIRST + position) * D + column
    added = tl.load(place, mask=within, other=0.0).to(tl.float32) + tl.sum(total, axis=0)
    tl.store(place, added.to(table.dtype.element_ty), mask=within)
