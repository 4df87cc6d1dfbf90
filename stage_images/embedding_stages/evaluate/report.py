"""report.json of the evaluation, which verify reads again. Pure but for `load`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from embedding_stages.contract import SCHEMA, Artefact, ArtefactRef, StageResult
from embedding_stages.errors import StageError
from embedding_stages.evaluate.bootstrap import confidence_interval, relative_uplift
from embedding_stages.evaluate.evaluation_set import EvaluationSet
from embedding_stages.evaluate.metrics import Scores, headline

REPORT_FILE = "report.json"
BASE, FINE_TUNED, ACTIVE = "base", "fineTuned", "active"
GUARD = "guard:"  # with the guard's name
_SPARED: tuple[tuple[str, ...], ...] = ((), ("precision@",), ("precision@", "map@"))  # the first that is enough
_SAME = 1e-9
_DECIMALS = 10  # of what verify compares query by query
_TOLD = 6  # decimals of what the stage's result holds too


@dataclass(frozen=True, slots=True)
class Uplift:
    """Of the headline metric, as fractions: 0.1 is ten per cent. None where no ratio exists."""

    relative: float | None
    interval: tuple[float, float] | None  # 95 %, paired bootstrap


def uplift_of(base: Scores, tuned: Scores, k_values: Sequence[int]) -> Uplift:
    """How much better the fine-tuned model ranks, and how sure that is."""
    metric = headline(k_values)
    before = [values[metric] for values in base.per_query.values()]
    after = [tuned.per_query[query][metric] for query in base.per_query]
    relative = relative_uplift(before, after)
    interval = confidence_interval(before, after)
    return Uplift(
        None if relative is None else round(relative, _TOLD),
        None if interval is None else (round(interval[0], _TOLD), round(interval[1], _TOLD)),
    )


def build_report(
    evaluation_set: EvaluationSet,
    scores: Mapping[str, Scores],
    uplift: Uplift,
    k_values: Sequence[int],
    digests: Mapping[str, str],
    *,
    precision: str,
    comparisons: Mapping[str, Any] | None = None,
    beside: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """`scores` by model (`base`, `fineTuned`, and `active` where one serves); `digests` by artefact: what exactly was
    compared; `precision` is what the models computed in; `comparisons`, and `beside` (dimensions, canaries) as the
    stage tells them.
    """
    return {
        "schema": SCHEMA,
        "kValues": list(k_values),
        "headline": headline(k_values),
        "queries": len(evaluation_set.query_ids),
        "passages": len(evaluation_set.passage_ids),
        "unknownPassages": evaluation_set.unknown_passages,
        "digests": dict(digests),
        "precision": precision,
        "metrics": {model: dict(found.means) for model, found in scores.items()},
        "relativeUplift": uplift.relative,
        "confidenceInterval": None if uplift.interval is None else list(uplift.interval),
        "comparisons": dict(comparisons or {}),
        "dimensions": {},
        **(beside or {}),
        "perQuery": {model: per_query(found, k_values) for model, found in scores.items()},
    }


def fitted(result: StageResult) -> StageResult:
    """The result, without precision or also without MAP where it would be longer than a termination message may be.

    Many cut-offs do that. Nobody decides by these two, what gates compare has figures of its own, and report.json has
    all of them.
    """
    digest = f"sha256:{'0' * 64}"
    path = f"{result.stage}/{result.fingerprint}/{Artefact.EVAL_REPORT}"
    published = {Artefact.EVAL_REPORT: ArtefactRef(path=path, digest=digest)}  # when the stage is done
    for left_out in _SPARED:
        metrics = {
            model: {name: value for name, value in means.items() if not name.startswith(left_out)}
            for model, means in result.metrics.items()
        }
        shorter = replace(result, metrics=metrics)
        if _fits(replace(shorter, artefacts=published)):
            break
    return shorter


def _fits(result: StageResult) -> bool:
    try:
        result.to_json()
    except ValueError:
        return False
    return True


def per_query(scores: Scores, k_values: Sequence[int]) -> dict[str, dict[str, Any]]:
    """{query id: {headline metric, recall@k, hits: {k: relevant passages among the first k}}}."""
    names = [headline(k_values), *(f"recall@{k}" for k in k_values)]
    return {
        query: {
            **{name: round(values[name], _DECIMALS) for name in names},
            "hits": {str(k): round(values[f"precision@{k}"] * k) for k in k_values},
        }
        for query, values in scores.per_query.items()
    }


def changed_queries(before: Mapping[str, Mapping[str, Any]], after: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Ids of queries whose headline metric or recall at any common cut-off differs, or that one side lacks."""

    def differs(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
        names = [name for name in old.keys() & new.keys() if name != "hits"]
        return not names or any(abs(float(old[name]) - float(new[name])) > _SAME for name in names)

    return sorted(
        query
        for query in before.keys() | after.keys()
        if query not in before or query not in after or differs(before[query], after[query])
    )


def load_report(folder: Path) -> dict[str, Any]:
    """Read a report. Raises StageError `EvaluationReportInvalid`, and OSError where the volume does not give it."""
    try:
        content = (folder / REPORT_FILE).read_bytes()
    except FileNotFoundError as error:
        raise _invalid(error) from error
    try:
        report = json.loads(content)
        if report["schema"] != SCHEMA or not isinstance(report["perQuery"][FINE_TUNED], dict):
            raise ValueError(f"not of schema {SCHEMA}")
    except (ValueError, KeyError, TypeError) as error:
        raise _invalid(error) from error
    return dict(report)


def _invalid(error: Exception) -> StageError:
    return StageError("EvaluationReportInvalid", f"{REPORT_FILE}: {error}; run the eval stage again")


def save_report(folder: Path, report: Mapping[str, Any]) -> None:
    """Write report.json into `folder`."""
    text = json.dumps(report, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    (folder / REPORT_FILE).write_text(text + "\n", encoding="utf-8")
