"""How far one model lies above another on the same queries, and how sure that is. Pure and repeatable."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from embedding_stages.evaluate.bootstrap import SAMPLES, SEED, resampled_means
from embedding_stages.evaluate.metrics import Scores

LEVEL = 0.95  # of the one-sided interval
# Of a difference that is there, 80 % of all samples of queries have a lower end above 0: 1.645 + 0.842 standard errors.
_DETECTABLE = 2.487
_DECIMALS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Of one metric's means over the same queries."""

    before: float  # the model that is compared with
    after: float  # the tuned model
    lower: float  # lower end of the one-sided interval of the difference
    detectable: float  # the smallest difference that so many queries tell from none

    def to_json(self) -> list[float]:
        """[before, after, lower, detectable]: a termination message is short."""
        return [round(value, _DECIMALS) for value in (self.before, self.after, self.lower, self.detectable)]


def compare(
    before: Sequence[float],
    after: Sequence[float],
    *,
    samples: int = SAMPLES,
    seed: int = SEED,
    level: float = LEVEL,
) -> Comparison:
    """Paired bootstrap: `before[i]` and `after[i]` belong to the same query. Raises ValueError for no pairs."""
    if len(before) != len(after) or not before:
        raise ValueError(f"{len(before)} and {len(after)} scores are no pairs")
    differences = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    means = resampled_means(differences[:, np.newaxis], samples=samples, seed=seed)[:, 0]
    spread = float(differences.std(ddof=1)) if len(differences) > 1 else 0.0
    return Comparison(
        before=math.fsum(before) / len(before),
        after=math.fsum(after) / len(after),
        lower=float(np.quantile(means, 1.0 - level)),
        detectable=_DETECTABLE * spread / math.sqrt(len(differences)),
    )


def compare_scores(before: Scores, after: Scores, metrics: Iterable[str]) -> dict[str, list[float]]:
    """By metric, as `Comparison.to_json`. Both sides have the same queries."""
    return {
        metric: compare(
            [before.per_query[query][metric] for query in after.per_query],
            [values[metric] for values in after.per_query.values()],
        ).to_json()
        for metric in metrics
    }
