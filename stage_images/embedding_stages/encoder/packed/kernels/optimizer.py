"""AdamW on flat arrays: clipping, update, copy to the working precision and clearing of the gradient in one pass."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["decayed"])
def adamw(
    weights, gradient, master, mean, variance, norm, decayed, decay, step, beta2, share1, share2, root2, eps,
    most, COPY: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One step of torch.optim.AdamW on BLOCK elements a program; the first `decayed` elements lose the share `decay`.

    decay = rate x weight decay: 1 less it would be rounded to a multiple of 6e-8, and it may be smaller.
    share1 = 1 - beta1, share2 = 1 - beta2, step = rate / (1 - beta1^t), root2 = sqrt(1 - beta2^t): computed by the
    caller in double precision. Nothing but the gradient changes when `norm` (float32 scalar in memory) is not finite.
    COPY: `weights` is the working copy of `master`.
    """
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    # Neither masks nor branches: every load is wide and none waits for another.
    g = tl.load(gradient + place).to(tl.float32)
    old_w = tl.load(master + place)
    old_m = tl.load(mean + place)
    old_v = tl.load(variance + place)
    length = tl.load(norm)
    finite = length + tl.zeros((BLOCK,), tl.float32) < float("inf")  # false for NaN too
    g *= tl.minimum(most / (length + 1e-6), 1.0)
    m = old_m + share1 * (g - old_m)
    v = old_v * beta2 + share2 * g * g
    w = old_w - (old_w * tl.where(place < decayed, decay, 0.0) + step * m / (tl.sqrt(v) / root2 + eps))
    w = tl.where(finite, w, old_w)
    tl.store(master + place, w)
    tl.store(mean + place, tl.where(finite, m, old_m))
    tl.store(variance + place, tl.where(finite, v, old_v))
    tl.store(gradient + place, tl.zeros((BLOCK,), gradient.dtype.element_ty))
    if COPY:
        tl.store(weights + place, w.to(weights.dtype.element_ty))
