"""The provider without a language model: candidates from the rules, ranked by how specific they are. Pure.

What it writes is plainer than what an LLM writes: it asks for what a sentence literally says. Words are exchanged for
others of the same meaning here and there, so that training has something to learn.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from embedding_stages.formats.characters import for_words
from embedding_stages.formats.pairs import normalised
from embedding_stages.sdg.languages import knows_rules_for, language_of, prose_of
from embedding_stages.sdg.lexicon import SYNONYMS, content_words, stem, words
from embedding_stages.sdg.passages import UnitPassage
from embedding_stages.sdg.rules import Question, Subject, questions_of
from embedding_stages.sdg.units import Kind, Unit

_RARE_WORDS = 4  # of a question that count for its rank
_LONGEST_KEYWORDS = 5
_MAX_WORDS = 24
_SPARE = 3  # candidates kept a wanted question, because some turn out to be duplicates
_MOST_EXCHANGED = 2
_RARE_ENOUGH = 3
_COMMON = 0.3  # share of passages
_KEYWORD_SHARE = 3 / 7  # of a document's questions at most


@dataclass(slots=True)
class Statistics:
    """What is counted over the whole corpus before questions are written."""

    passages: int = 0
    passages_with: Counter[str] = field(default_factory=Counter)  # stem -> passages
    sentences: Counter[bytes] = field(default_factory=Counter)  # digest -> occurrences

    def add(self, passages: Iterable[UnitPassage]) -> None:
        for passage in passages:
            self.passages += 1
            self.passages_with.update({stem(word) for word in content_words(passage.text)})
            self.sentences.update(_digest(unit.text) for unit in passage.units if unit.kind is not Kind.CODE)

    def rarity(self, word: str) -> float:
        """Natural logarithm of the inverse passage frequency, 0 for a word that is in every passage.

        Below `_RARE_ENOUGH` passages a word gains no more: a name or a typing error is no better than a rare word.
        """
        return math.log((1 + self.passages) / (1 + max(_RARE_ENOUGH, self.passages_holding(word))))

    def is_common(self, word: str) -> bool:
        """Whether so many passages hold the word that it says nothing."""
        return self.passages_holding(word) > max(_RARE_ENOUGH, _COMMON * self.passages)

    def passages_holding(self, word: str) -> int:
        """The number of passages with a form of the word, in lower case and however its joiners are written."""
        return self.passages_with[stem(for_words(word))]

    def is_repeated(self, sentence: str) -> bool:
        """Whether the sentence stands in more than one place: then no place is the answer."""
        return self.sentences[_digest(sentence)] > 1


@dataclass(frozen=True, slots=True)
class Candidate:
    """A question and the passage that answers it."""

    question: str
    type: str
    passage_id: str
    document_id: str
    rank: float


def candidates_of(
    passages: Sequence[UnitPassage], statistics: Statistics, *, wanted: int, seed: int
) -> list[Candidate]:
    """The best questions of one document, best first, up to `_SPARE` times as many as wanted.

    One question a sentence; passages and types take turns. Of a document that is not English keywords alone.
    """
    only_keywords = not knows_rules_for(language_of(prose_of(passages)).name)
    found: list[tuple[Candidate, bytes]] = []
    for passage in passages:
        signatures = {unit.text for unit in passage.units if unit.kind is Kind.SIGNATURE}
        for unit in passage.units:
            if statistics.is_repeated(unit.text):
                continue
            for question in questions_of(unit, signature_is_near=unit.signature in signatures):
                if only_keywords and question.type != "keywords":
                    continue
                candidate = _candidate(question, unit, passage, statistics, seed)
                if candidate is not None:
                    found.append((candidate, _digest(unit.text)))
    return _take_turns(found, _SPARE * wanted)


def _candidate(
    question: Question, unit: Unit, passage: UnitPassage, statistics: Statistics, seed: int
) -> Candidate | None:
    number = int.from_bytes(_digest(f"{seed} {passage.document_id} {unit.text} {question.type}"), "big")
    text = question.variants[number % len(question.variants)]
    if question.type == "keywords":
        text = _keywords(text, statistics)
    elif len(text.split()) > _MAX_WORDS or _gives_away(question, text, unit):
        return None
    text = _exchange_words(text, number // 97)
    held = {stem(word) for word in words(passage.text)}
    rarities = sorted((statistics.rarity(word) for word in content_words(text) if stem(word) in held), reverse=True)
    if len(rarities) < 2:
        return None
    rank = question.weight + sum(rarities[:_RARE_WORDS])
    return Candidate(text, question.type, passage.id, passage.document_id, rank)


def _gives_away(question: Question, text: str, unit: Unit) -> bool:
    """Whether a question about a thing's purpose names the thing."""
    name = Subject.of(unit).name if unit.signature else ""
    return question.type == "usage" and len(name) > 3 and name.lower() in text.lower().split()


