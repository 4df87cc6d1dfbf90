"""The figures of a revision: what it gained, and what its server measures. Pure."""

from __future__ import annotations

from typing import Any, Final

from embedding_operator.decide.verdict import relative_uplift
from embedding_operator.resource.status import StageStatus, Status, decimal_text
from embedding_stages.contract import Artefact, Stage

_COLUMN_CHARACTERS: Final = 48
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
    if digest := evaluated.details.get(Artefact.EVALUATION_SET.value):
        metrics["evaluationSet"] = str(digest)
    interval = evaluated.details.get("confidenceInterval")
    if interval:
        metrics["confidenceInterval"] = [f"{float(x):.5f}" for x in interval]
    if verified.done:
        metrics["served"] = _figures(verified, "served")
    return metrics


def uplift_of(status: Status) -> str:
    """For example `+4.2% [+1.0, +8.0] n=105`: never without how sure it is, where that was measured."""
    evaluated = status.stage(Stage.EVAL)
    uplift = relative_uplift(evaluated) if evaluated.done else None
    if uplift is None:
        return ""
    interval = evaluated.details.get("confidenceInterval")
    sure = f" [{100 * float(interval[0]):+.1f}, {100 * float(interval[1]):+.1f}]" if interval else ""
    return f"{100 * uplift:+.1f}%{sure} n={evaluated.counts.get('queries', 0)}"[:_COLUMN_CHARACTERS]
