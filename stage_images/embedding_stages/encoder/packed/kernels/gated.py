"""The product of rows with the gate and up weights, and SwiGLU of it, in one program.

Both halves of a tile are accumulated side by side as one wide product, so that neither is ever written to memory:
a quarter of what the product and a SwiGLU after it would move.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["rows"])
def gated(
    x, weight, out, rows, WIDTH: tl.constexpr, HIDDEN: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    STEP: tl.constexpr, SUPER: tl.constexpr, PROGRAMS: tl.constexpr,
):  # fmt: skip
    """out (rows, WIDTH) = silu(x gate^T) * (x up^T); weight is gate and up, (2, WIDTH, HIDDEN).

    All three are descriptors, of blocks (ROWS, STEP), (2, COLUMNS, STEP) and (ROWS, COLUMNS); WIDTH is a multiple of
    COLUMNS, HIDDEN of STEP. Program p takes tiles p, p + PROGRAMS, ...; SUPER tiles of rows are done for a column
    before the next one, while their rows are still in the cache.
    """
    down = tl.cdiv(rows, ROWS)
    across: tl.constexpr = WIDTH // COLUMNS
    for tile in tl.range(tl.program_id(0), down * across, PROGRAMS):
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
        out.store([row, column], (gate * tl.sigmoid(gate) * up).to(out.dtype))
