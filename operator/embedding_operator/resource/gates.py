"""From the manifest's `gates` and `evaluation.guards` to frozen values. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from embedding_operator.resource.api import Gates, Guard, SpecError, read
from embedding_operator.resource.references import parse_source
from embedding_stages.contract import settings as tables

MOST_GUARDS: Final = 2  # each is measured with two models, and told in one message with everything else


def parse_gates(raw: Mapping[str, Any], k_values: Sequence[int]) -> Gates:
    """`raw` is spec.gates, `k_values` the cut-offs that are evaluated. Raises SpecError."""
    asked = read(tables.Gates, raw)
    limits: Mapping[str, Any] = raw.get("maxRegression") or {}
    allowed = read(tables.MaxRegression, limits)
    for metric in asked.metrics:
        if int(metric.partition("@")[2]) not in k_values:
            raise SpecError(
                "spec.gates.metrics",
                f"{metric} is not evaluated: spec.evaluation.kValues is {list(k_values)}; add its cut-off there, or "
                "judge another metric",
            )
    return Gates(
        enabled=asked.enabled,
        metrics=asked.metrics,
        max_regression_base=allowed.base,
        max_regression_active=allowed.active,
        min_relative_uplift=asked.minRelativeUplift,
        criterion=asked.criterion,
        stops=asked.onFail == "Stop",
    )


def parse_guards(raw: Sequence[Mapping[str, Any]]) -> tuple[Guard, ...]:
    """`raw` is spec.evaluation.guards. Raises SpecError."""
    found: list[Guard] = []
    if len(raw) > MOST_GUARDS:
        raise SpecError(tables.Guard.FIELD, f"at most {MOST_GUARDS} guards, found {len(raw)}; remove some")
    for number, item in enumerate(raw):
        field = f"{tables.Guard.FIELD}[{number}]"
        asked = read(tables.Guard, item, field)
        if any(other.name == asked.name for other in found):
            raise SpecError(f"{field}.name", f"{asked.name!r} occurs twice; give every guard its own")
        if not item.get("beir"):
            raise SpecError(f"{field}.beir", "is required: name the labelled set by pvc or image")
        source = parse_source(item["beir"], ("pvc", "image"), f"{field}.beir")
        found.append(Guard(name=asked.name, source=source, max_regression=asked.maxRegression))
    return tuple(found)
