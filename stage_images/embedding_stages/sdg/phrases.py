"""Phrases of one to three words, and in how many passages of the corpus each stands. Pure.

Memory is bounded, however large the corpus: see `PhraseCounts`.
"""

from __future__ import annotations

import string
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from embedding_stages.sdg.lexicon import KEPT_WORDS, REPORTING, STOP_WORDS, UNSPACED
from embedding_stages.sdg.passages import UnitPassage
from embedding_stages.sdg.units import Kind, Unit

LONGEST: Final = 3  # words of a phrase
_SHORTEST_WORD: Final = 4  # letters of a word that is a phrase by itself
_LINKS: Final = frozenset(
    {"of", "for", "in", "to", "on", "by", "with", "from", "and"}
)  # within a phrase of three words
_QUOTES: Final = "“”‘’«»‹›„…–—¿¡·•।॥،؟؛"
_EDGES: Final = string.punctuation.replace("+", "").replace("#", "") + _QUOTES  # "C++" is not "C"
_INSIDE: Final = frozenset(string.punctuation + _QUOTES) - frozenset("-_'.+#/’")
_SEEN_BITS: Final = 2**27  # 16 MiB
_MOST_COUNTED: Final = 1_000_000
_DROPPED_AT_ONCE: Final = 4  # one in so many at least


def runs_of(text: str) -> list[list[str]]:
    """The words of a text in runs of neighbours, as they are written: a mark, a number or a formula ends a run.

    A word of a script without spaces is a sentence, and therefore none.
    """
    runs: list[list[str]] = [[]]
    for part in text.split():
        word = bare(part)
        if not _is_word(word):
            runs.append([])
            continue
        if part[0] != word[0]:
            runs.append([])
        runs[-1].append(word)
        if part[-1] != word[-1]:
            runs.append([])
    return [run for run in runs if run]


@lru_cache(KEPT_WORDS)
def bare(part: str) -> str:
    """A part of a text between spaces without the marks around it."""
    return part.strip(_EDGES)


@lru_cache(KEPT_WORDS)
def _is_word(word: str) -> bool:
    if word.isalpha() and word.isascii():
        return True
    return any(map(str.isalpha, word)) and _INSIDE.isdisjoint(word) and "//" not in word and not UNSPACED.search(word)


def prose_runs(units: Iterable[Unit]) -> list[list[str]]:
    """The runs of a passage's sentences and headings."""
    return [run for unit in units if unit.kind in (Kind.SENTENCE, Kind.HEADING) for run in runs_of(settled(unit.text))]


def settled(text: str) -> str:
    """A text that is in capitals throughout in small letters: its words are no names."""
    return text.lower() if text.isupper() else text


@lru_cache(KEPT_WORDS)
def can_be_edge(word: str) -> bool:
    """Whether a phrase may begin or end with a word in lower case; English words alone are known here."""
    return len(word) > 1 and word not in STOP_WORDS and word not in REPORTING and not word[0].isdigit()


def phrases_of(run: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """The phrases of a run, in lower case, some of them several times."""
    words = [word.lower() for word in run]
    edges = [can_be_edge(word) for word in words]
    for start, word in enumerate(words):
        if not edges[start]:
            continue
        if len(word) >= _SHORTEST_WORD:
            yield (word,)
        if edges[start + 1 : start + 2] == [True]:
            yield (word, words[start + 1])
        if edges[start + 2 : start + 3] == [True]:
            middle = words[start + 1]
            if edges[start + 1] or middle in _LINKS or (len(middle) == 1 and middle not in STOP_WORDS):
                yield (word, middle, words[start + 2])


@dataclass(slots=True)
class PhraseCounts:
    """In how many passages a phrase stands, for the phrases of more than one.

    A phrase that is seen for the first time, as most are only once, costs a bit in a table of `_SEEN_BITS`. It is
    counted from the second time, in a dictionary of at most `most` phrases and those of one passage, about 150 bytes
    each. When that is full, the rarest quarter or more is dropped and begins anew when it is seen again. So memory
    ends below 200 MB, which corpora of some 100 000 passages reach; in larger ones, a phrase must be more frequent to
    be known. Where two phrases share a bit, one of them is counted one passage too high.
    """

    most: int = _MOST_COUNTED
    _seen: bytearray = field(default_factory=lambda: bytearray(_SEEN_BITS // 8))
    _counts: Counter[str] = field(default_factory=Counter)

    def __getitem__(self, phrase: Sequence[str]) -> int:
        """The number of passages that hold a phrase, 1 for all that stand in fewer than two."""
        return self._counts.get(" ".join(phrase), 1)

    def __len__(self) -> int:
        return len(self._counts)

    def add(self, passages: Iterable[UnitPassage]) -> None:
        for passage in passages:
            # Each phrase once and in the passage's order, because phrases that share a bit are told apart by it.
            for phrase in dict.fromkeys(
                " ".join(words) for run in prose_runs(passage.units) for words in phrases_of(run)
            ):
                self._count(phrase)
            if len(self._counts) > self.most:
                self._drop_rarest()

    def _count(self, phrase: str) -> None:
        if phrase in self._counts:
            self._counts[phrase] += 1
            return
        place, bit = divmod(zlib.crc32(phrase.encode()) % _SEEN_BITS, 8)
        if self._seen[place] & (1 << bit):
            self._counts[phrase] = 2
        self._seen[place] |= 1 << bit

    def _drop_rarest(self) -> None:
        having = Counter(self._counts.values())
        least, dropped = 0, 0
        for number in sorted(having):
            least, dropped = number, dropped + having[number]
            if dropped * _DROPPED_AT_ONCE >= len(self._counts):
                break
        self._counts = Counter({phrase: count for phrase, count in self._counts.items() if count > least})
