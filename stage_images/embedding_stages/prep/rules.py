"""Pairs, the split by document, and what may train. Pure: no files, no model, no randomness but the seed."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from embedding_stages.formats.pairs import Pair, normalised
from embedding_stages.formats.training_set import TrainingExample


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


def without_leaks(training: Iterable[Pair], queries: Iterable[str]) -> list[Pair]:
    """Training pairs whose query is not asked in the evaluation."""
    asked = {normalised(query) for query in queries}
    return [pair for pair in training if normalised(pair.query) not in asked]


def without_repeats(pairs: Iterable[Pair]) -> list[Pair]:
    """Pairs with the same query become one, with the passages of all, so that none is another's negative."""
    merged: dict[str, Pair] = {}
    for pair in pairs:
        key = normalised(pair.query)
        first = merged.get(key)
        names = (*first.passage_ids, *pair.passage_ids) if first else pair.passage_ids
        merged[key] = replace(first or pair, passage_ids=tuple(dict.fromkeys(names)))
    return list(merged.values())


def drawn(pairs: Sequence[Pair], most: int | None, *, seed: int) -> list[Pair]:
    """At most `most` pairs, in their order. Which ones depends on their ids and the seed; None keeps all."""
    if most is None or len(pairs) <= most:
        return list(pairs)
    taken = set(sorted((pair.id for pair in pairs), key=lambda name: _place(name, seed))[:most])
    return [pair for pair in pairs if pair.id in taken]


def with_known_passages(pairs: Iterable[Pair], passages: Collection[str]) -> list[Pair]:
    """Pairs without passages that do not exist; without any they are gone."""
    kept = (replace(pair, passage_ids=tuple(name for name in pair.passage_ids if name in passages)) for pair in pairs)
    return [pair for pair in kept if pair.passage_ids]


def unroll(
    pairs: Sequence[Pair], negatives: Mapping[str, Sequence[str]], *, max_positives: int
) -> list[TrainingExample]:
    """One example a positive, at most `max_positives` a pair (NVIDIA embed recipe: 5).

    `negatives` by pair id; pairs without one give no example. Mining comes first and excludes all positives of a
    pair: unrolling before mining would make siblings negatives of each other.
    """
    return [
        TrainingExample(query=pair.query, positive=name, negatives=tuple(negatives[pair.id]))
        for pair in pairs
        if negatives.get(pair.id)
        for name in pair.passage_ids[:max_positives]
    ]


def _place(name: str, seed: int) -> str:
    return hashlib.sha256(f"{seed} {name}".encode()).hexdigest()
