"""Which documents are asked when `maxPairs` questions are enough: some of them, drawn with the seed.

A draw needs no list of the documents: each has a place between 0 and 1, and those below a bound are asked. Where they
give too few questions the bound rises, and only documents between the old and the new one are read again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from embedding_stages.sdg.corpus import CutCorpus, CutDocument
from embedding_stages.sdg.extractive import Candidate, drop_ambiguous

_SPARE: Final = 1.1  # documents asked for each that is needed, because some give fewer questions
_GROWS: Final = 2.0  # the bound, at least, so that a corpus that gives hardly any questions is read a few times only


@dataclass(frozen=True, slots=True)
class Found:
    """Candidates by document, at most `wanted` each; `dropped` were asked of several documents."""

    documents: list[list[Candidate]]
    dropped: int
    asked: int  # documents


def place_of(document_id: str, seed: int) -> float:
    """Between 0 and 1, 1 excluded; the same for a document however many others there are."""
    digest = hashlib.blake2b(f"{seed} {document_id}".encode(), digest_size=6).digest()
    return float(int.from_bytes(digest, "big") / 2**48)


def ask_drawn(
    corpus: CutCorpus,
    ask: Callable[[CutDocument, int], list[Candidate] | None],
    *,
    documents: int,
    wanted: int,
    most: int | None,
    seed: int,
) -> Found:
    """At most `wanted` candidates a document and `most` in all, in the corpus' order within each round of the draw.

    `ask` gets a document and about how many are asked in all; None: it gets no questions. All of `documents` are asked
    when `most` is None.
    """
    found: list[tuple[float, list[Candidate]]] = []
    low, high = 0.0, 1.0 if most is None else min(1.0, _SPARE * most / max(1, wanted * documents))
    while True:
        for document in _between(corpus, low, high, seed):
            candidates = ask(document, round(high * documents))
            if candidates is not None:
                found.append((place_of(document.id, seed), candidates))
        kept, dropped = drop_ambiguous([candidates for _, candidates in found], wanted)
        pairs = sum(map(len, kept))
        if most is None or pairs >= most or high >= 1.0:
            break
        low, high = high, min(1.0, high * max(_GROWS, _SPARE * most / max(1, pairs)))
    asked = len(kept)
    if most is not None:
        kept = _first(kept, [place for place, _ in found], most)
    return Found(kept, dropped, asked)


def _between(corpus: CutCorpus, low: float, high: float, seed: int) -> Iterator[CutDocument]:
    """The documents whose place is at least `low` and below `high`; the others are not cut into passages."""
    return corpus.documents(lambda name: low <= place_of(name, seed) < high)


def _first(documents: Sequence[list[Candidate]], places: Sequence[float], most: int) -> list[list[Candidate]]:
    """At most `most` candidates, of the documents that were drawn first."""
    left, kept = most, dict[int, list[Candidate]]()
    for number in sorted(range(len(documents)), key=places.__getitem__):
        kept[number] = documents[number][:left]
        left -= len(kept[number])
    return [kept[number] for number in range(len(documents))]
