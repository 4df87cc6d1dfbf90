"""Does the served model measure the same as the evaluated one? Pure numbers.

An evaluation computes in the precision of the server, and its report says in which (docs/decisions/0015). In float32
little but ties can differ, so the default limits are 0.01 at k below 5 and 0.005 at k of 5 and above. For bfloat16, and
for a report of an older release that does not say, they are the recipe's: 0.03 and 0.01. With one relevant passage a
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
_Limits = tuple[float, float]  # at k below 5, at k of 5 and above
_FLOAT32_LIMITS: Final[_Limits] = (0.01, 0.005)
_RECIPE_LIMITS: Final[_Limits] = (0.03, 0.01)  # NVIDIA embed recipe
# Formats of half the width, and other kernels, keep a vector within 0.9999 of itself; other weights do not.
LEAST_COSINE: Final = 0.999
_CURE: Final = (
    "the server does not compute what was evaluated: look at its image and at spec.stages.export.precision, or widen "
    "spec.tolerance if that much is right; another spec.retryToken measures again"
)
_ROUNDING: Final = 1e-5 + 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether the endpoint is the evaluated model, with a sentence for people and fields for the status.

    `cure` is for the manifest whose server was measured, and no part of the message.
    """

    within: bool
    reason: str
    message: str
    report: Mapping[str, Any]
    cure: str = ""

    @property
    def told(self) -> str:
        return f"{self.message}: {self.cure}" if self.cure else self.message


def judge(evaluated: StageStatus, verified: StageStatus, tolerance: Tolerance, artefact_digest: str) -> Verdict:
    """Compare the eval stage's fine-tuned metrics with the verify stage's served ones."""
    precision = str(evaluated.details.get("precision") or "")
    limits = _limits(tolerance, precision)
    how = f"evaluated in {precision}" if precision else "evaluated"
    tuned, served = evaluated.metrics.get("fineTuned", {}), verified.metrics.get("served", {})
    queries = verified.counts.get("queries", 0)
    report: dict[str, Any] = {
        "queries": queries,
        "changedQueries": verified.counts.get("changedQueries", 0),
        "invalidVectors": verified.counts.get("invalidVectors", 0),
        "artefactDigest": str(verified.details.get("artefactDigest", "")),
        "effectiveTolerance": {},
        "withinTolerance": False,
        **({"evaluatedIn": precision} if precision else {}),
    }

    def failed(reason: str, message: str, cure: str = "") -> Verdict:
        return Verdict(within=False, reason=reason, message=message, report=report, cure=cure)

    if report["artefactDigest"] != artefact_digest:
        return failed(
            "ArtefactMismatch",
            f"the mounted model has digest {report['artefactDigest'] or 'unknown'}, the exported one {artefact_digest}",
        )
    if queries == 0 and evaluated.counts.get("queries") == 0:
        return _by_canaries(verified, report)
    if queries < 1 or verified.counts.get("queries") != evaluated.counts.get("queries"):
        return failed(
            "QueriesDiffer",
            f"evaluated on {evaluated.counts.get('queries', 0)} queries, verified on {queries}: not comparable",
        )
    names = sorted((name for name in tuned if name.split("@")[0] in _COMPARED), key=_sort_key)
    missing = [name for name in names if name not in served]
    if not names or missing:
        return failed("MetricsMissing", f"the endpoint's measurement lacks {', '.join(missing) or 'every metric'}")
    if not all(math.isfinite(value) for name in names for value in (served[name], tuned[name])):
        return failed("MetricsNotFinite", "a metric is not a finite number; that is a defect of the measurement")
    worst_name, worst_excess, worst_difference = "", float("-inf"), 0.0
    for name in names:
        k = int(name.split("@")[1])
        limit = effective_limit(limits, k, queries)
        report["effectiveTolerance"][f"@{k}"] = f"{limit:.5f}"
        difference = abs(served[name] - tuned[name])
        if difference - limit > worst_excess:
            worst_name, worst_excess, worst_difference = name, difference - limit, difference
    report["largestDifference"] = {"metric": worst_name, "difference": f"{worst_difference:.5f}"}
    if worst_excess > 0:
        return failed(
            "OutsideTolerance",
            f"{worst_name}: served {served[worst_name]:.5f}, {how} {tuned[worst_name]:.5f}; they differ by "
            f"{worst_difference:.5f}, more than the tolerance allows with {queries} queries",
            _CURE,
        )
    report["withinTolerance"] = True
    message = (
        f"served metrics equal evaluated ones within tolerance: largest difference {worst_difference:.5f} "
        f"({worst_name}), {report['changedQueries']} of {queries} queries changed" + (f"; {how}" if precision else "")
    )
    return Verdict(within=True, reason="WithinTolerance", message=message, report=report)


def _by_canaries(verified: StageStatus, report: dict[str, Any]) -> Verdict:
    """There is no question to measure with: the endpoint has to answer the evaluated model's own vectors."""
    cosine = verified.details.get("canaryCosine")
    shown = "unknown" if cosine is None else f"{float(cosine):.6f}"
    if cosine is None or float(cosine) < LEAST_COSINE:
        least = f"without a question vectors are compared: the least cosine to the evaluated model's is {shown}"
        message = f"{least}, below {LEAST_COSINE}"
        return Verdict(within=False, reason="VectorsDiffer", message=message, report=report, cure=_CURE)
    report["withinTolerance"] = True
    message = f"without a question vectors are compared: they equal the evaluated model's, least cosine {shown}"
    return Verdict(within=True, reason="WithinTolerance", message=message, report=report)


def effective_limit(limits: _Limits, k: int, queries: int) -> float:
    """The limit at cut-off k with this many queries, absolute."""
    return max(limits[k >= _STRICT_FROM_K], 1 / queries) + _ROUNDING


def _limits(tolerance: Tolerance, precision: str) -> _Limits:
    """The manifest's limits, and the precision's where it names none."""
    default = _FLOAT32_LIMITS if precision == "float32" else _RECIPE_LIMITS
    given = (tolerance.at_one, tolerance.at_five_and_above)
    low, high = (limit if wanted is None else wanted for wanted, limit in zip(given, default, strict=True))
    return low, high


def relative_uplift(evaluated: StageStatus) -> float | None:
    """Of NDCG@10, as the eval stage computed it beside its interval; None when the base model finds nothing."""
    found = evaluated.details.get("relativeUplift")
    return None if found is None else float(found)


def _sort_key(name: str) -> tuple[str, int]:
    metric, _, k = name.partition("@")
    return metric, int(k or 0)
