"""What may train: nothing that the evaluation set asks, and nothing that nearly repeats what it asks or its answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from embedding_stages.formats.pairs import Pair, Passage
from embedding_stages.prep.asked import Asked
from embedding_stages.prep.duplicates import PASSAGES, QUERIES, near_duplicates
from embedding_stages.prep.rules import without_leaks


@dataclass(frozen=True, slots=True)
class Training:
    """What trains; `searched` (id -> text) are the passages that may become negatives, all positives among them."""

    pairs: list[Pair]
    searched: dict[str, str]
    leaked: int  # pairs that were dropped because the evaluation asks the same
    near_duplicates: int  # pairs that were dropped because they nearly repeat it


def keep_apart(pairs: Sequence[Pair], passages: Mapping[str, Passage], asked: Asked) -> Training:
    """Pairs and passages (by id) of documents that are not held out, without leaks and near-duplicates."""
    candidates = [pair for pair in pairs if pair.document_id not in asked.held_out]
    unasked = without_leaks(candidates, asked.queries)
    repeats = near_duplicates([pair.query for pair in unasked], asked.queries, QUERIES)
    searched = _unlike(
        {name: one.text for name, one in passages.items() if one.document_id not in asked.held_out}, asked.answers
    )
    kept = [
        pair
        for number, pair in enumerate(unasked)
        if number not in repeats and all(name in searched for name in pair.passage_ids)
    ]
    return Training(kept, searched, len(candidates) - len(unasked), len(unasked) - len(kept))


def _unlike(passages: dict[str, str], answers: Sequence[str]) -> dict[str, str]:
    """The passages (id -> text) that nearly repeat none of the answers."""
    names = list(passages)
    repeats = near_duplicates([passages[name] for name in names], answers, PASSAGES)
    return {name: passages[name] for number, name in enumerate(names) if number not in repeats}
