"""The figures of a revision: what it gained, and what its server measures. Pure."""

from __future__ import annotations

from typing import Any, Final

from embedding_operator.decide.verdict import relative_uplift
from embedding_operator.resource.status import StageStatus, Status, decimal_text
from embedding_stages.contract import Stage

_HEADLINE: Final = ("ndcg@", "recall@", "map@", "precision@")


def _figures(entry: StageStatus, kind: str) -> dict[str, str]:
    return {k: decimal_text(v) for k, v in sorted(entry.metrics.get(kind, {}).items()) if k.startswith(_HEADLINE)}


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
    interval = evaluated.details.get("confidenceInterval")
    if interval:
        metrics["confidenceInterval"] = [f"{float(x):.5f}" for x in interval]
    if verified.done:
        metrics["served"] = _figures(verified, "served")
    return metrics


def uplift_of(status: Status) -> str:
    evaluated = status.stage(Stage.EVAL)
    uplift = relative_uplift(evaluated) if evaluated.done else None
    return f"{100 * uplift:+.1f}%" if uplift is not None else ""
