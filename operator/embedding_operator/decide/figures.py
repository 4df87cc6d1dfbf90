"""The figures of a revision: what it gained, and what its server measures. Pure."""

from __future__ import annotations

from typing import Any, Final

from embedding_operator.decide.verdict import relative_uplift
from embedding_operator.resource.status import StageStatus, Status, decimal_text
from embedding_stages.contract import Artefact, Stage

_COLUMN_CHARACTERS: Final = 48
_COLUMN: Final = "ndcg@10"
_WHOLE: Final = 4  # before, after, lower end, detectable
_HEADLINE: Final = ("ndcg@10", "recall@10")  # the record of the stage that measured them has all


def _figures(entry: StageStatus, kind: str) -> dict[str, str]:
    return {k: decimal_text(v) for k, v in sorted(entry.metrics.get(kind, {}).items()) if k in _HEADLINE}


def metrics_of(status: Status) -> dict[str, Any]:
    """Figures of this revision only: an older revision's would be read as this one's."""
    evaluated, verified = status.stage(Stage.EVAL), status.stage(Stage.VERIFY)
    if not evaluated.done:
        return {}
    metrics: dict[str, Any] = {
        "base": _figures(evaluated, "base"),
        "fineTuned": _figures(evaluated, "fineTuned"),
        "queries": evaluated.counts.get("queries", 0),
    }
    uplift = relative_uplift(evaluated)
    if uplift is not None:
        metrics["relativeUplift"] = decimal_text(uplift)
    if digest := evaluated.details.get(Artefact.EVALUATION_SET.value):
        metrics["evaluationSet"] = str(digest)
    if (interval := _interval(evaluated)) is not None:
        metrics["confidenceInterval"] = [f"{x:.5f}" for x in interval]
    if verified.done:
        metrics["served"] = _figures(verified, "served")
    return metrics


def shown(status: Status, *, activated: bool) -> tuple[str, str]:
    """(NDCG@10, uplift) of the revision that clients reach, or of this one while they reach none.

    `activated`: the revision that clients reach is this one.
    """
    served = status.served
    if activated or not served.active_fingerprint:
        evaluated = status.stage(Stage.EVAL)
        tuned = evaluated.metrics.get("fineTuned", {}) if evaluated.done else {}
        return decimal_text(tuned[_COLUMN]) if _COLUMN in tuned else "", uplift_of(status)
    if status.ndcg:
        return status.ndcg, status.uplift
    # An earlier release emptied the columns when an edit came.
    of_active = (item for item in status.history if item.get("revision") == served.active_revision)
    return str(next(of_active, {}).get(_COLUMN, "")), ""


def uplift_of(status: Status) -> str:
    """For example `+4.2%[+1.0,+8.0]n=105`: never without how sure it is, where that was measured.

    `+2.0%(n=19,not-significant)` where it may be chance. Without a space: it is one column, also for `awk`.
    """
    evaluated = status.stage(Stage.EVAL)
    uplift = relative_uplift(evaluated) if evaluated.done else None
    if uplift is None:
        return ""
    interval, queries = _interval(evaluated), f"n={evaluated.counts.get('queries', 0)}"
    if _why_unsure(evaluated):
        return f"{100 * uplift:+.1f}%({queries},not-significant)"[:_COLUMN_CHARACTERS]
    sure = f"[{100 * interval[0]:+.1f},{100 * interval[1]:+.1f}]" if interval is not None else ""
    return f"{100 * uplift:+.1f}%{sure}{queries}"[:_COLUMN_CHARACTERS]


def may_be_chance(evaluated: StageStatus) -> str:
    """What to say where the interval of the uplift includes 0; empty where it does not, or there is none."""
    uplift, why = relative_uplift(evaluated), _why_unsure(evaluated)
    if uplift is None or not why:
        return ""
    return (
        f"the uplift of NDCG@10, {100 * uplift:+.1f}%, may be chance: {why} with "
        f"{evaluated.counts.get('queries', 0)} questions; evaluate on more (documents, or evaluation.beir)"
    )


def _why_unsure(evaluated: StageStatus) -> str:
    """Which interval includes 0; empty where none does. Where the base model finds so little that the uplift has none,
    it is the difference's: one that so many questions do not tell from none may be chance.
    """
    if (interval := _interval(evaluated)) is not None:
        low, high = interval
        told = f"its 95 % interval, {100 * low:+.1f}% to {100 * high:+.1f}%, includes 0"
        return told if low <= 0 <= high else ""
    compared = (evaluated.details.get("comparisons") or {}).get("base") or {}
    figures = [float(figure) for figure in compared.get(_COLUMN) or ()]
    if len(figures) < _WHOLE:
        return ""
    before, after, _, detectable = figures[:_WHOLE]
    difference = after - before
    told = f"the difference is {difference:+.5f}, where differences from {detectable:.5f} on are told from none"
    return told if abs(difference) < detectable else ""


def _interval(evaluated: StageStatus) -> tuple[float, float] | None:
    """Low and high end, relative; None where none was measured."""
    found = evaluated.details.get("confidenceInterval")
    return (float(found[0]), float(found[1])) if found else None
