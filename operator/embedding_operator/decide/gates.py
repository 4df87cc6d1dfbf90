"""Is the tuned model good enough to be exported and served? Pure numbers.

The eval stage measures the tuned model, the base model and the one that serves now on the same questions; this module
compares what it found with the manifest's limits. A difference is the tuned model's mean minus the other's, absolute.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from embedding_operator.decide.compared import active_may_know
from embedding_operator.resource.api import Gates, Guard, Spec
from embedding_operator.resource.conditions import GATES_PASSED
from embedding_operator.resource.status import Served, StageStatus, Status
from embedding_stages.contract import Stage

PASSED: Final = GATES_PASSED
WORSE_THAN_BASE: Final = "WorseThanBase"
WORSE_THAN_ACTIVE: Final = "WorseThanActive"
NOT_SHOWN_BETTER: Final = "NotShownBetter"
NO_QUESTIONS: Final = "NoQuestions"
NOTHING_FOUND: Final = "NothingFound"
_WITH_CURE: Final = frozenset({NO_QUESTIONS, NOTHING_FOUND})  # no limit is in the way, and the message says what is
GATE_DISABLED: Final = "GateDisabled"
WARNED: Final = "Warned"
_ANOTHER_SET: Final = "name another set in spec.evaluation.beir, or "
_NOT_FROZEN: Final = "take a new one with spec.evaluation.freeze: false"
_HEADLINE: Final = "ndcg@10"
GUARD: Final = "guard:"
_SAME: Final = 1e-6  # figures come with six places


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """Whether the revision may go on, with the reason and the sentence of its condition."""

    passed: bool
    reason: str
    message: str

    @property
    def blocks(self) -> bool:
        return not self.passed


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measured:
    """One metric of the tuned model beside that of another one."""

    beside: str  # base, active, or guard:<name>
    metric: str
    before: float
    after: float
    lower: float | None  # None: an earlier release measured no interval
    detectable: float | None
    queries: int
    floor: float  # the least difference that is allowed
    field: str  # which says so

    @property
    def difference(self) -> float:
        return self.after - self.before

    def shortfall(self, criterion: str) -> str:
        """The reason why it is not enough; empty when it is."""
        worse = WORSE_THAN_ACTIVE if self.beside == "active" else WORSE_THAN_BASE
        if self.difference < self.floor - _SAME:
            return worse
        if criterion == "PointEstimate" or self.lower is None:
            return ""
        if criterion == "NotInferior" or self.beside.startswith(GUARD):  # of a guard nobody expects a rise
            return "" if self.lower >= self.floor - _SAME else NOT_SHOWN_BETTER
        return "" if self.lower > 0 else NOT_SHOWN_BETTER

    def __str__(self) -> str:
        with_what = {"base": "the base model's", "active": "the serving revision's"}
        what = with_what.get(self.beside, f"the base model's on guard {self.beside.removeprefix(GUARD)}")
        text = f"{self.metric} {self.after:.5f} against {what} {self.before:.5f}: {self.difference:+.5f}"
        if self.lower is None or self.detectable is None:
            return f"{text} (n={self.queries}, no interval was measured)"
        return (
            f"{text} (one-sided 95 % interval from {self.lower:+.5f}, n={self.queries}, which tells differences from "
            f"{self.detectable:.5f} on)"
        )


def gate_of(status: Status, spec: Spec) -> Gate:
    """Judge the evaluation of this revision. One that the manifest pins is served whatever it measured."""
    if spec.deploy.pinned is not None:
        message = f"revision {spec.deploy.pinned} is pinned by spec.stages.deploy.pinRevision"
        return Gate(passed=True, reason=GATE_DISABLED, message=message)
    evaluated = replace(status.stage(Stage.EVAL), active_may_know=active_may_know(status, spec))
    frozen = status.evaluation_set
    is_frozen = spec.freeze and frozen is not None and frozen.asked == spec.labelled_asked
    return judge_gates(evaluated, spec.gates, spec.guards, status.served, is_frozen=is_frozen)


def judge_gates(
    evaluated: StageStatus, gates: Gates, guards: Sequence[Guard], served: Served, *, is_frozen: bool = False
) -> Gate:
    """Judge what the eval stage found, once it is done. `is_frozen`: on the set of an earlier revision."""
    if not gates.enabled:
        return Gate(passed=True, reason=GATE_DISABLED, message="spec.gates.enabled is false: any model may be served")
    if "comparisons" not in evaluated.details and 0 < evaluated.revision <= served.active_revision:
        message = "it was evaluated and served before there were gates; the next evaluation is judged"
        return Gate(passed=True, reason=GATE_DISABLED, message=message)
    if not evaluated.counts.get("queries", 0):
        return _failed(
            gates,
            served,
            NO_QUESTIONS,
            "the evaluation set has no question, so nothing says how good the model is; name a labelled set in "
            "spec.evaluation.beir"
            + (
                ", add documents, or take a new set with spec.evaluation.freeze: false"
                if is_frozen
                else ", or add documents"
            ),
        )
    measured = list(_measured(evaluated, gates, guards))
    if missing := _missing(measured, gates, guards):
        message = f"the evaluation did not tell {', '.join(missing)}; change what spec.gates.metrics and "
        cure = "spec.evaluation.guards ask for, or the image that spec.stages.eval.image names"
        return _failed(gates, served, NO_QUESTIONS, message + cure)
    another = _ANOTHER_SET + (_NOT_FROZEN if is_frozen else "add documents")
    if nothing := _nothing_found(measured, evaluated, another):
        return _failed(gates, served, NOTHING_FOUND, nothing)
    unjudged = _unjudged(evaluated, gates)
    short = [(reason, item) for item in measured if (reason := item.shortfall(gates.criterion))]
    if not short:
        least = min(measured, key=lambda item: item.difference - item.floor)
        return Gate(passed=True, reason=PASSED, message=f"nearest to its limit: {least}{unjudged}")
    # What is worse by measure says more than what is not shown.
    short.sort(key=lambda pair: pair[0] == NOT_SHOWN_BETTER)
    reason, worst = short[0]
    others = ", ".join(f"{item.metric} ({item.beside})" for _, item in short[1:])
    also = f"; also short: {others}" if others else ""
    return _failed(gates, served, reason, f"{worst}; {_wanted(worst, gates)}{also}{unjudged}")


def _unjudged(evaluated: StageStatus, gates: Gates) -> str:
    """What was measured of the model that serves, where that says nothing; empty where it is judged."""
    found: Mapping[str, Any] = (evaluated.details.get("comparisons") or {}).get("active") or {}
    told = []
    for metric in gates.metrics if evaluated.active_may_know else ():
        if figures := found.get(metric):
            before, after = float(figures[0]), float(figures[1])
            told.append(f"{metric} {after:.5f} against {before:.5f} ({after - before:+.5f})")
    if not told:
        return ""
    why = "which was evaluated on another set and may have trained on these questions"
    return f"; not judged beside the serving revision, {why}: {', '.join(told)}"


def _nothing_found(measured: Sequence[_Measured], evaluated: StageStatus, another_set: str) -> str:
    """The sentence where no model finds anything on a set: 0 is as good as 0, and says nothing. Else empty. A strict
    metric may be 0 where others are not, and what serves may find what the tuned model does not.
    """
    comparisons: Mapping[str, Any] = evaluated.details.get("comparisons") or {}
    for beside in dict.fromkeys(item.beside for item in measured if item.beside != "active"):
        on_set = [item for item in measured if item.beside == beside]
        told = [comparisons.get(beside) or {}, *([comparisons.get("active") or {}] if beside == "base" else [])]
        figures = [item for compared in told for item in compared.values() if isinstance(item, list | tuple)]
        found = [float(figure) for item in figures for figure in item[:2]]
        if any(figure > _SAME for figure in (*found, *(max(item.before, item.after) for item in on_set))):
            continue
        where = f" on guard {beside.removeprefix(GUARD)}" if beside.startswith(GUARD) else ""
        cure = "correct that set, or leave it out of spec.evaluation.guards" if where else another_set
        metrics = ", ".join(item.metric for item in on_set)
        return (
            f"neither the base model nor the tuned one finds anything{where} ({metrics}: 0, n={on_set[0].queries}), "
            "so nothing says how good the model is: most likely the questions are not about these documents, or their "
            f"judgements name other passages; {cure}"
        )
    return ""


def _wanted(item: _Measured, gates: Gates) -> str:
    if gates.criterion == "PointEstimate" or item.difference < item.floor - _SAME:  # which no criterion lets pass
        return f"{item.floor:+.5f} or more is wanted ({item.field})"
    if gates.criterion == "Better" and not item.beside.startswith(GUARD):
        return "its lower end has to be above 0 (spec.gates.criterion: Better)"
    return f"its lower end has to be {item.floor:+.5f} or more (spec.gates.criterion, {item.field})"


def _failed(gates: Gates, served: Served, reason: str, message: str) -> Gate:
    if not gates.stops:
        message = f"{reason}: {message}; it goes on, because spec.gates.onFail is Warn"
        return Gate(passed=True, reason=WARNED, message=message)
    cure = "" if reason in _WITH_CURE else "change data or training, evaluate on more questions, move the limit, "
    message = f"{message}; {_who_serves(served)}; {cure}or set spec.gates.onFail: Warn to serve it all the same"
    return Gate(passed=False, reason=reason, message=message)


def _who_serves(served: Served) -> str:
    if served.active_fingerprint:
        return f"revision {served.active_revision} goes on serving"
    return "nothing serves" if served.is_gap else "nothing is served yet"


def _measured(evaluated: StageStatus, gates: Gates, guards: Sequence[Guard]) -> Iterator[_Measured]:
    queries = evaluated.counts.get("queries", 0)
    of_metrics = _of_metrics(evaluated, _judged("base", gates))
    comparisons: Mapping[str, Any] = evaluated.details.get("comparisons") or of_metrics
    for beside in ("base",) if evaluated.active_may_know else ("base", "active"):
        for metric in _judged(beside, gates):
            figures = (comparisons.get(beside) or {}).get(metric)
            if figures:
                floor, field = _floor(beside, metric, float(figures[0]), gates)
                yield _of(beside, metric, figures, queries, floor, field)
    for guard in guards:
        found: Mapping[str, Any] = comparisons.get(f"{GUARD}{guard.name}") or {}
        for metric, figures in found.items():
            if metric != "queries":
                field = f"maxRegression of guard {guard.name} in spec.evaluation.guards"
                yield _of(
                    f"{GUARD}{guard.name}", metric, figures, found.get("queries", 0), -guard.max_regression, field
                )


def _missing(measured: Sequence[_Measured], gates: Gates, guards: Sequence[Guard]) -> list[str]:
    """What is to be judged and was not measured: an image of the user's own may be older than the manifest."""
    metrics = {item.metric for item in measured if item.beside == "base"}
    asked = {item.beside for item in measured}
    lost = [metric for metric in _judged("base", gates) if metric not in metrics]
    return lost + [f"guard {guard.name}" for guard in guards if f"{GUARD}{guard.name}" not in asked]


