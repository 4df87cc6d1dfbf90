"""The learning rate of each step. Pure."""

from __future__ import annotations

import math

# NeMo AutoModel, the recipe's trainer: warm-up starts at a tenth of the peak, the cosine ends at a hundredth.
_START = 0.1
_END = 0.01


def learning_rate(step: int, *, peak: float, warmup_steps: int, total_steps: int) -> float:
    """The rate of optimizer step `step` (0-based): linear from peak / 10 for `warmup_steps`, then a cosine
    from peak down to peak / 100 at `total_steps`. A warm-up longer than the run is cut to the run.
    """
    warmup = min(warmup_steps, max(0, total_steps - 1))
    if step < warmup:
        return peak * (_START + (1.0 - _START) * step / warmup)
    share = min(1.0, (step - warmup) / max(1, total_steps - warmup))
    return peak * (_END + (1.0 - _END) * 0.5 * (1.0 + math.cos(math.pi * share)))
