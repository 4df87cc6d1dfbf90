"""How far a running stage is: a line of its log that the stage writes and the operator finds.

What stands in it is read with care, as results are: the image may be anybody's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

from embedding_stages.contract.canonical import canonical_json, encodable
from embedding_stages.contract.odd_values import read_json, whole

_PROGRESS_KEY: Final = "progress"
_UNIT_CHARACTERS: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a running stage is, and at which pace."""

    percent: int  # 0..100
    step: int = 0
    total_steps: int = 0
    eta_seconds: int | None = None
    loss: float | None = None
    rate: float | None = None  # of `unit` a second
    unit: str = ""  # tokens, or steps
    llm_tokens: int = 0  # see StageResult


def progress_line(progress: Progress) -> str:
    """The log line that reports progress; one line, JSON."""
    body: dict[str, Any] = {
        "percent": progress.percent,
        "step": progress.step,
        "totalSteps": progress.total_steps,
        "etaSeconds": progress.eta_seconds,
        "loss": _finite(progress.loss),
        "rate": _finite(progress.rate),
        "unit": progress.unit or None,
        "llmTokens": progress.llm_tokens or None,
    }
    return canonical_json({_PROGRESS_KEY: {key: value for key, value in body.items() if value is not None}})


def parse_progress(log_tail: str) -> Progress | None:
    """The newest progress line in the end of a log that can be read, or None."""
    for line in reversed(log_tail.splitlines()):
        if f'"{_PROGRESS_KEY}"' not in line:
            continue
        try:
            body = read_json(line)[_PROGRESS_KEY]
            eta = body.get("etaSeconds")
            return Progress(
                percent=max(0, min(100, whole(body["percent"]))),
                step=whole(body.get("step", 0)),
                total_steps=whole(body.get("totalSteps", 0)),
                eta_seconds=None if eta is None else whole(eta),
                loss=_finite(body.get("loss")),
                rate=_finite(body.get("rate")),
                unit=encodable(str(body.get("unit", "")))[:_UNIT_CHARACTERS],
                llm_tokens=max(0, whole(body.get("llmTokens", 0))),
            )
        except (ValueError, TypeError, KeyError, AttributeError):
            continue
    return None


def _finite(value: Any) -> float | None:
    """JSON has no word for a number that is none."""
    try:
        found = None if value is None else float(value)
    except OverflowError:
        return None
    return found if found is not None and math.isfinite(found) else None
