"""Does the served model measure the same as the evaluated one? Pure numbers.

The limits are the recipe's: NDCG and Recall within 0.03 at k = 1 and 0.01 at k >= 5. With one relevant passage a
query, one query that changes sides moves Recall by 1/n; a limit below that allows no change at all, so the effective
limit is max(limit, 1/n), and the status says so. BEIR rounds every metric to 5 places, so two rounded figures may lie
1e-5 further apart than the measured ones: that much is added, or rounding would decide at n = 36 and others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from embedding_operator.resource.api import Tolerance
from embedding_operator.resource.status import StageStatus

_COMPARED: Final = ("ndcg", "recall")
_STRICT_FROM_K: Final = 5
_ROUNDING: Final = 1e-5 + 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether the endpoint is the evaluated model, with a sentence for people and fields for the status."""

    within: bool
    reason: str
    message: str
    report: Mapping[str, Any]


def judge(evaluated: StageStatus, verified: StageStatus, tolerance: Tolerance, artefact_digest: str) -> Verdict:
    """Compare the eval stage's fine-tuned metrics with the verify stage's served ones."""
    tuned, served = evaluated.metrics.get("fineTuned", {}), verified.metrics.get("served", {})
    queries = verified.counts.get("queries", 0)
    report: dict[str, Any] = {
        "queries": queries,
        "changedQueries": verified.counts.get("changedQueries", 0),
        "invalidVectors": verified.counts.get("invalidVectors", 0),
        "artefactDigest": str(verified.details.get("artefactDigest", "")),
        "effectiveTolerance": {},
        "withinTolerance": False,
    }

    def failed(reason: str, message: str) -> Verdict:
        return Verdict(within=False, reason=reason, message=message, report=report)

    if report["artefactDigest"] != artefact_digest:
        return failed(
            "ArtefactMismatch",
            f"the mounted model has digest {report['artefactDigest'] or 'unknown'}, the exported one {artefact_digest}",
        )
    if queries < 1 or verified.counts.get("queries") != evaluated.counts.get("queries"):
        return failed(
            "QueriesDiffer",
            f"evaluated on {evaluated.counts.get('queries', 0)} queries, verified on {queries}: not comparable",
        )
    names = [name for name in sorted(tuned, key=_sort_key) if name.split("@")[0] in _COMPARED]
    missing = [name for name in names if name not in served]
    if not names or missing:
        return failed("MetricsMissing", f"the endpoint's measurement lacks {', '.join(missing) or 'every metric'}")
    if not all(math.isfinite(value) for name in names for value in (served[name], tuned[name])):
        return failed("MetricsNotFinite", "a metric is not a finite number; that is a defect of the measurement")
    worst_name, worst_excess, worst_difference = "", float("-inf"), 0.0
    for name in names:
        k = int(name.split("@")[1])
        limit = effective_limit(tolerance, k, queries)
        report["effectiveTolerance"][f"@{k}"] = f"{limit:.5f}"
        difference = abs(served[name] - tuned[name])
        if difference - limit > worst_excess:
            worst_name, worst_excess, worst_difference = name, difference - limit, difference
    report["largestDifference"] = {"metric": worst_name, "difference": f"{worst_difference:.5f}"}
    if worst_excess > 0:
        return failed(
            "OutsideTolerance",
            f"{worst_name}: served {served[worst_name]:.5f}, evaluated {tuned[worst_name]:.5f}; they differ by "
            f"{worst_difference:.5f}, more than the tolerance allows with {queries} queries",
        )
    report["withinTolerance"] = True
    message = (
        f"served metrics equal evaluated ones within tolerance: largest difference {worst_difference:.5f} "
        f"({worst_name}), {report['changedQueries']} of {queries} queries changed"
    )
    return Verdict(within=True, reason="WithinTolerance", message=message, report=report)


def effective_limit(tolerance: Tolerance, k: int, queries: int) -> float:
    """The limit at cut-off k with this many queries, absolute."""
    limit = tolerance.at_five_and_above if k >= _STRICT_FROM_K else tolerance.at_one
    return max(limit, 1 / queries) + _ROUNDING


def relative_uplift(evaluated: StageStatus) -> float | None:
    """(fine-tuned - base) / base of NDCG@10; None when there is nothing to divide by."""
    base = evaluated.metrics.get("base", {}).get("ndcg@10")
    tuned = evaluated.metrics.get("fineTuned", {}).get("ndcg@10")
    if base is None or tuned is None or base == 0:
        return None
    return (tuned - base) / base


def _sort_key(name: str) -> tuple[str, int]:
    metric, _, k = name.partition("@")
    return metric, int(k or 0)
