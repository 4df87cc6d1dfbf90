"""Evaluation queries that repeat nothing: a sentence is taken out of its passage and asks for what is left. Pure.

Questions that rules cut out of a passage repeat its words, and a model that was trained on such questions looks better
on them than it is. Here the words that ask are gone from the answer, so it has to be found by what it is about. Each
sentence that is taken out asks twice: as it stands, and with some of its words, as people type them into a search box.
A document's opening sentence comes first. Where words are written without spaces the words are neighbours, for nobody
knows where one ends.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from embedding_stages.formats.characters import base_letters
from embedding_stages.formats.pairs import Pair, Passage
from embedding_stages.prep.lexical import terms_of
from embedding_stages.prep.written_words import are_unspaced, as_text, is_unspaced, joined_sentences, written_words
from embedding_stages.sdg.lexicon import STOP_WORDS
from embedding_stages.sdg.sentences import split_sentences

SENTENCE: Final = "withheldSentence"
WORDS: Final = "withheldWords"
MOST: Final = 40  # queries a document, so that a long one does not outvote the others
_MOST_CHARACTERS: Final = 400  # of a sentence that asks
_SENTENCE_WORDS: Final = 12  # that a sentence asks with
_FEWEST_WORDS: Final = 5  # of a sentence that may ask
_WINDOW: Final = (6, 10)  # words taken out of a text without sentences
_LEFT: Final = 16  # words that have to be left of a passage
_ASKED: Final = (3, 5)  # of the words of a sentence
_PLAIN: Final = 0.7  # share of a sentence's words
_MARKS: Final = ".,;:!?()[]\"'`*"
_WIDE_MARKS: Final = "，。、；：？！（）「」『』《》“”"
_COMMON: Final = 0.2  # share of the passages: a word of more of them asks for nothing


@dataclass(frozen=True, slots=True)
class Withheld:
    """The queries, and the passages that they were taken out of, without them (id -> text)."""

    pairs: list[Pair]
    texts: dict[str, str]


def withhold(passages: Mapping[str, Passage], held_out: Collection[str], *, seed: int) -> Withheld:
    """Queries about documents that never train, by their ids: of at most two sentences a passage, and MOST a document.

    Short passages give none: of a passage something has to be left.
    """
    common = _Common(passages.values())
    by_document: dict[str, list[Passage]] = defaultdict(list)
    for passage in passages.values():
        if passage.document_id in held_out:
            by_document[passage.document_id].append(passage)
    found = Withheld([], {})
    for cut in by_document.values():
        most = MOST
        for number, passage in enumerate(cut):
            if most <= 0:
                break
            chance = random.Random(f"{seed} {passage.id}")  # noqa: S311 - not a secret
            taken, left = _take_out(passage.text, chance, opens=number == 0)
            asked = [(kind, sentence) for sentence in taken for kind in (SENTENCE, WORDS)]
            pairs = [pair for pair in (_pair(passage, *item, common, chance) for item in asked) if pair][:most]
            if pairs:
                found.pairs.extend(pairs)
                found.texts[passage.id] = left
                most -= len(pairs)
    return found


class _Common:
    """Words that so many passages hold that they ask for nothing."""

    def __init__(self, passages: Iterable[Passage]) -> None:
        self._passages = 0
        self._with: Counter[str] = Counter()
        for passage in passages:
            self._passages += 1
            self._with.update(set(terms_of(passage.text)))

    def telling(self, words: Sequence[str]) -> list[str]:
        """The rarer half of the words that say something and stand in other passages too, in their order."""
        weights = {word: self._passages_with(word) for word in words if self._says_something(word)}
        rarest = sorted(weights, key=lambda word: (weights[word] <= 1, weights[word]))  # misprints and names last
        kept = set(rarest[: max(_ASKED[1], len(rarest) // 2)])
        return [word for word in weights if word in kept]

    def phrase(self, words: Sequence[str], size: int) -> str:
        """The `size` neighbours that say most of what other passages say too; nothing where they say nothing."""
        places = range(max(1, len(words) - size + 1))
        phrases = [as_text(words[place : place + size]) for place in places]
        best = max(phrases, key=self._weight)
        return best.strip(_MARKS + _WIDE_MARKS) if self._weight(best) else ""

    def _weight(self, text: str) -> float:
        passages = (self._with[term] for term in set(terms_of(text)))
        return sum(1 / number for number in passages if 1 < number <= _COMMON * self._passages)

    def _says_something(self, word: str) -> bool:
        known = len(word) > 2 and word.lower() not in STOP_WORDS
        return known and self._passages_with(word) <= max(1, _COMMON * self._passages)

    def _passages_with(self, word: str) -> int:
        """Of its most frequent term."""
        return max((self._with[term] for term in terms_of(word)), default=0)


def _take_out(text: str, chance: random.Random, *, opens: bool) -> tuple[list[str], str]:
    """What is taken out, and the text that is left."""
    sentences = split_sentences(text, max_characters=_MOST_CHARACTERS)
    places = [place for place, sentence in enumerate(sentences) if _is_prose(written_words(sentence))]
    if len(places) < 3:
        return _window(written_words(text), chance)
    chosen = [places[0]] if opens else []
    rest = [place for place in places if place not in chosen]
    chosen += chance.sample(rest, min(len(rest), 2 if len(places) > 3 else 1) - len(chosen))
    left = joined_sentences(sentence for place, sentence in enumerate(sentences) if place not in chosen)
    if len(written_words(left)) < _LEFT:
        return [], text
    return [sentences[place] for place in chosen], left


def _is_prose(words: Sequence[str]) -> bool:
    """Whether a sentence can ask: enough words, and hardly any names of code, numbers and marks among them."""
    return len(words) >= _FEWEST_WORDS and sum(map(_is_plain, words)) >= _PLAIN * len(words)


def _is_plain(word: str) -> bool:
    letters = base_letters(word.strip()).strip(_MARKS).replace("-", "").replace("'", "")
    return is_unspaced(word) or letters.isalpha()


def _window(words: Sequence[str], chance: random.Random) -> tuple[list[str], str]:
    """Neighbouring words of a text in which no sentences are seen."""
    size = chance.randint(*_WINDOW)
    if len(words) < size + _LEFT:
        return [], as_text(words)
    start = chance.choice((0, chance.randrange(len(words) - size + 1)))  # the opening words say what a text is about
    return [as_text(words[start : start + size])], as_text([*words[:start], *words[start + size :]])


def _pair(passage: Passage, kind: str, sentence: str, common: _Common, chance: random.Random) -> Pair | None:
    words = written_words(sentence)
    if kind == SENTENCE:
        start = chance.randrange(len(words) - _SENTENCE_WORDS + 1) if len(words) > _SENTENCE_WORDS else 0
        query = as_text(words[start : start + _SENTENCE_WORDS])
    elif are_unspaced(words):
        query = common.phrase(words, chance.randint(*_ASKED))
    else:
        query = _some_words(words, common, chance)
    return Pair.about(passage.document_id, query, (passage.id,), kind=kind) if query else None


def _some_words(words: Sequence[str], common: _Common, chance: random.Random) -> str:
    telling = common.telling([word.strip().strip(_MARKS) for word in words])
    wanted = chance.randint(*_ASKED)
    places = sorted(chance.sample(range(len(telling)), min(wanted, len(telling))))
    return " ".join(telling[place] for place in places) if len(places) > 1 else ""
