"""How sure an uplift is: a paired bootstrap over queries. Pure; the seed makes it repeatable."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

SAMPLES = 10_000
SEED = 42
_CHUNK = 200  # samples drawn at once: bounds memory for large query sets


def relative_uplift(base: Sequence[float], tuned: Sequence[float]) -> float | None:
    """mean(tuned) / mean(base) - 1, or None when the base model finds nothing and no ratio exists."""
    before, after = float(np.mean(base)), float(np.mean(tuned))
    return after / before - 1.0 if before > 0.0 else None


def confidence_interval(
    base: Sequence[float],
    tuned: Sequence[float],
    *,
    level: float = 0.95,
    samples: int = SAMPLES,
    seed: int = SEED,
) -> tuple[float, float] | None:
    """Percentile interval of the relative uplift.

    `base[i]` and `tuned[i]` belong to the same query; each sample draws queries with replacement and takes both.
    None when in some sample the base model finds nothing: then the ratio has no upper bound.
    """
    if len(base) != len(tuned) or not base:
        raise ValueError(f"{len(base)} base scores and {len(tuned)} tuned scores are no pairs")
    pairs = np.stack([np.asarray(base, dtype=np.float64), np.asarray(tuned, dtype=np.float64)], axis=1)
    means = resampled_means(pairs, samples=samples, seed=seed)
    if not (means[:, 0] > 0.0).all():
        return None
    ratios = means[:, 1] / means[:, 0] - 1.0
    low, high = np.quantile(ratios, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return float(low), float(high)


def resampled_means(rows: NDArray[np.float64], *, samples: int, seed: int) -> NDArray[np.float64]:
    """(samples, columns): the mean row of each sample, which draws as many rows as there are with replacement."""
    generator = np.random.default_rng(seed)
    sizes = (min(_CHUNK, samples - start) for start in range(0, samples, _CHUNK))
    return np.concatenate([rows[generator.integers(len(rows), size=(size, len(rows)))].mean(axis=1) for size in sizes])
