"""The goals and what was measured against them. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """`goal` is the most that is allowed, or the least where `at_least`; None: told, not judged."""

    what: str
    measured: float
    unit: str
    goal: float | None = None
    at_least: bool = False
    note: str = ""

    @property
    def verdict(self) -> str:
        if self.goal is None:
            return ""
        if math.isnan(self.measured):
            return "missed"
        return "met" if (self.measured >= self.goal if self.at_least else self.measured <= self.goal) else "missed"

    def cells(self) -> list[str]:
        sign = "at least" if self.at_least else "at most"
        goal = "" if self.goal is None else f"{sign} {number(self.goal)}"
        return [self.what, f"{number(self.measured)} {self.unit}".strip(), goal, self.verdict, self.note]

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "verdict": self.verdict}


def number(value: float) -> str:
    """Three digits where it is small, none behind the point where it is not."""
    if math.isnan(value):
        return "not measured"
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def goals_table(rows: Sequence[Row]) -> str:
    return table(["goal", "measured", "limit", "verdict", "note"], [row.cells() for row in rows])
