"""Bias and activation in one pass, and sums over rows: the gradients of vectors that are added to every row.

Sums over rows take two steps, so that their order, and with it every bit, is the same in each run: each program sums
some rows in float32 (`parts`), then `add_columns` adds the programs' sums.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _of_gelu(x):
    """The normal distribution's mass below x, within 1e-7, and exp(-x^2 / 2).

    Hastings' approximation of erf (Abramowitz and Stegun, 7.1.26): half the instructions of the library's erf, and the
    exponential is the one that the derivative needs.
    """
    bell = tl.exp(-0.5 * x * x)
    t = 1.0 / (1.0 + 0.23164189 * tl.abs(x))
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    tail = 0.5 * series * bell
    return tl.where(x > 0.0, 1.0 - tail, tail), bell


@triton.jit
def _of_gelu_tanh(x):
    """tanh(sqrt(2 / pi) (x + 0.044715 x^3)) by the logistic function, and the derivative of what is in brackets."""
    inner = 0.7978845608028654 * x * (1.0 + 0.044715 * x * x)
    return 2.0 * tl.sigmoid(2.0 * inner) - 1.0, 0.7978845608028654 * (1.0 + 0.134145 * x * x)


@triton.jit(do_not_specialize=["rows"])
def activate(x, bias, out, rows, WIDTH: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr, KIND: tl.constexpr):
    """out = activation(x + bias); KIND is gelu, gelu_tanh or relu."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = (row < rows)[:, None] & (column < WIDTH)[None, :]
    place = row.to(tl.int64)[:, None] * WIDTH + column[None, :]
    value = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    value += tl.load(bias + column, mask=column < WIDTH, other=0.0).to(tl.float32)[None, :]
    if KIND == "gelu":
        mass, _ = _of_gelu(value)
        value = value * mass
    elif KIND == "gelu_tanh":
        bend, _ = _of_gelu_tanh(value)
        value = 0.5 * value * (1.0 + bend)
    else:
        value = tl.maximum(value, 0.0)
    tl.store(out + place, value.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["rows"])
def activate_backward(
    x, bias, dout, parts, rows, WIDTH: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr, KIND: tl.constexpr
):
    """The gradient of x, written over x; parts (programs, WIDTH): float32 sums of it over a program's rows."""
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    within = column < WIDTH
    shift = tl.load(bias + column, mask=within, other=0.0).to(tl.float32)[None, :]
    total = tl.zeros((ROWS, BLOCK), tl.float32)
    for start in range(tl.program_id(0) * ROWS, rows, tl.num_programs(0) * ROWS):
        row = start + tl.arange(0, ROWS)
        inside = (row < rows)[:, None] & within[None, :]
        place = row.to(tl.int64)[:, None] * WIDTH + column[None, :]
        value = tl.load(x + place, mask=inside, other=0.0).to(tl.float32) + shift
        grad = tl.load(dout + place, mask=inside, other=0.0).to(tl.float32)
        if KIND == "gelu":
            mass, bell = _of_gelu(value)
            grad *= mass + 0.3989422804014327 * value * bell
        elif KIND == "gelu_tanh":
            bend, slope = _of_gelu_tanh(value)
            grad *= 0.5 * (1.0 + bend) + 0.5 * value * (1.0 - bend * bend) * slope
        else:
            grad = tl.where(value > 0.0, grad, 0.0)
        total += grad
        tl.store(x + place, grad.to(x.dtype.element_ty), mask=inside)
    tl.store(parts + tl.program_id(0) * WIDTH + column, tl.sum(total, axis=0), mask=within)


@triton.jit(do_not_specialize=["rows"])
def column_sums(x, parts, rows, WIDTH: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr):
    """parts (programs, WIDTH): float32 sums of a program's rows of x."""
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    within = column < WIDTH
    total = tl.zeros((ROWS, BLOCK), tl.float32)
    for start in range(tl.program_id(0) * ROWS, rows, tl.num_programs(0) * ROWS):
        row = start + tl.arange(0, ROWS)
        inside = (row < rows)[:, None] & within[None, :]
        place = row.to(tl.int64)[:, None] * WIDTH + column[None, :]
        total += tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    tl.store(parts + tl.program_id(0) * WIDTH + column, tl.sum(total, axis=0), mask=within)


@triton.jit(do_not_specialize=["programs"])
def add_columns(
    parts, target, programs, STRIDE: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr
):
    """target (WIDTH) += the sum of the first WIDTH columns of parts (programs, STRIDE)."""
    column = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    within = column < WIDTH
    total = tl.zeros((ROWS, BLOCK), tl.float32)
    for start in range(0, programs, ROWS):
        row = start + tl.arange(0, ROWS)
        inside = (row < programs)[:, None] & within[None, :]
        total += tl.load(parts + row[:, None] * STRIDE + column[None, :], mask=inside, other=0.0)
    added = tl.load(target + column, mask=within, other=0.0).to(tl.float32) + tl.sum(total, axis=0)
    tl.store(target + column, added.to(target.dtype.element_ty), mask=within)
