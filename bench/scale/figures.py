"""What lists of figures say: quantiles, straight lines, rates. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

LEAST_R2 = 0.98


@dataclass(frozen=True, slots=True)
class Line:
    """y = start + slope * x; r2 is the share of y's variance that it explains."""

    start: float
    slope: float
    r2: float


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of all do not exceed; NaN without values."""
    ordered = sorted(values)
    if not ordered:
        return math.nan
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def fit(xs: Sequence[float], ys: Sequence[float]) -> Line:
    """The least-squares line. NaN where two different x are missing."""
    count = len(xs)
    if count != len(ys):
        raise ValueError(f"{count} x and {len(ys)} y")
    if len(set(xs)) < 2:
        return Line(math.nan, math.nan, math.nan)
    mean_x, mean_y = math.fsum(xs) / count, math.fsum(ys) / count
    spread = math.fsum((x - mean_x) ** 2 for x in xs)
    slope = math.fsum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / spread
    start = mean_y - slope * mean_x
    total = math.fsum((y - mean_y) ** 2 for y in ys)
    left = math.fsum((y - start - slope * x) ** 2 for x, y in zip(xs, ys, strict=True))
    return Line(start, slope, 1.0 - left / total if total else 1.0)


def growth_per_hour(samples: Sequence[tuple[float, float]], *, warm_up_s: float) -> float:
    """Slope of (seconds, value) samples an hour, without those of the first seconds; NaN where too few are left."""
    if not samples:
        return math.nan
    kept = [(when, value) for when, value in samples if when - samples[0][0] >= warm_up_s]
    return 3600 * fit([when for when, _ in kept], [value for _, value in kept]).slope


def beyond_what_is_held(
    samples: Sequence[tuple[float, float]], held: Sequence[tuple[float, int]], *, empty: float
) -> list[tuple[float, float]]:
    """The samples (seconds, MiB) without what each object that is held takes: its share of what they all take in the
    end, above `empty`, the value with none. `held` are (seconds, number); a line lies between two of them.
    """
    if not samples or not held:
        return []
    last = held[-1][1]
    each = (samples[-1][1] - empty) / last if last else 0.0
    return [(when, value - each * _between(held, when)) for when, value in samples]


def _between(points: Sequence[tuple[float, int]], when: float) -> float:
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 <= when < x1:
            return y0 + (y1 - y0) * (when - x0) / (x1 - x0)
    return float(points[0][1] if when < points[0][0] else points[-1][1])


def no_worse_than_linear(xs: Sequence[float], ys: Sequence[float], *, slack: float = 1.25) -> bool:
    """Whether what each further x costs does not grow: the last stretch's slope against that of all before it.

    A figure that does not depend on x at all has no r2 worth naming, and is the best that there is.
    """
    steps = [(y1 - y0) / (x1 - x0) for (x0, y0), (x1, y1) in pairwise(zip(xs, ys, strict=True))]
    if len(steps) < 2:
        return True
    before = (ys[-2] - ys[0]) / (xs[-2] - xs[0])
    flat = 0.1 * max(map(abs, ys)) / xs[-1]  # growth of a tenth over the whole range counts as none
    return steps[-1] <= slack * max(before, flat)
