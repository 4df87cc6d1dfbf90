"""How well vectors rank a part of the evaluation set: NDCG@10, checkpoint against export, over the same texts.

Up to 256 questions search up to 512 passages, or as many as are relevant to them. The figure is no evaluation, and
lies above the evaluation's, because there is less to confuse; it says what rounding does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from embedding_stages.errors import BadInput
from embedding_stages.formats.beir import BeirReader
from embedding_stages.formats.lines import FormatError
from embedding_stages.vectors import Vectors

QUESTIONS: Final = 256
PASSAGES: Final = 512
_DEPTH: Final = 10


@dataclass(frozen=True, slots=True)
class RankingSet:
    """Texts, and by question the grades (above 0) of passages by their place."""

    queries: Sequence[str]
    passages: Sequence[str]
    grades: Sequence[Mapping[int, int]]


def ranking_set(evaluation_set: Path) -> RankingSet | None:
    """The first questions with a relevant passage and, evenly over the set, passages; None where no question has one.

    Raises BadInput `EvaluationSetInvalid`.
    """
    reader = BeirReader.of(evaluation_set, may_be_empty=True)
    try:
        asked = {query.id: query.text for query in reader.queries()}
        passages = {passage.id: passage.full_text for passage in reader.passages()}
        relevant: dict[str, dict[str, int]] = {}
        for item in reader.judgements(asked) if asked else ():
            if item.score > 0 and item.passage_id in passages:
                relevant.setdefault(item.query_id, {})[item.passage_id] = item.score
    except FormatError as error:
        raise BadInput("EvaluationSetInvalid", f"evaluation set: {error}", field="spec.evaluation.beir") from error
    queries = [name for name in asked if name in relevant][:QUESTIONS]
    if not queries:
        return None
    needed = dict.fromkeys(name for query in queries for name in relevant[query])
    others = [name for name in passages if name not in needed]
    room = max(0, min(PASSAGES - len(needed), len(others)))
    chosen = [*needed, *(others[number * len(others) // room] for number in range(room))]
    places = {name: place for place, name in enumerate(chosen)}
    return RankingSet(
        queries=[asked[name] for name in queries],
        passages=[passages[name] for name in chosen],
        grades=[{places[name]: score for name, score in relevant[query].items()} for query in queries],
    )


def ndcg_at_10(found: RankingSet, queries: Vectors, passages: Vectors) -> float:
    """The mean over the questions, 0 to 1, as trec_eval computes it. Vectors are float32 (n, dimension) of length 1."""
    scores = queries @ passages.T
    discounts = 1.0 / np.log2(np.arange(2, _DEPTH + 2))
    values = []
    for row, grades in zip(scores, found.grades, strict=True):
        best = np.argsort(-row, kind="stable")[:_DEPTH]
        gains = [grades.get(int(place), 0) for place in best]
        ideal = sorted(grades.values(), reverse=True)[:_DEPTH]
        values.append(np.dot(gains, discounts[: len(gains)]) / np.dot(ideal, discounts[: len(ideal)]))
    return float(np.mean(values))
