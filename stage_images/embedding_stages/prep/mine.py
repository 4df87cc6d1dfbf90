"""Hard negatives: passages that the base model finds near a query and that do not answer it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from embedding_stages.encoder.fitting import stacked
from embedding_stages.formats.characters import for_words
from embedding_stages.formats.pairs import Pair
from embedding_stages.prep.search import Index
from embedding_stages.vectors import Vectors

Embed = Callable[[Sequence[str], Literal["query", "passage"]], Vectors]  # float32 (n, dimension), rows of length 1
_QUERIES_AT_ONCE = 1024
_PASSAGES_AT_ONCE = 4096
_DEEPER = 4  # factor of the search's depth when a query has too few negatives


@dataclass(slots=True)
class Mined:
    """Negatives by pair id, best first; fewer than wanted, or none, where there are no more."""

    negatives: dict[str, list[str]] = field(default_factory=dict)
    positive_scores: list[float] = field(default_factory=list)  # of each pair, its lowest positive
    negative_scores: list[float] = field(default_factory=list)  # of each negative


def highest_negative_score(lowest_positive: float, margin: float) -> float:
    """Negatives score below this: `margin` (NVIDIA embed recipe: 0.95) of the lowest positive.

    Never above the positive itself, which a share of a negative number would be.
    """
    return min(margin * lowest_positive, lowest_positive)


def choose(
    ranked: Iterable[tuple[str, float]], *, excluded: frozenset[str], below: float, wanted: int
) -> list[tuple[str, float]]:
    """The first `wanted` of (passage id, score), best first, that are not excluded and score below the limit."""
    chosen: list[tuple[str, float]] = []
    for name, score in ranked:
        if len(chosen) == wanted:
            break
        if score < below and name not in excluded:
            chosen.append((name, score))
    return chosen


def mine(
    pairs: Sequence[Pair],
    passages: Mapping[str, str],
    embed: Embed,
    *,
    wanted: int,
    margin: float,
    cache: Path | None = None,
    backend: str = "auto",
) -> Mined:
    """`wanted` negatives a pair out of `passages` (id -> text), by exact search.

    Left out: all positives of the pair, passages with the same text as one of them, and what scores too near to
    the lowest positive, which is probably an answer nobody marked. Where the nearest passages do not give enough,
    the search goes on to lower scores, to the end if need be. Vectors of passages are kept in the folder `cache`,
    where an interrupted attempt finds them. `backend` is `prep.search.backend`.
    """
    names = list(passages)
    number_of = {name: number for number, name in enumerate(names)}
    twins = twins_of(passages)
    index = Index(passage_vectors([passages[name] for name in names], embed, cache), backend)
    mined = Mined()
    for start in range(0, len(pairs), _QUERIES_AT_ONCE):
        batch = pairs[start : start + _QUERIES_AT_ONCE]
        queries = embed([pair.query for pair in batch], "query")
        limits = []
        for row, pair in enumerate(batch):
            lowest = float((index.vectors([number_of[name] for name in pair.passage_ids]) @ queries[row]).min())
            mined.positive_scores.append(lowest)
            limits.append(highest_negative_score(lowest, margin))
        excluded = [frozenset(twin for name in pair.passage_ids for twin in twins(name)) for pair in batch]
        found = _search(index, names, queries, limits, excluded, wanted)
        for pair, chosen in zip(batch, found, strict=True):
            mined.negatives[pair.id] = [name for name, _ in chosen]
            mined.negative_scores.extend(score for _, score in chosen)
    return mined


def passage_vectors(texts: Sequence[str], embed: Embed, cache: Path | None) -> Vectors:
    """float32 (len(texts), dimension); blocks that `cache` holds are not computed again."""
    return stacked(len(texts), _passage_blocks(texts, embed, cache))


def _passage_blocks(texts: Sequence[str], embed: Embed, cache: Path | None) -> Iterator[Vectors]:
    for start in range(0, len(texts), _PASSAGES_AT_ONCE):
        path = cache / f"passages-{start}.npy" if cache else None
        block = _load(path, len(texts[start : start + _PASSAGES_AT_ONCE])) if path else None
        if block is None:
            block = embed(texts[start : start + _PASSAGES_AT_ONCE], "passage")
            if path:
                draft = path.with_suffix(".draft.npy")
                np.save(draft, block, allow_pickle=False)
                draft.replace(path)
        yield block


def _load(path: Path, rows: int) -> Vectors | None:
    try:
        block = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return block if block.dtype == np.float32 and block.ndim == 2 and len(block) == rows else None


def _search(
    index: Index,
    names: Sequence[str],
    queries: Vectors,
    limits: Sequence[float],
    excluded: Sequence[frozenset[str]],
    wanted: int,
) -> list[list[tuple[str, float]]]:
    """For each query its negatives; those that found too few are searched again, deeper."""
    found: list[list[tuple[str, float]]] = [[] for _ in limits]
    rows = list(range(len(limits)))
    depth = 8 * wanted + max((len(names_) for names_ in excluded), default=0)
    while rows:
        scores, numbers = index.search(queries[rows], depth)
        for place, row in enumerate(rows):
            ranked = (
                (names[number], float(score)) for number, score in zip(numbers[place], scores[place], strict=True)
            )
            found[row] = choose(ranked, excluded=excluded[row], below=limits[row], wanted=wanted)
        if depth >= index.size:
            break
        rows = [row for row in rows if len(found[row]) < wanted]
        depth *= _DEEPER
    return found


def twins_of(passages: Mapping[str, str]) -> Callable[[str], Sequence[str]]:
    """For the id of a passage, the ids of all passages (id -> text) with the same text, itself among them."""
    twins = _by_text(passages)
    return lambda name: twins[_text(passages[name])]


def _by_text(passages: Mapping[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, text in passages.items():
        found.setdefault(_text(text), []).append(name)
    return found


def _text(text: str) -> str:
    return " ".join(for_words(text).casefold().split())


def mean(values: Sequence[float]) -> float:
    """0.0 for no values."""
    return float(np.mean(values)) if values else 0.0