def _keywords(text: str, statistics: Statistics) -> str:
    """The neighbouring words that say most: what people type into a search box."""
    ordered = [word for word in text.split(" ") if not statistics.is_common(word)]
    starts = range(max(1, len(ordered) - _LONGEST_KEYWORDS + 1))
    best = max(starts, key=lambda at: sum(map(statistics.rarity, ordered[at : at + _LONGEST_KEYWORDS])))
    return " ".join(ordered[best : best + _LONGEST_KEYWORDS])


def _exchange_words(text: str, number: int) -> str:
    """Up to two known words replaced by others of the same meaning; every fourth question stays as it is."""
    if number % 4 == 0:
        return text
    parts = text.split(" ")
    places = [place for place, part in enumerate(parts) if _synonyms(part)]
    places.sort(key=lambda place: _digest(f"{number} {place}"))
    for place in places[:_MOST_EXCHANGED]:
        choices = _synonyms(parts[place])
        parts[place] = choices[number % len(choices)] + ("?" if parts[place].endswith("?") else "")
    return " ".join(parts)


def _synonyms(part: str) -> tuple[str, ...]:
    word = part.rstrip("?")
    if word in SYNONYMS:
        return SYNONYMS[word]
    plural = SYNONYMS.get(word[:-1], ()) if word.endswith("s") else ()
    return tuple(f"{choice}s" for choice in plural if " " not in choice and not choice.endswith(("y", "s", "h")))


def _take_turns(found: list[tuple[Candidate, bytes]], most: int) -> list[Candidate]:
    """Greedy by rank, where a passage, a sentence or a type that was taken before costs."""
    chosen: list[Candidate] = []
    passages: Counter[str] = Counter()
    types: Counter[str] = Counter()
    sentences: set[bytes] = set()
    asked: set[str] = set()
    left = sorted(found, key=lambda item: (-item[0].rank, item[0].question))[: 40 * most]
    while left and len(chosen) < most:
        best = max(left, key=lambda item: item[0].rank - 4 * passages[item[0].passage_id] - types[item[0].type])
        left.remove(best)
        candidate, sentence = best
        if sentence in sentences or normalised(candidate.question) in asked:
            continue
        if candidate.type == "keywords" and types["keywords"] >= max(1, round(_KEYWORD_SHARE * most / _SPARE)):
            continue
        chosen.append(candidate)
        passages[candidate.passage_id] += 1
        types[candidate.type] += 1
        sentences.add(sentence)
        asked.add(normalised(candidate.question))
    return chosen


def drop_ambiguous(documents: Sequence[Sequence[Candidate]], wanted: int) -> tuple[list[list[Candidate]], int]:
    """The first `wanted` candidates a document whose question no other document asks; and how many were dropped."""
    asked = Counter(normalised(candidate.question) for candidates in documents for candidate in candidates)
    kept: list[list[Candidate]] = []
    dropped = 0
    for candidates in documents:
        unique = [candidate for candidate in candidates if asked[normalised(candidate.question)] == 1]
        dropped += len(candidates) - len(unique)
        kept.append(unique[:wanted])
    return kept, dropped


def _digest(text: str) -> bytes:
    return hashlib.blake2b(" ".join(text.split()).encode(), digest_size=8).digest()
