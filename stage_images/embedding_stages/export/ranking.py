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
from embedding_stages.export.drawn import even_places
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
    try:
        return _drawn(BeirReader.of(evaluation_set, may_be_empty=True))
    except FormatError as error:
        raise BadInput("EvaluationSetInvalid", f"evaluation set: {error}", field="spec.evaluation.beir") from error


def _drawn(reader: BeirReader) -> RankingSet | None:
    """Of queries and passages memory holds the ids, and the texts of those that are drawn: the files are read twice."""
    asked = dict.fromkeys(query.id for query in reader.queries())
    relevant, passages = _relevant(reader, asked)
    queries = [name for name in asked if name in relevant][:QUESTIONS]
    if not queries:
        return None
    needed = dict.fromkeys(name for query in queries for name in relevant[query])
    places = set(even_places(passages - len(needed), max(0, PASSAGES - len(needed))))
    found, chosen, place = dict[str, str](), list[str](), 0
    for passage in reader.passages():
        if passage.id in needed:
            found[passage.id] = passage.full_text
            continue
        if place in places:
            chosen.append(passage.full_text)
        place += 1
    first = set(queries)
    texts = {query.id: query.text for query in reader.queries() if query.id in first}
    row = {name: number for number, name in enumerate(needed)}
    return RankingSet(
        queries=[texts[name] for name in queries],
        passages=[*(found[name] for name in needed), *chosen],
        grades=[{row[name]: score for name, score in relevant[query].items()} for query in queries],
    )


def _relevant(reader: BeirReader, asked: Mapping[str, None]) -> tuple[dict[str, dict[str, int]], int]:
    """By question the passages of the set that are relevant to it, with their grades; and how many the set has."""
    judged = [one for one in reader.judgements(asked) if one.score > 0] if asked else []
    named = {one.passage_id for one in judged}
    there, passages = set[str](), 0
    for passage in reader.passages():
        passages += 1
        if passage.id in named:
            there.add(passage.id)
    relevant: dict[str, dict[str, int]] = {}
    for one in judged:
        if one.passage_id in there:
            relevant.setdefault(one.query_id, {})[one.passage_id] = one.score
    return relevant, passages


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
