"""Programs that read each row once: RMS norm, rotary positions, SwiGLU, mean over a sequence.

All of them are bound by memory traffic: what neighbours in the layer would read and write between them is done
in one pass (residual add with the norm, both products of SwiGLU's backward pass).
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def add_norm(x, delta, weight, x_out, h_out, rstd, eps, D: tl.constexpr, BLOCK: tl.constexpr, ADD: tl.constexpr):
    """x_out = x + delta (when ADD); h_out = rms_norm(x_out) * weight; one program a row of D."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < D
    place = row * D + column
    value = tl.load(x + place, mask=inside, other=0.0)
    if ADD:
        value = (value.to(tl.float32) + tl.load(delta + place, mask=inside, other=0.0).to(tl.float32)).to(value.dtype)
        tl.store(x_out + place, value, mask=inside)
    full = value.to(tl.float32)
    scale = tl.rsqrt(tl.sum(full * full) / D + eps)
    tl.store(rstd + row, scale)
    # Rounded before the weight, as the reference does.
    normed = (full * scale).to(value.dtype).to(tl.float32)
    gain = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(h_out + place, (normed * gain).to(value.dtype), mask=inside)


@triton.jit(do_not_specialize=["rows"])
def norm_backward(
    dh, x, weight, rstd, residual, dx, dweight, rows, D: tl.constexpr, BLOCK: tl.constexpr, ADD: tl.constexpr
):
    """dx = gradient through the norm (+ residual when ADD); dweight (programs, D) are partial sums in float32.

    Program p takes rows p, p + programs, ...
    """
    column = tl.arange(0, BLOCK)
    inside = column < D
    gain = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    for row in range(tl.program_id(0), rows, tl.num_programs(0)):
        place = row * D + column  # 32 bits are enough: packs have far fewer than a million tokens
        scale = tl.load(rstd + row)
        value = tl.load(x + place, mask=inside, other=0.0).to(tl.float32) * scale
        grad = tl.load(dh + place, mask=inside, other=0.0).to(tl.float32)
        total += grad * value
        grad *= gain
        change = scale * (grad - value * (tl.sum(grad * value) / D))
        if ADD:
            change += tl.load(residual + place, mask=inside, other=0.0).to(tl.float32)
        tl.store(dx + place, change.to(dx.dtype.element_ty), mask=inside)
    tl.store(dweight + tl.program_id(0).to(tl.int64) * D + column, total, mask=inside)


@triton.jit
def rotate(
    heads, positions, cosine, sine, STRIDE: tl.constexpr, HEADS: tl.constexpr, BLOCK: tl.constexpr,
    HALF: tl.constexpr, BACK: tl.constexpr,
):  # fmt: skip
    """Rotary positions in place on the first HEADS heads of each row; BACK turns the other way (the transpose)."""
    row = tl.program_id(0).to(tl.int64)
    head = tl.arange(0, BLOCK)[:, None]
    pair = tl.arange(0, HALF)[None, :]
    position = tl.load(positions + row)
    c = tl.load(cosine + position * HALF + pair)
    s = tl.load(sine + position * HALF + pair)
    if BACK:
        s = -s
    inside = head < HEADS
    place = heads + row * STRIDE + head * (2 * HALF) + pair
    first = tl.load(place, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(place + HALF, mask=inside, other=0.0).to(tl.float32)
    tl.store(place, (first * c - second * s).to(heads.dtype.element_ty), mask=inside)
    tl.store(place + HALF, (second * c + first * s).to(heads.dtype.element_ty), mask=inside)


@triton.jit
def swiglu(gate_up, out, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """out = silu(gate) * up; gate and up are the halves of a row of 2 * WIDTH."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < WIDTH
    gate = tl.load(gate_up + row * 2 * WIDTH + column, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * 2 * WIDTH + WIDTH + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * WIDTH + column, (gate * tl.sigmoid(gate) * up).to(out.dtype.element_ty), mask=inside)


@triton.jit
def swiglu_backward(gate_up, dout, dgate_up, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """Gradients of both halves; dgate_up may be gate_up itself."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < WIDTH
    left = row * 2 * WIDTH + column
    gate = tl.load(gate_up + left, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + left + WIDTH, mask=inside, other=0.0).to(tl.float32)
    grad = tl.load(dout + row * WIDTH + column, mask=inside, other=0.0).to(tl.float32)
    on = tl.sigmoid(gate)
    tl.store(dgate_up + left, (grad * up * on * (1 + gate * (1 - on))).to(dgate_up.dtype.element_ty), mask=inside)
    tl.store(dgate_up + left + WIDTH, (grad * gate * on).to(dgate_up.dtype.element_ty), mask=inside)


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
