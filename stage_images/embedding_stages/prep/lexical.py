"""BM25 over the passages: how well the words of a query match those of each. NumPy and the standard library.

Words count by their first five letters, which joins most forms of one word in languages that inflect at the end and
needs no list of endings; in scripts without spaces two neighbouring characters count. No stop words: BM25 gives what
is in most passages no weight. k1 0.9 and b 0.4 are the defaults of Anserini and Pyserini.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from embedding_stages.formats.words import words_of
from embedding_stages.vectors import Vectors

_K1: Final = 0.9
_B: Final = 0.4
_LETTERS: Final = 5  # of a word that count


def terms_of(text: str) -> Iterator[str]:
    """What counts of a text, in its order, as often as it stands there."""
    return (word[:_LETTERS] for word in words_of(text))


class LexicalIndex:
    """The passages' words. Memory: 8 bytes for each different word of each passage."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._number: dict[str, int] = {}
        terms, counts, sizes, lengths = array("i"), array("i"), array("i"), array("i")
        for text in texts:
            found: dict[int, int] = {}
            for term in terms_of(text):
                number = self._number.setdefault(term, len(self._number))
                found[number] = found.get(number, 0) + 1
            terms.extend(found.keys())
            counts.extend(found.values())
            sizes.append(len(found))
            lengths.append(sum(found.values()))
        self.size = len(sizes)
        self._passages, self._weights, self._starts = _postings(terms, counts, sizes, lengths, len(self._number))

    def scores(self, query: str) -> Vectors:
        """float32 (size,): BM25 of every passage, 0 where no word matches."""
        found = np.zeros(self.size, dtype=np.float32)
        for term in set(terms_of(query)):
            number = self._number.get(term)
            if number is not None:
                part = slice(self._starts[number], self._starts[number + 1])
                found[self._passages[part]] += self._weights[part]  # a passage stands once in a term's postings
        return found


def _postings(
    terms: array[int], counts: array[int], sizes: array[int], lengths: array[int], vocabulary: int
) -> tuple[NDArray[np.int32], Vectors, NDArray[np.int64]]:
    """By term: the passages that hold it, its weight there, and where each term's part begins."""
    of_term, times, held, length = (np.frombuffer(part, dtype=np.int32) for part in (terms, counts, sizes, lengths))
    order = np.argsort(of_term, kind="stable")
    passages = np.repeat(np.arange(len(held), dtype=np.int32), held)[order]
    frequency = np.bincount(of_term, minlength=vocabulary)
    rarity = np.log1p((len(held) - frequency + 0.5) / (frequency + 0.5)).astype(np.float32)
    norm = _K1 * (1 - _B + _B * length / max(1.0, float(length.mean()) if len(length) else 1.0))
    amount = times[order].astype(np.float32)
    weights = rarity[of_term[order]] * amount * (_K1 + 1) / (amount + norm[passages].astype(np.float32))
    return passages, weights.astype(np.float32), np.concatenate([[0], np.cumsum(frequency)])
