"""Norms of whole rows: RMS norm, or with CENTER layer norm without a bias; with PLUS_ONE the weight is 1 + `weight`.

Bound by memory traffic, so the residual's sum is done in the same pass.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def add_norm(
    x, delta, weight, x_out, h_out, rstd, eps, D: tl.constexpr, BLOCK: tl.constexpr, ADD: tl.constexpr,
    CENTER: tl.constexpr, PLUS_ONE: tl.constexpr,
):  # fmt: skip
    """x_out = x + delta (when ADD); h_out = norm(x_out) * weight; one program a row of D."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < D
    place = row * D + column
    value = tl.load(x + place, mask=inside, other=0.0)
    if ADD:
        value = (value.to(tl.float32) + tl.load(delta + place, mask=inside, other=0.0).to(tl.float32)).to(value.dtype)
        tl.store(x_out + place, value, mask=inside)
    full = value.to(tl.float32)
    if CENTER:
        full = tl.where(inside, full - tl.sum(full) / D, 0.0)
    scale = tl.rsqrt(tl.sum(full * full) / D + eps)
    tl.store(rstd + row, scale)
    normed = full * scale
    if not CENTER and not PLUS_ONE:
        normed = normed.to(value.dtype).to(tl.float32)  # rounded before the weight, as the reference does
    gain = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    if PLUS_ONE:
        gain += 1.0
    tl.store(h_out + place, (normed * gain).to(value.dtype), mask=inside)


@triton.jit(do_not_specialize=["rows"])
def norm_backward(
    dh, x, weight, rstd, residual, dx, dweight, rows, D: tl.constexpr, BLOCK: tl.constexpr, ADD: tl.constexpr,
    CENTER: tl.constexpr, PLUS_ONE: tl.constexpr,
):  # fmt: skip
    """dx = gradient through the norm (+ residual when ADD); dweight (programs, D) are partial sums in float32.

    Program p takes rows p, p + programs, ...
    """
    column = tl.arange(0, BLOCK)
    inside = column < D
    gain = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    if PLUS_ONE:
        gain += 1.0
    total = tl.zeros((BLOCK,), tl.float32)
    for row in range(tl.program_id(0), rows, tl.num_programs(0)):
        place = row * D + column  # 32 bits are enough: packs have far fewer than a million tokens
        scale = tl.load(rstd + row)
        value = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
        if CENTER:
            value = tl.where(inside, value - tl.sum(value) / D, 0.0)
        value = value * scale
        grad = tl.load(dh + place, mask=inside, other=0.0).to(tl.float32)
        total += grad * value
        grad *= gain
        change = grad - value * (tl.sum(grad * value) / D)
        if CENTER:
            change -= tl.sum(grad) / D
        change = scale * change
        if ADD:
            change += tl.load(residual + place, mask=inside, other=0.0).to(tl.float32)
        tl.store(dx + place, change.to(dx.dtype.element_ty), mask=inside)
    tl.store(dweight + tl.program_id(0).to(tl.int64) * D + column, total, mask=inside)
