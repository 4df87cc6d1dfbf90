"""NDCG, MAP, Recall and Precision, from BEIR's evaluator. Evaluate and verify get their numbers here.

BEIR leaves queries without results out of its means, turns NaN scores into something that sorts, removes
results whose id equals the query's, also where they are judged relevant, and rounds to five decimals. So coverage and
finiteness are checked before, a query that is a passage is taken out of its own results while they are searched, ids
are made different before, and the means are taken here at full precision and compared with BEIR's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pytrec_eval
from beir.retrieval.evaluation import EvaluateRetrieval

from embedding_stages.errors import BadInput, StageError
from embedding_stages.evaluate.evaluation_set import EvaluationSet
from embedding_stages.evaluate.search import Rankings, nearest_passages
from embedding_stages.vectors import Vectors

DEFAULT_K_VALUES = (1, 5, 10, 100)  # NVIDIA embed recipe
HEADLINE_K = 10
_TREC_NAMES = {"ndcg": "ndcg_cut", "map": "map_cut", "recall": "recall", "precision": "P"}
_DECIMALS = 6  # of published means: short, and finer than any tolerance
_BEIR_ROUNDING = 1e-5


@dataclass(frozen=True, slots=True)
class Scores:
    """Metric names are `ndcg@k`, `map@k`, `recall@k` and `precision@k`; values lie between 0 and 1."""

    means: Mapping[str, float]
    per_query: Mapping[str, Mapping[str, float]]  # query id -> metric -> value


def k_values_of(value: object, *, field: str) -> tuple[int, ...]:
    """Sorted, unique cut-offs from settings. Raises BadInput `SettingInvalid`."""
    numbers = value if isinstance(value, list | tuple) else ()
    if not numbers or any(isinstance(k, bool) or not isinstance(k, int) or k < 1 for k in numbers):
        raise BadInput("SettingInvalid", f"kValues is {value!r}, expected whole numbers > 0", field=field)
    return tuple(sorted(set(numbers)))


def headline(k_values: Sequence[int]) -> str:
    """The metric that uplift is told in: ndcg@10 when it is measured, else NDCG at the largest k below or above."""
    below = [k for k in k_values if k <= HEADLINE_K]
    return f"ndcg@{max(below) if below else min(k_values)}"


def measure(
    evaluation_set: EvaluationSet, query_vectors: Vectors, passage_vectors: Vectors, k_values: Sequence[int]
) -> Scores:
    """Search with vectors in the order of the set's ids, then score. Raises what the two parts raise."""
    rankings = nearest_passages(
        evaluation_set.query_ids,
        query_vectors,
        evaluation_set.passage_ids,
        passage_vectors,
        depth=max(k_values),
        not_themselves=evaluation_set.asked_by_passages,
    )
    return score(evaluation_set, rankings, k_values)


def score(evaluation_set: EvaluationSet, rankings: Rankings, k_values: Sequence[int]) -> Scores:
    """Raises StageError `RankingsIncomplete`, `ScoresNotFinite` or `EvaluatorsDisagree`."""
    check_rankings(evaluation_set, rankings, depth=max(k_values))
    relevance = {
        f"q:{query}": {f"p:{passage}": grade for passage, grade in grades.items()}
        for query, grades in evaluation_set.relevance.items()
    }
    results = {
        f"q:{query}": {f"p:{passage}": value for passage, value in found.items()} for query, found in rankings.items()
    }
    cuts = ",".join(str(k) for k in k_values)
    evaluator = pytrec_eval.RelevanceEvaluator(relevance, {f"{name}.{cuts}" for name in _TREC_NAMES.values()})
    raw = evaluator.evaluate(results)
    per_query = {
        query: {
            f"{metric}@{k}": float(raw[f"q:{query}"][f"{trec}_{k}"])
            for metric, trec in _TREC_NAMES.items()
            for k in k_values
        }
        for query in evaluation_set.query_ids
    }
    means = {
        name: round(math.fsum(values[name] for values in per_query.values()) / len(per_query), _DECIMALS)
        for name in next(iter(per_query.values()))
    }
    _compare_with_beir(means, relevance, results, k_values)
    return Scores(means, per_query)


def check_rankings(evaluation_set: EvaluationSet, rankings: Rankings, *, depth: int) -> None:
    """Every query has exactly min(depth, passages) known passages, itself not counted where it is one, and every score
    is a finite number.
    """
    passages = set(evaluation_set.passage_ids)
    not_themselves = evaluation_set.asked_by_passages
    if rankings.keys() != set(evaluation_set.query_ids):
        missing = len(set(evaluation_set.query_ids) - rankings.keys())
        raise StageError("RankingsIncomplete", f"{missing} of {len(evaluation_set.query_ids)} queries have no results")
    for query, found in rankings.items():
        own = query in not_themselves
        wanted = min(depth, len(passages) - own)
        if len(found) != wanted or not found.keys() <= passages or (own and query in found):
            raise StageError("RankingsIncomplete", f"query {query!r} has {len(found)} results, expected {wanted}")
        if not all(math.isfinite(value) for value in found.values()):
            raise StageError("ScoresNotFinite", f"query {query!r} has a score that is NaN or infinite")


def _compare_with_beir(
    means: Mapping[str, float],
    relevance: dict[str, dict[str, int]],
    results: dict[str, dict[str, float]],
    k_values: Sequence[int],
) -> None:
    found = EvaluateRetrieval.evaluate(relevance, results, list(k_values), ignore_identical_ids=False)
    for metric, values in zip(("ndcg", "map", "recall", "precision"), found, strict=True):
        for k, value in zip(k_values, values.values(), strict=True):
            if abs(means[f"{metric}@{k}"] - value) > _BEIR_ROUNDING:
                raise StageError(
                    "EvaluatorsDisagree", f"{metric}@{k} is {means[f'{metric}@{k}']} here and {value} by BEIR"
                )
