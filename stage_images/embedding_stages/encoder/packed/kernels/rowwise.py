"""Programs that read each row once, bound by memory traffic: rotary positions, mean over a sequence."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def rotate(
    heads, positions, cosine, sine, STRIDE: tl.constexpr, HEADS: tl.constexpr, BLOCK: tl.constexpr,
    HALF: tl.constexpr,
):  # fmt: skip
    """Rotary positions in place on the first HEADS heads of each row."""
    row = tl.program_id(0).to(tl.int64)
    head = tl.arange(0, BLOCK)[:, None]
    pair = tl.arange(0, HALF)[None, :]
    position = tl.load(positions + row)
    c = tl.load(cosine + position * HALF + pair)
    s = tl.load(sine + position * HALF + pair)
    inside = head < HEADS
    place = heads + row * STRIDE + head * (2 * HALF) + pair
    first = tl.load(place, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(place + HALF, mask=inside, other=0.0).to(tl.float32)
    tl.store(place, (first * c - second * s).to(heads.dtype.element_ty), mask=inside)
    tl.store(place + HALF, (second * c + first * s).to(heads.dtype.element_ty), mask=inside)


@triton.jit
def sequence_mean(states, starts, out, D: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr):
    """out (sequences, D) float32: the mean of each sequence's rows, summed in float32 in their order; 0 of no rows."""
    sequence = tl.program_id(0)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < D
    begin = tl.load(starts + sequence)
    end = tl.load(starts + sequence + 1)
    total = tl.zeros((BLOCK,), tl.float32)
    for start in range(begin, end, ROWS):
        row = start + tl.arange(0, ROWS)
        place = row.to(tl.int64)[:, None] * D + column[None, :]
        here = (row < end)[:, None] & inside[None, :]
        total += tl.sum(tl.load(states + place, mask=here, other=0.0).to(tl.float32), axis=0)
    tl.store(out + sequence.to(tl.int64) * D + column, total / tl.maximum(end - begin, 1), mask=inside)
