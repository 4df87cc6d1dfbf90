"""Questions that need no pattern of a language: title, excerpt, terms and topic. Pure, deterministic.

- title: the opening words of a passage, or the heading above it;
- excerpt: neighbouring words of a sentence, of which some are left out;
- terms: the words that say most about a passage, in the order in which they stand;
- topic: phrases that a passage shares with a few others, as people's search queries are answered by several.

They work on text without capitals and sentence marks. Text of a script without spaces between words gives titles alone.
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from embedding_stages.sdg.extractive import Statistics
from embedding_stages.sdg.lexicon import STOP_WORDS, can_end_phrase, is_adverb, is_unspaced, stem, words
from embedding_stages.sdg.passages import UnitPassage
from embedding_stages.sdg.phrases import LONGEST, PhraseCounts, bare, can_be_edge, phrases_of, prose_runs, runs_of
from embedding_stages.sdg.rules import Subject, is_name, without_marks
from embedding_stages.sdg.units import Kind, Unit

_ENGLISH: Final = 0.15  # least share of English function words; German has about 0.05 of them
_FUNCTION_WORD: Final = 0.1  # share of passages above which a word of another language counts as one
_FEW_PASSAGES: Final = 3
_SHORT: Final = 3  # letters; as short are function words of most languages
_LEAST_CONTENT: Final = 2  # words of a question

_WHOLE_TITLE: Final = 14  # words
_TITLE: Final = (6, 12)
_WHOLE_UNSPACED: Final = 40  # characters
_LONGEST_UNSPACED: Final = 80
_LEAST_UNSPACED: Final = 4

_LEAST_SENTENCE: Final = 6  # words
_COLUMNS: Final = 2  # marks between the cells of a table
_MOST_ODD: Final = 0.3  # share of a sentence's parts
_SYMBOLS: Final = frozenset(string.punctuation + string.digits)
_EXCERPT: Final = (8, 16)
_CONTENT_LEFT_OUT: Final = 1 / 3
_FUNCTION_LEFT_OUT: Final = 0.1

_TERMS: Final = (3, 6)
_NOISE: Final = 0.5  # the least that chance makes of a word's weight

_PHRASES: Final = (2, 2, 3)
_JOINS: Final = ("in", "of", "and", "by", "for", "with", "")
_OPENINGS: Final = (  # and what follows the first phrase
    ("the effect of", "on"), ("use of", "in"), ("measurement of", "in"), ("methods for", "in"),
    ("the relationship of", "and"), ("what is known about", "in"),
)  # fmt: skip
_WITH_OPENING: Final = 0.4

# A stop ends a sentence before a small letter too, where the word before it is no abbreviation of one or two letters.
_STOP: Final = re.compile(r"\s+[,.!?]*[.!?]\s+|(?<=\w{3})[,.!?]*[.!?]\s+|[।॥؟]\s+")
_PAUSE: Final = re.compile(r"(?<=[，、；：。！？…\s])")


@dataclass(frozen=True, slots=True)
class Counted:
    """What is known about the whole corpus."""

    statistics: Statistics
    phrases: PhraseCounts


@dataclass(frozen=True, slots=True)
class Reading:
    """A passage as its kinds of questions see it."""

    opening: tuple[str, ...]  # headings and the first sentence, best first
    sentences: tuple[str, ...] = ()  # of six words or more
    words: tuple[str, ...] = ()  # names of signatures and all words of the text, as they are shown
    shared: tuple[str, ...] = ()  # phrases that a few other passages have too
    is_english: bool = False
    function_words: frozenset[str] = frozenset()  # of this passage, in lower case

    @classmethod
    def of(cls, passage: UnitPassage, counted: Counted) -> Reading:
        statistics = counted.statistics
        units = [unit for unit in passage.units if not statistics.is_repeated(unit.text)]
        sentences = tuple(part for unit in units if unit.kind is Kind.SENTENCE for part in _sentences(unit.text))
        opening = _opening(passage, units, sentences, statistics)
        if is_unspaced(" ".join(unit.text for unit in passage.units)):
            return cls(opening)
        runs = prose_runs(units)
        is_english, function_words = _function_words(runs, statistics)
        names = [Subject.of(unit).name for unit in units if unit.kind is Kind.SIGNATURE]
        return cls(
            opening,
            tuple(sentence for sentence in sentences if len(sentence.split()) >= _LEAST_SENTENCE),
            tuple(_shown(word) for run in (filter(None, names), *runs) for word in run),
            _shared_phrases(runs, counted, function_words, is_english=is_english),
            is_english,
            function_words,
        )

    def says_enough(self, question: str) -> bool:
        """Whether a question has two content words; of a script without spaces, four letters."""
        if is_unspaced(question):
            return sum(map(str.isalnum, question)) >= _LEAST_UNSPACED
        return self.content(question.split()) >= _LEAST_CONTENT

    def content(self, parts: Iterable[str]) -> int:
        """How many words of a text carry meaning."""
        found = {word.lower() for run in runs_of(" ".join(parts)) for word in run if len(word) > 1}
        return len(found - self.function_words - STOP_WORDS)


Write = Callable[[Reading, Counted, Random], str]  # an empty text where a passage gives nothing


def write_title(reading: Reading, _counted: Counted, random: Random) -> str:
    for text in reading.opening:
        title = _short_unspaced(text) if is_unspaced(text) else _short(text, reading, random)
        if reading.says_enough(title):
            return title
    return ""


def write_excerpt(reading: Reading, _counted: Counted, random: Random) -> str:
    if not reading.sentences:
        return ""
    parts = random.choice(reading.sentences).split()
    number = random.randint(*_EXCERPT)
    start = random.randrange(max(1, len(parts) - number + 1))
    parts = [bare(part) for part in parts[start : start + number]]

    def stays(part: str) -> bool:
        left_out = _FUNCTION_LEFT_OUT if part.lower() in reading.function_words else _CONTENT_LEFT_OUT
        return random.random() >= left_out

    kept = _without_loose_ends([part for part in parts if part and stays(part)], reading.function_words)
    return " ".join(kept) if reading.content(kept) > _LEAST_CONTENT else ""


def write_terms(reading: Reading, counted: Counted, random: Random) -> str:
    """The most telling words: their rarity, times 1 + ln count, times a number from 0.5 to 1 by chance."""
    counts = Counter(reading.words)
    stems: dict[str, str] = {}
    for word in counts:
        lower = word.lower()
        if len(word) >= _SHORT and _can_be_term(lower) and lower not in reading.function_words:
            stems.setdefault(stem(lower), word)
    weights = {
        word: _rarity(word, counted.statistics) * (1 + math.log(counts[word])) * random.uniform(_NOISE, 1)
        for word in stems.values()
    }
    least, most = _TERMS
    best = sorted(weights, key=lambda word: (-weights[word], word))[: random.randint(least, most)]
    return " ".join(word for word in weights if word in best) if len(best) >= least else ""


def write_topic(reading: Reading, _counted: Counted, random: Random) -> str:
    """Two or three phrases that have no word in common, one of them of several words where there is one."""
    phrases = [random.choice([phrase for phrase in reading.shared if " " in phrase] or reading.shared or ("",))]
    taken = set(map(stem, phrases[0].split()))
    wanted = random.choice(_PHRASES)
    # Several words are preferred, because a single one is often part of something else.
    for phrase in sorted(reading.shared, key=lambda phrase: random.random() ** (1 + phrase.count(" "))):
        if len(phrases) == wanted:
            break
        stems = set(map(stem, phrase.split()))
        if taken.isdisjoint(stems):
            phrases.append(phrase)
            taken |= stems
    if len(phrases) < min(_PHRASES):
        return ""
    random.shuffle(phrases)
    return _joined(phrases, random, english=reading.is_english)


WRITERS: Final[Mapping[str, Write]] = {
    "title": write_title,
    "excerpt": write_excerpt,
    "terms": write_terms,
    "topic": write_topic,
}


def _sentences(text: str) -> list[str]:
    """The sentences of a unit that read as text."""
    parts = (without_marks(part) for part in _STOP.split(text)) if text.count(" | ") < _COLUMNS else ()
    return [part for part in parts if part and _reads_as_text(part)]


def _reads_as_text(sentence: str) -> bool:
    """Whether few parts are symbols, numbers or names: no table, formula or listing."""
    parts = sentence.split()
    odd = sum(2 * sum(map(_SYMBOLS.__contains__, part)) > len(part) or is_name(bare(part)) for part in parts)
    return odd <= _MOST_ODD * len(parts)


def _opening(
    passage: UnitPassage, units: Sequence[Unit], sentences: Sequence[str], statistics: Statistics
) -> tuple[str, ...]:
    """A heading that begins the passage, else its first sentence, else the heading far above."""
    headings = [without_marks(unit.text) for unit in units[:1] if unit.kind is Kind.HEADING]
    above = passage.units[0].heading if passage.units else ""
    far = [] if statistics.is_repeated(above) else [without_marks(above)]
    return tuple(text for text in [*headings, *sentences[:1], *far] if text)


def _function_words(runs: Sequence[Sequence[str]], statistics: Statistics) -> tuple[bool, frozenset[str]]:
    """Whether a passage is English, and its words that carry no meaning: of an English passage those of the list, of
    another one the short and those that stand in many passages of the corpus.
    """
    found = Counter(word.lower() for run in runs for word in run)
    listed = frozenset(found) & STOP_WORDS
    if sum(found[word] for word in listed) >= _ENGLISH * found.total():
        return True, listed
    most = max(_FEW_PASSAGES, _FUNCTION_WORD * statistics.passages)
    return False, frozenset(
        word for word in found if len(word) <= _SHORT or statistics.passages_with[stem(word)] > most
    )


def _short(text: str, reading: Reading, random: Random) -> str:
    """A title of `_WHOLE_TITLE` words at most, which does not end within a phrase such as "in the"."""
    parts = text.split()
    if len(parts) > _WHOLE_TITLE:
        number = random.randint(*_TITLE)
        while number < _WHOLE_TITLE and reading.content(parts[:number]) <= _LEAST_CONTENT:
            number += 1
        parts = parts[:number]
        while parts and parts[-1].lower() in reading.function_words:
            parts.pop()
    return " ".join(parts).strip(" ,;:")


def _without_loose_ends(parts: Sequence[str], function_words: frozenset[str]) -> Sequence[str]:
    """From the first to the last word that carries meaning."""
    telling = [place for place, part in enumerate(parts) if part.lower() not in function_words]
    return parts[telling[0] : telling[-1] + 1] if telling else ()


def _short_unspaced(text: str) -> str:
    """The first clause of a text and those that fit behind it; nothing where the first is too long."""
    title = ""
    for clause in _PAUSE.split(text):
        if title and len(title) + len(clause) > _WHOLE_UNSPACED:
            break
        title += clause
    return title.rstrip("，、；：。！？… ") if len(title) <= _LONGEST_UNSPACED else ""


def _rarity(word: str, statistics: Statistics) -> float:
    """Of the rarest part of a name such as `get_nowait`; a little for words that all passages hold."""
    return max([statistics.rarity(part) for part in words(word)] + [0.1])


def _can_be_term(word: str) -> bool:
    return can_be_edge(word) and not is_adverb(word)


def _shared_phrases(
    runs: Iterable[Sequence[str]], counted: Counted, function_words: frozenset[str], *, is_english: bool
) -> tuple[str, ...]:
    """Phrases that a passage shares with a few others: several words with 2 to a twentieth of all passages, one word
    with 3 to a fiftieth, and with 8 passages in small corpora.
    """
    passages = counted.statistics.passages
    several, one = (2, max(8, passages // 20)), (_FEW_PASSAGES, max(8, passages // 50))
    found: dict[str, tuple[str, int]] = {}
    within: dict[str, int] = {}  # phrase -> the most passages that share a longer one around it
    for run in runs:
        shown = {word.lower(): _shown(word) for word in run}
        for phrase in phrases_of(run):
            count = counted.phrases[phrase]
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


def _joined(phrases: list[str], random: Random, *, english: bool) -> str:
    """The phrases with English words between them; those of another language beside each other."""
    if not english:
        return " ".join(phrases)
    opening, join = "", random.choice(_JOINS)
    if random.random() < _WITH_OPENING:
        opening, join = random.choice(_OPENINGS)
    parts = [opening, phrases[0]]
    for number, phrase in enumerate(phrases[1:]):
        parts += [join if number == 0 else random.choice(_JOINS[:-1]), phrase]
    return " ".join(part for part in parts if part)