def _of(beside: str, metric: str, figures: Sequence[Any], queries: int, floor: float, field: str) -> _Measured:
    before, after, *sure = (float(figure) for figure in figures)
    lower, detectable = sure or (None, None)
    return _Measured(
        beside=beside,
        metric=metric,
        before=before,
        after=after,
        lower=lower,
        detectable=detectable,
        queries=queries,
        floor=floor,
        field=field,
    )


def _floor(beside: str, metric: str, before: float, gates: Gates) -> tuple[float, str]:
    if beside == "active":
        return -gates.max_regression_active, "spec.gates.maxRegression.active"
    floor, field = -gates.max_regression_base, "spec.gates.maxRegression.base"
    if metric == _HEADLINE and gates.min_relative_uplift is not None and gates.min_relative_uplift * before >= floor:
        return gates.min_relative_uplift * before, "spec.gates.minRelativeUplift"
    return floor, field


def _judged(beside: str, gates: Gates) -> Sequence[str]:
    """The metrics. The uplift that is asked for is NDCG@10's, whatever else is judged."""
    if beside == "base" and gates.min_relative_uplift is not None:
        return tuple(dict.fromkeys((*gates.metrics, _HEADLINE)))
    return gates.metrics


def _of_metrics(evaluated: StageStatus, metrics: Sequence[str]) -> dict[str, dict[str, list[float]]]:
    """From an evaluation of an earlier release, which has no comparisons."""
    base, tuned = evaluated.metrics.get("base", {}), evaluated.metrics.get("fineTuned", {})
    return {"base": {name: [base[name], tuned[name]] for name in metrics if name in base and name in tuned}}
