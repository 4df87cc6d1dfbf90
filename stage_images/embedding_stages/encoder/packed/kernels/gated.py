"""Gated layers: an activation of the gate, times up.

Of a product that is there already (`gate`), or in one program with the product of rows with the gate and up weights
(`gated`): both halves of a tile are accumulated side by side as one wide product, so that neither is read from memory
again, nor written where no backward pass wants it.
"""

from __future__ import annotations

import triton
import triton.language as tl

from embedding_stages.encoder.packed.kernels.activation import activated, gate_gradient


@triton.jit(do_not_specialize=["rows"])
def gated(
    x, weight, out, gate_up, rows, WIDTH: tl.constexpr, HIDDEN: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    STEP: tl.constexpr, SUPER: tl.constexpr, PROGRAMS: tl.constexpr, KIND: tl.constexpr, KEEP: tl.constexpr,
):  # fmt: skip
    """out (rows, WIDTH) = activated(x gate^T) * (x up^T); weight is gate and up, (2, WIDTH, HIDDEN).

    With KEEP, gate_up (rows, 2 WIDTH) = x weight^T too. All four are descriptors, of blocks (ROWS, STEP),
    (2, COLUMNS, STEP) and twice (ROWS, COLUMNS); WIDTH is a multiple of COLUMNS, HIDDEN of STEP. Program p takes tiles
    p, p + PROGRAMS, ...; SUPER tiles of rows are done for a column before the next one, while their rows are still in
    the cache. The loop over tiles is flat, so that a tile's stores run beside the next one's first loads.
    """
    down = tl.cdiv(rows, ROWS)
    across: tl.constexpr = WIDTH // COLUMNS
    for tile in tl.range(tl.program_id(0), down * across, PROGRAMS, flatten=True):
        block = tile // (SUPER * across)
        height = tl.minimum(down - block * SUPER, SUPER)
        within = tile % (SUPER * across)
        row = (block * SUPER + within % height) * ROWS
        column = (within // height) * COLUMNS
        both = tl.zeros((ROWS, 2 * COLUMNS), tl.float32)
        for step in range(0, HIDDEN, STEP):
            part = weight.load([0, column, step]).reshape(2 * COLUMNS, STEP)
            both = tl.dot(x.load([row, step]), part.T, both)
        gate, up = tl.split(both.reshape(ROWS, 2, COLUMNS).permute(0, 2, 1))
        out.store([row, column], (activated(gate, KIND) * up).to(out.dtype))
        if KEEP:
            gate_up.store([row, column], gate.to(gate_up.dtype))
            gate_up.store([row, WIDTH + column], up.to(gate_up.dtype))


@triton.jit
def gate(gate_up, out, WIDTH: tl.constexpr, BLOCK: tl.constexpr, KIND: tl.constexpr):
    """out = activated(gate) * up; gate and up are the halves of a row of 2 * WIDTH."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < WIDTH
    left = tl.load(gate_up + row * 2 * WIDTH + column, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * 2 * WIDTH + WIDTH + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * WIDTH + column, (activated(left, KIND) * up).to(out.dtype.element_ty), mask=inside)


@triton.jit
def gate_backward(gate_up, dout, dgate_up, WIDTH: tl.constexpr, BLOCK: tl.constexpr, KIND: tl.constexpr):
    """Gradients of both halves; dgate_up may be gate_up itself."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < WIDTH
    left = row * 2 * WIDTH + column
    gate = tl.load(gate_up + left, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + left + WIDTH, mask=inside, other=0.0).to(tl.float32)
    grad = tl.load(dout + row * WIDTH + column, mask=inside, other=0.0).to(tl.float32)
    for_gate, for_up = gate_gradient(grad, gate, up, KIND)
    tl.store(dgate_up + left, for_gate.to(dgate_up.dtype.element_ty), mask=inside)
    tl.store(dgate_up + left + WIDTH, for_up.to(dgate_up.dtype.element_ty), mask=inside)
