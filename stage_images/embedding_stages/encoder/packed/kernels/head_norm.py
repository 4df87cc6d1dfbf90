"""RMS norm of each query and key head, and the rotary positions after it, in one pass over q and k.

The norm's input is kept apart (KEEP) for the backward pass: what the rotation leaves is a mixture of numbers that may
differ by the weights' magnitudes, so their quotients would not give it back.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _weights(queries, keys, head, pair, QUERIES: tl.constexpr, HALF: tl.constexpr, PLUS_ONE: tl.constexpr):
    """The weights of both halves of each head, float32 (heads, HALF): those of queries, then those of keys."""
    place = tl.where(head < QUERIES, 0, 1)
    first = tl.where(place == 0, tl.load(queries + pair), tl.load(keys + pair)).to(tl.float32)
    second = tl.where(place == 0, tl.load(queries + HALF + pair), tl.load(keys + HALF + pair)).to(tl.float32)
    if PLUS_ONE:
        first += 1.0
        second += 1.0
    return first, second


@triton.jit
def norm_rotate(
    heads, raw, queries, keys, positions, cosine, sine, eps, STRIDE: tl.constexpr, QUERIES: tl.constexpr,
    HEADS: tl.constexpr, BLOCK: tl.constexpr, HALF: tl.constexpr, PLUS_ONE: tl.constexpr, KEEP: tl.constexpr,
):  # fmt: skip
    """In place on the first HEADS heads of each row, of which QUERIES have the weights `queries`, others `keys`.

    raw (rows, HEADS * 2 * HALF) gets what was there before.
    """
    row = tl.program_id(0).to(tl.int64)
    head = tl.arange(0, BLOCK)[:, None]
    pair = tl.arange(0, HALF)[None, :]
    inside = head < HEADS
    column = head * (2 * HALF) + pair
    place = heads + row * STRIDE + column
    left = tl.load(place, mask=inside, other=0.0)
    right = tl.load(place + HALF, mask=inside, other=0.0)
    if KEEP:
        tl.store(raw + row * (HEADS * 2 * HALF) + column, left, mask=inside)
        tl.store(raw + row * (HEADS * 2 * HALF) + column + HALF, right, mask=inside)
    first = left.to(tl.float32)
    second = right.to(tl.float32)
    scale = tl.rsqrt(tl.sum(first * first + second * second, axis=1) / (2 * HALF) + eps)[:, None]
    gain, other_gain = _weights(queries, keys, head, pair, QUERIES, HALF, PLUS_ONE)
    first = first * scale * gain
    second = second * scale * other_gain
    position = tl.load(positions + row)
    c = tl.load(cosine + position * HALF + pair)
    s = tl.load(sine + position * HALF + pair)
    tl.store(place, (first * c - second * s).to(heads.dtype.element_ty), mask=inside)
    tl.store(place + HALF, (second * c + first * s).to(heads.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["rows"])
def norm_rotate_backward(
    grad, raw, queries, keys, positions, cosine, sine, parts, rows, eps, STRIDE: tl.constexpr, QUERIES: tl.constexpr,
    HEADS: tl.constexpr, BLOCK: tl.constexpr, HALF: tl.constexpr, PLUS_ONE: tl.constexpr,
):  # fmt: skip
    """The gradient of `norm_rotate`'s input in place of that of its output.

    parts (programs, 2, 2 * HALF) are partial sums, float32, of the gradients of `queries` and `keys`. Program p takes
    rows p, p + programs, ...
    """
    head = tl.arange(0, BLOCK)[:, None]
    pair = tl.arange(0, HALF)[None, :]
    inside = head < HEADS
    column = head * (2 * HALF) + pair
    gain, other_gain = _weights(queries, keys, head, pair, QUERIES, HALF, PLUS_ONE)
    total = tl.zeros((BLOCK, HALF), tl.float32)
    other_total = tl.zeros((BLOCK, HALF), tl.float32)
    for row in range(tl.program_id(0), rows, tl.num_programs(0)):
        kept = raw + row * (HEADS * 2 * HALF) + column
        first = tl.load(kept, mask=inside, other=0.0).to(tl.float32)
        second = tl.load(kept + HALF, mask=inside, other=0.0).to(tl.float32)
        scale = tl.rsqrt(tl.sum(first * first + second * second, axis=1) / (2 * HALF) + eps)[:, None]
        first *= scale
        second *= scale
        position = tl.load(positions + row)
        c = tl.load(cosine + position * HALF + pair)
        s = tl.load(sine + position * HALF + pair)
        place = grad + row * STRIDE + column  # 32 bits are enough: packs have far fewer than 100,000 tokens
        left = tl.load(place, mask=inside, other=0.0).to(tl.float32)
        right = tl.load(place + HALF, mask=inside, other=0.0).to(tl.float32)
        change = left * c + right * s
        other_change = right * c - left * s
        total += change * first
        other_total += other_change * second
        change *= gain
        other_change *= other_gain
        along = (tl.sum(change * first + other_change * second, axis=1) / (2 * HALF))[:, None]
        tl.store(place, (scale * (change - first * along)).to(grad.dtype.element_ty), mask=inside)
        tl.store(place + HALF, (scale * (other_change - second * along)).to(grad.dtype.element_ty), mask=inside)
    part = parts + tl.program_id(0).to(tl.int64) * (4 * HALF) + tl.arange(0, HALF)
    query = head < QUERIES
    tl.store(part, tl.sum(tl.where(query, total, 0.0), axis=0))
    tl.store(part + HALF, tl.sum(tl.where(query, other_total, 0.0), axis=0))
    tl.store(part + 2 * HALF, tl.sum(tl.where(query, 0.0, total), axis=0))
    tl.store(part + 3 * HALF, tl.sum(tl.where(query, 0.0, other_total), axis=0))
