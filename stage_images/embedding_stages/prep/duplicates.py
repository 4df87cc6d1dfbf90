"""Near-duplicates: which texts nearly repeat one of some others. Seeded, and linear in the number of texts.

MinHash signatures in bands (locality-sensitive hashing) propose, the features themselves decide. The features are pairs
of neighbouring words of a passage, and the words of a query. They count by how rare they are, so that what all texts of
a corpus share (a form's wording, "What does ... do?") makes no two of them alike. Where words are written without
spaces a character counts as one, and of an alphabet two neighbouring ones: two questions in Thai have most letters in
common, whatever they ask.

A module of our own in numpy: datasketch needs SciPy, and it and rensa return all of a bucket, which is quadratic where
thousands of passages follow one form; what decides had to be written anyway.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from embedding_stages.formats.pairs import normalised
from embedding_stages.formats.words import UNSPACED_ALPHABETS, words_of

_BANDS: Final = 40  # of two rows each: texts that share 30 % of their features meet in one of them in 98 % of cases
_SEED: Final = 42
_AT_ONCE: Final = 1024  # texts
_OF_A_BUCKET: Final = 16  # compared at most
_OF_A_TEXT: Final = 16  # compared at most, those that met most often
_LEAST_ESTIMATE: Final = 0.2  # share of equal rows below which nothing is compared
_RARE: Final = 3  # a feature of fewer texts gains no more weight
_LEAST_WEIGHT: Final = 0.1  # of a feature of all texts; of the rarest it is the logarithm of their number
_TABLE_BITS: Final = 22  # of the table that counts features; few share an entry
_KANA_AND_HAN: Final = r"\u3040-\u30ff\u3400-\u9fff"
_WORD: Final = re.compile(rf"[{_KANA_AND_HAN}]|[{UNSPACED_ALPHABETS}]+|[^\s{_KANA_AND_HAN}{UNSPACED_ALPHABETS}]+")
_UNSPACED_RUN: Final = re.compile(f"[{UNSPACED_ALPHABETS}]")


@dataclass(frozen=True, slots=True)
class Alike:
    """When two texts nearly repeat each other."""

    words: int  # of a feature, 1 or 2
    share: float  # of the weights of all features that one of the two has: what both have, at least


PASSAGES: Final = Alike(words=2, share=0.3)
QUERIES: Final = Alike(words=1, share=0.65)


def near_duplicates(texts: Sequence[str], others: Sequence[str], alike: Alike) -> set[int]:
    """Places of `texts` that nearly repeat one of `others`, whatever their case, punctuation and white space."""
    if not texts or not others:
        return set()
    ours, theirs = _Features.of(texts, alike.words), _Features.of(others, alike.words)
    weights = _weights(ours, theirs)
    index = _Index(_signatures(theirs, 0, len(others)))
    found: set[int] = set()
    for start in range(0, len(texts), _AT_ONCE):
        signatures = _signatures(ours, start, min(start + _AT_ONCE, len(texts)))
        for row, other in index.candidates(signatures):
            mine = start + row
            if mine not in found and _are_alike(ours.row(mine), theirs.row(other), weights, alike):
                found.add(mine)
    return found


@dataclass(frozen=True, slots=True)
class _Features:
    """Of many texts, hashed: each has one or more, none twice."""

    values: NDArray[np.uint32]  # one text after the other
    starts: NDArray[np.int64]  # (texts + 1,)

    @classmethod
    def of(cls, texts: Sequence[str], words: int) -> _Features:
        known: dict[str, int] = {}
        rows = [_hashed(text, words, known) for text in texts]
        starts = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
        return cls(np.concatenate(rows), starts)

    def row(self, number: int) -> NDArray[np.uint32]:
        return self.values[self.starts[number] : self.starts[number + 1]]


def _hashed(text: str, words: int, known: dict[str, int]) -> NDArray[np.uint32]:
    hashes = []
    for word in _words(normalised(text)) or [text]:
        if (number := known.get(word)) is None:
            number = known[word] = zlib.crc32(word.encode())
        hashes.append(number)
    single = np.array(hashes, dtype=np.uint64)
    if words == 2 and len(single) > 1:
        single = single[:-1] * np.uint64(0x9E3779B97F4A7C15) + single[1:] * np.uint64(0xC2B2AE3D27D4EB4F)
        single >>= np.uint64(32)
    return np.unique(single.astype(np.uint32))


def _words(text: str) -> list[str]:
    found = _WORD.findall(text)
    if not _UNSPACED_RUN.search(text):
        return found
    return [part for word in found for part in (words_of(word) if _UNSPACED_RUN.match(word) else (word,))]


def _weights(*sides: _Features) -> NDArray[np.float32]:
    """By the upper bits of a feature: the rarer among all texts, the heavier."""
    shift = np.uint32(32 - _TABLE_BITS)
    counts = sum(np.bincount(side.values >> shift, minlength=1 << _TABLE_BITS) for side in sides)
    texts = sum(len(side.starts) - 1 for side in sides)
    return (np.log(texts / np.clip(counts, _RARE, texts)) + _LEAST_WEIGHT).astype(np.float32)


def _weight(features: NDArray[np.uint32], weights: NDArray[np.float32]) -> float:
    return float(weights[features >> np.uint32(32 - _TABLE_BITS)].sum())


def _are_alike(one: NDArray[np.uint32], other: NDArray[np.uint32], weights: NDArray[np.float32], alike: Alike) -> bool:
    shared = _weight(np.intersect1d(one, other, assume_unique=True), weights)
    return shared >= alike.share * (_weight(one, weights) + _weight(other, weights) - shared)


def _signatures(features: _Features, start: int, stop: int) -> NDArray[np.uint32]:
    """(stop - start, 2 * _BANDS): of each text the least value of its features under each hash function."""
    factors, addends = np.random.default_rng(_SEED).integers(0, 1 << 64, (2, 2 * _BANDS), dtype=np.uint64)
    first = features.starts[start]
    values = features.values[first : features.starts[stop]].astype(np.uint64)
    places = features.starts[start:stop] - first
    found = np.empty((stop - start, 2 * _BANDS), dtype=np.uint32)
    for row, (factor, addend) in enumerate(zip(factors | np.uint64(1), addends, strict=True)):
        found[:, row] = np.minimum.reduceat((values * factor + addend) >> np.uint64(32), places)
    return found


class _Index:
    """Texts by the bands of their signatures."""

    def __init__(self, signatures: NDArray[np.uint32]) -> None:
        self._signatures = signatures
        keys = _bands(signatures)
        self._order = np.argsort(keys, axis=0, kind="stable")
        self._keys = np.take_along_axis(keys, self._order, axis=0)

    def candidates(self, signatures: NDArray[np.uint32]) -> Iterator[tuple[int, int]]:
        """(row of `signatures`, row of the index) that may be alike: at most `_OF_A_TEXT` a row, best first."""
        total = len(self._signatures)
        keys = _bands(signatures)
        met = np.concatenate([self._met(band, keys[:, band]) for band in range(_BANDS)])
        pairs, times = np.unique(met, return_counts=True)
        rows, others = np.divmod(pairs, total)
        best = np.lexsort((others, -times, rows))
        rows, others = rows[best], others[best]
        rank = np.arange(len(rows)) - np.searchsorted(rows, rows)
        rows, others = rows[rank < _OF_A_TEXT], others[rank < _OF_A_TEXT]
        likely = (signatures[rows] == self._signatures[others]).mean(axis=1) >= _LEAST_ESTIMATE
        yield from zip(rows[likely].tolist(), others[likely].tolist(), strict=True)

    def _met(self, band: int, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """row * (texts of the index) + text, of all that have the same key in the band.

        Of a crowded bucket a run of `_OF_A_BUCKET` is taken, another one for each row and band: those that a text
        meets by chance then differ from band to band, and the one that it nearly repeats comes again and again.
        """
        ordered = self._keys[:, band]
        left = np.searchsorted(ordered, keys, side="left")
        size = np.searchsorted(ordered, keys, side="right") - left
        taken = np.minimum(size, _OF_A_BUCKET)
        rows = np.arange(len(keys))
        left = left + (rows * 7919 + band * 104729) % (size - taken + 1)
        within = np.arange(taken.sum()) - np.repeat(np.cumsum(taken) - taken, taken)
        texts = self._order[np.repeat(left, taken) + within, band]
        return np.asarray(np.repeat(rows, taken) * len(self._signatures) + texts, dtype=np.int64)


def _bands(signatures: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """(texts, _BANDS): two rows of a signature make one key."""
    wide = signatures.astype(np.uint64)
    return np.asarray(wide[:, 0::2] << np.uint64(32) | wide[:, 1::2], dtype=np.uint64)
