"""Pairs, the split by document, and what may train. Pure: no files, no model, no randomness but the seed."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A question and the passages that answer it."""

    id: str
    question: str
    document_id: str
    chunk_ids: tuple[str, ...]  # at least one
    score: float | None = None  # the judge's, 1 to 10; None: nobody judged


@dataclass(frozen=True, slots=True)
class Split:
    """Pairs of some documents train, pairs of the others are asked in the evaluation."""

    training: tuple[Pair, ...]
    evaluation: tuple[Pair, ...]


def keep_good(pairs: Iterable[Pair], threshold: float) -> list[Pair]:
    """Pairs that the judge gave at least `threshold` (NVIDIA embed recipe: 7.0), or that nobody judged."""
    return [pair for pair in pairs if pair.score is None or pair.score >= threshold]


def split_by_document(pairs: Sequence[Pair], *, fraction: float, seed: int) -> Split:
    """Hold out `fraction` of the documents that have pairs (NVIDIA embed recipe: 0.2, seed 42).

    At least one document goes to each side. A document's place depends on its id and the seed, so that a new
    document moves few of the others. Raises ValueError below two documents.
    """
    documents = sorted({pair.document_id for pair in pairs}, key=lambda name: _place(name, seed))
    if len(documents) < 2:
        raise ValueError(f"{len(documents)} documents cannot be split")
    count = min(len(documents) - 1, max(1, round(fraction * len(documents))))
    held_out = set(documents[:count])
    return Split(
        training=tuple(pair for pair in pairs if pair.document_id not in held_out),
        evaluation=tuple(pair for pair in pairs if pair.document_id in held_out),
    )


def normalised(question: str) -> str:
    """Equal for questions that differ in case, white space and final punctuation alone."""
    return " ".join(unicodedata.normalize("NFKC", question).casefold().split()).rstrip(" ?.!")


def without_leaks(training: Iterable[Pair], questions: Iterable[str]) -> list[Pair]:
    """Training pairs whose question is not asked in the evaluation."""
    asked = {normalised(question) for question in questions}
    return [pair for pair in training if normalised(pair.question) not in asked]


def without_repeats(pairs: Iterable[Pair]) -> list[Pair]:
    """Pairs with the same question become one, with the passages of all, so that none is another's negative."""
    merged: dict[str, Pair] = {}
    for pair in pairs:
        key = normalised(pair.question)
        first = merged.get(key)
        names = (*first.chunk_ids, *pair.chunk_ids) if first else pair.chunk_ids
        merged[key] = replace(first or pair, chunk_ids=tuple(dict.fromkeys(names)))
    return list(merged.values())


def with_known_chunks(pairs: Iterable[Pair], chunks: Collection[str]) -> list[Pair]:
    """Pairs without passages that do not exist; without any they are gone."""
    kept = (replace(pair, chunk_ids=tuple(name for name in pair.chunk_ids if name in chunks)) for pair in pairs)
    return [pair for pair in kept if pair.chunk_ids]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A training record: one question with one positive and the negatives, best first."""

    query: str
    positive: str
    negatives: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        return {"query": self.query, "positive": self.positive, "negatives": list(self.negatives)}


def unroll(pairs: Sequence[Pair], negatives: Mapping[str, Sequence[str]], *, max_positives: int) -> list[Row]:
    """One row a positive, at most `max_positives` a pair (NVIDIA embed recipe: 5).

    `negatives` by pair id; pairs without one give no row. Mining comes first and excludes all positives of a
    pair: unrolling before mining would make siblings negatives of each other.
    """
    return [
        Row(query=pair.question, positive=name, negatives=tuple(negatives[pair.id]))
        for pair in pairs
        if negatives.get(pair.id)
        for name in pair.chunk_ids[:max_positives]
    ]


def _place(document_id: str, seed: int) -> str:
    return hashlib.sha256(f"{seed} {document_id}".encode()).hexdigest()
