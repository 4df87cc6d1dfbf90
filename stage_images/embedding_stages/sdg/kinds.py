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
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Final

from embedding_stages.sdg.extractive import Statistics
from embedding_stages.sdg.lexicon import is_adverb, is_unspaced, stem, words
from embedding_stages.sdg.phrases import bare, can_be_edge
from embedding_stages.sdg.reading import LEAST_CONTENT, Counted, Reading

_WHOLE_TITLE: Final = 14  # words
_TITLE: Final = (6, 12)
_WHOLE_UNSPACED: Final = 40  # characters
_LONGEST_UNSPACED: Final = 80

_EXCERPT: Final = (8, 16)
_CONTENT_LEFT_OUT: Final = 1 / 3
_FUNCTION_LEFT_OUT: Final = 0.1

_TERMS: Final = (3, 6)
_LEAST_TERM: Final = 3  # letters
_NOISE: Final = 0.5  # the least that chance makes of a word's weight

_PHRASES: Final = (2, 2, 3)
_JOINS: Final = ("in", "of", "and", "by", "for", "with", "")
_OPENINGS: Final = (  # and what follows the first phrase
    ("the effect of", "on"), ("use of", "in"), ("measurement of", "in"), ("methods for", "in"),
    ("the relationship of", "and"), ("what is known about", "in"),
)  # fmt: skip
_WITH_OPENING: Final = 0.4

_PAUSE: Final = re.compile(r"(?<=[，、；：。！？…\s])")


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
    return " ".join(kept) if reading.content(kept) > LEAST_CONTENT else ""


def write_terms(reading: Reading, counted: Counted, random: Random) -> str:
    """The most telling words: their rarity, times 1 + ln count, times a number from 0.5 to 1 by chance."""
    counts = Counter(reading.words)
    stems: dict[str, str] = {}
    for word in counts:
        lower = word.lower()
        if len(word) >= _LEAST_TERM and _can_be_term(lower) and lower not in reading.function_words:
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


def _short(text: str, reading: Reading, random: Random) -> str:
    """A title of `_WHOLE_TITLE` words at most, which does not end within a phrase such as "in the"."""
    parts = text.split()
    if len(parts) > _WHOLE_TITLE:
        number = random.randint(*_TITLE)
        while number < _WHOLE_TITLE and reading.content(parts[:number]) <= LEAST_CONTENT:
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
