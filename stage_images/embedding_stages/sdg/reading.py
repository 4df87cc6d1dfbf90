"""A passage as questions about it need it: its opening, its sentences, its words and its phrases. Pure."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from embedding_stages.sdg.extractive import Statistics
from embedding_stages.sdg.lexicon import STOP_WORDS, can_end_phrase, is_adverb, is_unspaced
from embedding_stages.sdg.passages import UnitPassage
from embedding_stages.sdg.phrases import LONGEST, PhraseCounts, bare, phrases_of, prose_runs, runs_of, settled
from embedding_stages.sdg.rules import Subject, is_name, without_marks
from embedding_stages.sdg.units import Kind, Unit

_ENGLISH: Final = 0.15  # least share of English function words; German has about 0.05 of them
_FUNCTION_WORD: Final = 0.1  # share of passages above which a word of another language counts as one
_FEW_PASSAGES: Final = 3
_SHORT: Final = 3  # letters; as short are function words of most languages
_LEAST_UNSPACED: Final = 4  # letters of a question in a script without spaces
LEAST_CONTENT: Final = 2  # words of a question
_LEAST_SENTENCE: Final = 6  # words
_COLUMNS: Final = 2  # marks between the cells of a table
_MOST_ODD: Final = 0.3  # share of a sentence's parts
_SYMBOLS: Final = frozenset(string.punctuation + string.digits)
# A stop ends a sentence before a small letter too, where the word before it is no abbreviation of one or two letters.
_STOP: Final = re.compile(r"\s+[,.!?]*[.!?]\s+|(?<=\w{3})[,.!?]*[.!?]\s+")


@dataclass(frozen=True, slots=True)
class Counted:
    """What is known about the whole corpus."""

    statistics: Statistics
    phrases: PhraseCounts | None = None  # where topics are asked for


class Reading:
    """A passage as its kinds of questions see it; what one kind alone looks at is found when it does."""

    def __init__(self, passage: UnitPassage, counted: Counted) -> None:
        statistics = counted.statistics
        self._counted = counted
        self._units = [unit for unit in passage.units if not statistics.is_repeated(unit.text)]
        first = next(self._all_sentences(), "")
        self.opening = _opening(passage, self._units, first, statistics)  # headings and the first sentence, best first
        prose = " ".join(unit.text for unit in self._units if unit.kind in (Kind.SENTENCE, Kind.HEADING))
        self._is_unspaced = is_unspaced(prose)  # such a passage has an opening, and no words
        self._runs = [] if self._is_unspaced else prose_runs(self._units)
        self.is_english, self.function_words = False, frozenset[str]()  # of this passage, in lower case
        if not self._is_unspaced:
            self.is_english, self.function_words = _function_words(self._runs, statistics)

    @cached_property
    def sentences(self) -> tuple[str, ...]:
        """Those of six words or more."""
        if self._is_unspaced:
            return ()
        return tuple(sentence for sentence in self._all_sentences() if len(sentence.split()) >= _LEAST_SENTENCE)

    @cached_property
    def words(self) -> tuple[str, ...]:
        """Names of signatures and all words of the text, as they are shown."""
        if self._is_unspaced:
            return ()
        names = [Subject.of(unit).name for unit in self._units if unit.kind is Kind.SIGNATURE]
        return tuple(_shown(word) for run in (filter(None, names), *self._runs) for word in run)

    @cached_property
    def shared(self) -> tuple[str, ...]:
        """Phrases that a few other passages have too."""
        phrases, passages = self._counted.phrases, self._counted.statistics.passages
        return _shared_phrases(self._runs, phrases, passages, self.function_words, is_english=self.is_english)

    def _all_sentences(self) -> Iterator[str]:
        return (part for unit in self._units if unit.kind is Kind.SENTENCE for part in _sentences(unit.text))

    def says_enough(self, question: str) -> bool:
        """Whether a question has two content words; of a script without spaces, four letters."""
        if is_unspaced(question):
            return sum(map(str.isalnum, question)) >= _LEAST_UNSPACED
        return self.content(question.split()) >= LEAST_CONTENT

    def content(self, parts: Iterable[str]) -> int:
        """How many words of a text carry meaning."""
        found = {word.lower() for run in runs_of(" ".join(parts)) for word in run if len(word) > 1}
        return len(found - self.function_words - STOP_WORDS)


def _sentences(text: str) -> Iterator[str]:
    """The sentences of a unit that read as text."""
    parts = (without_marks(part) for part in _STOP.split(settled(text))) if text.count(" | ") < _COLUMNS else ()
    return (part for part in parts if part and _reads_as_text(part))


def _reads_as_text(sentence: str) -> bool:
    """Whether few parts are symbols, numbers or names: no table, formula or listing."""
    parts = sentence.split()
    odd = sum(2 * sum(map(_SYMBOLS.__contains__, part)) > len(part) or is_name(bare(part)) for part in parts)
    return odd <= _MOST_ODD * len(parts)


def _opening(passage: UnitPassage, units: Sequence[Unit], sentence: str, statistics: Statistics) -> tuple[str, ...]:
    """A heading that begins the passage, else its first sentence, else the heading far above."""
    headings = [without_marks(unit.text) for unit in units[:1] if unit.kind is Kind.HEADING]
    above = passage.units[0].heading if passage.units else ""
    far = [] if statistics.is_repeated(above) else [without_marks(above)]
    return tuple(text for text in [*headings, sentence, *far] if text)


def _function_words(runs: Sequence[Sequence[str]], statistics: Statistics) -> tuple[bool, frozenset[str]]:
    """Whether a passage is English, and its words that carry no meaning: of an English passage those of the list, of
    another one the short and those that stand in many passages of the corpus.
    """
    found = Counter(word.lower() for run in runs for word in run)
    listed = frozenset(found) & STOP_WORDS
    if sum(found[word] for word in listed) >= _ENGLISH * found.total():
        return True, listed
    most = max(_FEW_PASSAGES, _FUNCTION_WORD * statistics.passages)
    return False, frozenset(word for word in found if len(word) <= _SHORT or statistics.passages_holding(word) > most)


def _shared_phrases(
    runs: Iterable[Sequence[str]],
    counts: PhraseCounts | None,
    passages: int,
    function_words: frozenset[str],
    *,
    is_english: bool,
) -> tuple[str, ...]:
    """Phrases that a passage shares with a few others: several words with 2 to a twentieth of all passages, one word
    with 3 to a fiftieth, and with 8 passages in small corpora.
    """
    if counts is None:
        return ()
    several, one = (2, max(8, passages // 20)), (_FEW_PASSAGES, max(8, passages // 50))
    found: dict[str, tuple[str, int]] = {}
    within: dict[str, int] = {}  # phrase -> the most passages that share a longer one around it
    for run in runs:
        shown = {word.lower(): _shown(word) for word in run}
        for phrase in phrases_of(run):
            count = counts[phrase]
            least, most = several if len(phrase) > 1 else one
            if not least <= count <= most or not _is_whole(phrase, function_words, is_english=is_english):
                continue
            found[" ".join(phrase)] = " ".join(shown[word] for word in phrase), count
            for part in {*phrase, " ".join(phrase[:-1]), " ".join(phrase[1:])} if len(phrase) > 1 else ():
                within[part] = max(count, within.get(part, 0))
    # Where all passages that share a phrase share a longer one, the phrase is a part of something.
    return tuple(shown for phrase, (shown, count) in found.items() if within.get(phrase, 0) < count)


def _is_whole(phrase: Sequence[str], function_words: frozenset[str], *, is_english: bool) -> bool:
    """Whether a phrase stands by itself, as far as its words tell: "field of the", "electrical" and "stored in core" do
    not.
    """
    first, last = phrase[0], phrase[-1]
    if first in function_words or last in function_words:
        return False
    is_linked = len(phrase) == LONGEST and phrase[1] in function_words
    return not is_english or (
        not is_adverb(first) and can_end_phrase(last) and (not is_linked or can_end_phrase(first))
    )


def _shown(word: str) -> str:
    """As people type it: small letters, unless it is a name."""
    return word if is_name(word) else word.lower()
