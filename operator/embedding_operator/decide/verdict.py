"""Does the served model measure the same as the evaluated one? Pure numbers.

An evaluation computes in the precision of the server, and its report says in which (docs/decisions/0015). In float32
little but ties can differ, so the default limits are 0.01 at k below 5 and 0.005 at k of 5 and above. For bfloat16, and
for a report of an older release that does not say, they are the recipe's: 0.03 and 0.01. With one relevant passage a
query, one query that changes sides moves Recall by 1/n; a limit below that allows no change at all, so the effective
limit is max(limit, 1/n), and the status says so. BEIR rounds every metric to 5 places, so two rounded figures may lie
1e-5 further apart than the measured ones: that much is added, or rounding would decide at n = 36 and others.

Equal metrics do not show that the same model answers: few questions are answered alike by the base model, and short
passages are found alike by a server that cuts texts. So the vectors of canaries have to be alike as well, where they
were measured. How alike follows from what was exported: quantized weights move vectors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from embedding_operator.resource.api import Spec, StageSpec, Tolerance
from embedding_operator.resource.status import StageStatus, Status
from embedding_stages.contract import Artefact, Stage
from embedding_stages.contract import settings as tables

_COMPARED: Final = ("ndcg", "recall")
_STRICT_FROM_K: Final = 5
_Limits = tuple[float, float]  # at k below 5, at k of 5 and above
_FLOAT32_LIMITS: Final[_Limits] = (0.01, 0.005)
_RECIPE_LIMITS: Final[_Limits] = (0.03, 0.01)  # NVIDIA embed recipe
# Formats of half the width, and other kernels, keep a vector within 0.9999 of itself; other weights do not.
LEAST_COSINE: Final = 0.999
_ANY_COSINE: Final = -1.0
_CURE: Final = (
    "the server does not compute what was evaluated: look at its image and at spec.stages.export.precision, or widen "
    "spec.tolerance if that much is right; another spec.retryToken measures again"
)
_VECTORS_CURE: Final = (
    "the server does not compute what was evaluated: look at its image, at which model it loads and how long a text it "
    "reads, and at spec.stages.export, or lower spec.tolerance.minCosine if that much is right; another "
    "spec.retryToken measures again"
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


def verdict_of(status: Status, spec: Spec) -> Verdict:
    """Judge what verify measured by the tolerance that is asked for now."""
    exported, tolerance = status.stage(Stage.EXPORT), spec.tolerance
    if tolerance.min_cosine is None:
        is_pinned = spec.deploy.pinned is not None
        limit = _min_cosine(exported, spec.stages[Stage.EXPORT], is_pinned=is_pinned)
        tolerance = replace(tolerance, min_cosine=limit)
    model = exported.artefacts.get(Artefact.SERVING_MODEL)
    digest = model.digest if model is not None else ""
    return judge(status.stage(Stage.EVAL), status.stage(Stage.VERIFY), tolerance, digest)


def _min_cosine(exported: StageStatus, asked: StageSpec, *, is_pinned: bool) -> float:
    """What the export was held to, where the manifest says that of what was built: it may have fallen back. A pinned
    revision has served, and was held to what another manifest said.
    """
    built = str((exported.details.get("contract") or {}).get("quantization"))
    given, wanted = asked.settings.get("minCosine"), asked.settings.get("quantization")
    if built not in tables.QUANTIZED_COSINE:
        is_other = given is None or is_pinned or wanted in tables.QUANTIZED_COSINE
        return LEAST_COSINE if is_other else min(LEAST_COSINE, float(given or 0))
    if is_pinned:
        return _ANY_COSINE
    return tables.QUANTIZED_COSINE[built] if given is None or wanted != built else float(given)


def judge(evaluated: StageStatus, verified: StageStatus, tolerance: Tolerance, artefact_digest: str) -> Verdict:
    """Compare the eval stage's fine-tuned metrics with the verify stage's served ones, and then vectors."""
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
        return _by_canaries(verified, tolerance, report)
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
    limit_of = {name: effective_limit(limits, int(name.split("@")[1]), queries) for name in names}
    report["effectiveTolerance"] = {f"@{name.split('@')[1]}": f"{limit:.5f}" for name, limit in limit_of.items()}
    differences = {name: abs(served[name] - tuned[name]) for name in names}
    worst = max(names, key=lambda name: differences[name] - limit_of[name])
    report["largestDifference"] = {"metric": worst, "difference": f"{differences[worst]:.5f}"}
    if differences[worst] > limit_of[worst]:
        return failed(
            "OutsideTolerance",
            f"{worst}: served {served[worst]:.5f}, {how} {tuned[worst]:.5f}; they differ by "
            f"{differences[worst]:.5f}, more than the tolerance allows with {queries} queries",
            _CURE,
        )
    least, limit = _least_cosine(verified), _cosine_limit(tolerance)
    if least is not None and not least >= limit:  # NaN is not, either
        return failed(
            "VectorsDiffer",
            f"metrics are equal within tolerance, but the vectors of canaries are not the evaluated model's: least "
            f"cosine {least:.6f}, below {limit:.12g}",
            _VECTORS_CURE,
        )
    report["withinTolerance"] = True
    message = (
        f"served metrics equal evaluated ones within tolerance: largest difference {differences[worst]:.5f} "
        f"({worst}), {report['changedQueries']} of {queries} queries changed" + (f"; {how}" if precision else "")
    )
    return Verdict(within=True, reason="WithinTolerance", message=message, report=report)


def _by_canaries(verified: StageStatus, tolerance: Tolerance, report: dict[str, Any]) -> Verdict:
    """There is no question to measure with: the endpoint has to answer the evaluated model's own vectors."""
    least, limit = _least_cosine(verified), _cosine_limit(tolerance)
    compared, cure = "without a question vectors are compared: ", _VECTORS_CURE
    if least is None:
        cure = "evaluate on questions (spec.evaluation.beir), or take a server that answers every text"
        message = f"{compared}how like they are to the evaluated model's is unknown"
    elif not least >= limit:
        message = f"{compared}the least cosine to the evaluated model's is {least:.6f}, below {limit:.12g}"
    else:
        report["withinTolerance"] = True
        message = f"{compared}they equal the evaluated model's, least cosine {least:.6f}"
        return Verdict(within=True, reason="WithinTolerance", message=message, report=report)
    return Verdict(within=False, reason="VectorsDiffer", message=message, report=report, cure=cure)


def _least_cosine(verified: StageStatus) -> float | None:
    """None where it was not measured: an earlier release measured none, and some servers refuse a canary."""
    found = verified.details.get("canaryCosine")
    return None if found is None else float(found)


def _cosine_limit(tolerance: Tolerance) -> float:
    return LEAST_COSINE if tolerance.min_cosine is None else tolerance.min_cosine


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
