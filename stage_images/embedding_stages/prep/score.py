"""Candidates of each query with a teacher's scores: what the presets conservative and auto learn from.

The teacher is the base model and BM25 together: cosine + WEIGHT * (BM25 as a share of the best other passage's). Two
that err in different ways rank better than either; a model that learns their ranking keeps what the base model knows
and takes in the words of its documents. docs/quality.md has the figures.

Where a rule cut the query out of a passage, that passage is no candidate: it repeats the query's words as no passage
repeats a person's, and a model that is shown it learns to match strings. Where somebody else wrote the query, a
language model or a person, the passage that they named is ranked first, whatever the teacher says.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from embedding_stages.formats.pairs import Pair
from embedding_stages.formats.training_set import TrainingExample
from embedding_stages.prep.lexical import LexicalIndex
from embedding_stages.prep.mine import Embed, passage_vectors, twins_of
from embedding_stages.prep.search import Index
from embedding_stages.vectors import Vectors

WEIGHT: Final = 0.2  # of BM25, on the scale of cosines
AHEAD: Final = 0.2  # how far a named answer is put before the best other passage, on the scale of cosines
_DEPTH: Final = 64  # best passages of each ranking that the teacher looks at
_QUERIES_AT_ONCE: Final = 1024


@dataclass(slots=True)
class Scored:
    """Examples with scores; `bare` counts queries that no other passage could be set against."""

    examples: list[TrainingExample] = field(default_factory=list)
    bare: int = 0
    best_scores: list[float] = field(default_factory=list)  # of each example's first candidate
    other_scores: list[float] = field(default_factory=list)  # of all other candidates


def score(
    pairs: Sequence[Pair],
    passages: Mapping[str, str],
    embed: Embed,
    *,
    wanted: int,
    by_rule: Collection[str],
    most_positives: int,
    seed: int,
    cache: Path | None = None,
    backend: str = "auto",
) -> Scored:
    """Examples of 1 + `wanted` candidates out of `passages` (id -> text).

    A good third of the candidates are the teacher's best, a third are drawn from the next hundred, a third from all
    passages: these keep the model from moving what was far apart. `by_rule` are the types of pairs whose passage is
    left out. One example a query, and one a named answer, at most `most_positives`. Vectors of passages are kept in the
    folder `cache`, as `mine` keeps them. `backend` is `prep.search.backend`.
    """
    names = list(passages)
    texts = [passages[name] for name in names]
    number_of = {name: number for number, name in enumerate(names)}
    twins = twins_of(passages)
    dense = Index(passage_vectors(texts, embed, cache), backend)
    lexical = LexicalIndex(texts)
    scored = Scored()
    for start in range(0, len(pairs), _QUERIES_AT_ONCE):
        batch = pairs[start : start + _QUERIES_AT_ONCE]
        queries = embed([pair.query for pair in batch], "query")
        _, nearest = dense.search(queries, _DEPTH + max(len(pair.passage_ids) for pair in batch))
        for pair, query, near in zip(batch, queries, nearest, strict=True):
            own = {number_of[twin] for name in pair.passage_ids for twin in twins(name)}
            teacher = _Teacher(query, dense, lexical.scores(pair.query), own)
            others = _candidates(teacher, near, wanted, random.Random(f"{seed} {pair.id}"))  # noqa: S311
            if pair.type in by_rule:
                _add(scored, pair.query, names, teacher, others, named=False)
                continue
            for answer in pair.passage_ids[:most_positives]:
                _add(scored, pair.query, names, teacher, [number_of[answer], *others[:wanted]], named=True)
    return scored


class _Teacher:
    """The scores of one query; the numbers `own` are left out."""

    def __init__(self, query: Vectors, dense: Index, lexical: Vectors, own: Collection[int]) -> None:
        self._query, self._dense, self._lexical = query, dense, lexical
        self.own = frozenset(own)
        lexical[list(self.own)] = 0.0
        best = float(lexical.max(initial=0.0))
        if best > 0:
            lexical /= best
        self.size = dense.size

    def best_words(self) -> NDArray[np.int64]:
        """Numbers of the passages that match the query's words best."""
        depth = min(_DEPTH, self.size)
        found = np.argpartition(-self._lexical, depth - 1)[:depth]
        return np.asarray(found[self._lexical[found] > 0], dtype=np.int64)

    def scores(self, numbers: list[int]) -> Vectors:
        """float32 (len(numbers),)."""
        cosines = self._dense.vectors(numbers) @ self._query
        return np.asarray(cosines + WEIGHT * self._lexical[numbers], dtype=np.float32)


def _candidates(teacher: _Teacher, nearest: NDArray[np.int64], wanted: int, chance: random.Random) -> list[int]:
    """1 + `wanted` numbers, or as many as there are: the best one, then the three kinds in turns.

    So every beginning of the list holds some of each.
    """
    pool = sorted({*nearest.tolist(), *teacher.best_words().tolist()} - teacher.own - {-1})
    ranked = sorted(zip(teacher.scores(pool).tolist(), pool, strict=True), key=lambda item: -item[0]) if pool else []
    numbers = [number for _, number in ranked]
    share = wanted // 3
    good, below = numbers[1 : 1 + wanted - 2 * share], numbers[1 + wanted - 2 * share :]
    near = chance.sample(below, min(share, len(below)))
    taken = teacher.own | set(numbers[:1]) | set(good) | set(near)
    far = [number for number in _draw(teacher.size, 2 * wanted, chance) if number not in taken][:share]
    turns = [number for kinds in zip_longest(good, near, far) for number in kinds if number is not None]
    spare = [number for number in below if number not in {*near, *far}]  # a small corpus: what else there is
    return [*numbers[:1], *turns, *spare][: 1 + wanted]


def _draw(size: int, most: int, chance: random.Random) -> list[int]:
    return chance.sample(range(size), min(size, most))


def _add(
    scored: Scored, query: str, names: Sequence[str], teacher: _Teacher, chosen: Sequence[int], *, named: bool
) -> None:
    """`named`: somebody said that the first of the chosen passages is the answer."""
    if len(chosen) < 2:
        scored.bare += 1
        return
    scores = teacher.scores(list(chosen)).tolist()
    if named:
        scores[0] = max(scores[1:]) + AHEAD
    scored.examples.append(
        TrainingExample(
            query=query,
            positive=names[chosen[0]],
            negatives=tuple(names[number] for number in chosen[1:]),
            scores=tuple(round(value, 6) for value in scores),
        )
    )
    scored.best_scores.append(scores[0])
    scored.other_scores.extend(scores[1:])
