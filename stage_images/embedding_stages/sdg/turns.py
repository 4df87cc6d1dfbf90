"""Several kinds of questions about one document, which take turns. Pure."""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from random import Random
from typing import Final

from embedding_stages.contract.settings import QUESTION_KINDS
from embedding_stages.formats.pairs import Pair, normalised
from embedding_stages.sdg.extractive import Candidate, candidates_of
from embedding_stages.sdg.kinds import WRITERS
from embedding_stages.sdg.passages import UnitPassage
from embedding_stages.sdg.reading import Counted, Reading

RULES: Final = QUESTION_KINDS[0]
# One turn with all kinds: two topics and two titles for one of each other kind. docs/quality.md has what each adds.
_TURN: Final = ("topic", "title", "rules", "topic", "excerpt", "title", "terms")
_INSTEAD: Final = {"topic": "terms"}  # where a document has none, asked for or not
_TRIES: Final = 3  # for a question that was not asked yet
_SPARE: Final = 2  # one candidate more for so many wanted questions, because some turn out to be duplicates


def turn_of(kinds: Iterable[str]) -> tuple[str, ...]:
    """The kinds asked for, in the order of one turn, some of them twice."""
    asked = set(kinds)
    return tuple(kind for kind in _TURN if kind in asked)


def kind_of(pair_type: str) -> str:
    """The kind of question that a pair's type belongs to."""
    return pair_type if pair_type in WRITERS else RULES


def count_kinds(pairs: Iterable[Pair]) -> dict[str, int]:
    """How many pairs are of each kind; kinds without one are left out."""
    counts = Counter(kind_of(pair.type) for pair in pairs)
    return {kind: counts[kind] for kind in QUESTION_KINDS if counts[kind]}


def candidates_in_turns(
    passages: Sequence[UnitPassage], counted: Counted, kinds: Iterable[str], *, wanted: int, seed: int
) -> list[Candidate]:
    """Questions of one document in the order in which they are asked, half as many again as wanted.

    The turn starts at another place for each document, so that the shares of the kinds hold over the corpus where few
    questions a document are wanted. A kind that finds nothing more leaves its place to the next one.
    """
    if not passages:
        return []
    turn = turn_of(kinds)
    start = _number(seed, passages[0].document_id)
    asking = _Document(passages, counted, start=start, wanted=wanted, seed=seed)
    found: list[Candidate] = []
    for place in range(start, start + wanted + -(-wanted // _SPARE)):
        candidate = asking.first_of([turn[(place + later) % len(turn)] for later in range(len(turn))])
        if candidate is None:
            break
        found.append(candidate)
    return found


class _Document:
    """Asks about the passages of a document, for each kind in turn, until they give nothing more."""

    def __init__(
        self, passages: Sequence[UnitPassage], counted: Counted, *, start: int, wanted: int, seed: int
    ) -> None:
        self._passages, self._counted, self._seed = passages, counted, seed
        self._wanted = wanted
        self._asked: set[str] = set()
        self._attempts: Counter[tuple[str, str]] = Counter()
        self._readings: dict[int, Reading] = {}
        self._by_rules: deque[Candidate] | None = None
        self._open: dict[str, deque[int]] = {}
        for number, kind in enumerate(WRITERS):
            self._open[kind] = deque(range(len(passages)))
            if kind != "title":  # the first passage's is the document's
                self._open[kind].rotate(-((start + number) % len(passages)))

    def first_of(self, kinds: Sequence[str]) -> Candidate | None:
        """A question of the first kind that still gives one."""
        for kind in dict.fromkeys(name for asked in kinds for name in (asked, _INSTEAD.get(asked, asked))):
            candidate = self._next_by_rules() if kind == RULES else self._next(kind)
            if candidate is not None:
                return candidate
        return None

    def _next_by_rules(self) -> Candidate | None:
        if self._by_rules is None:
            statistics = self._counted.statistics
            self._by_rules = deque(candidates_of(self._passages, statistics, wanted=self._wanted, seed=self._seed))
        while self._by_rules:
            candidate = self._by_rules.popleft()
            if self._is_new(candidate.question):
                return candidate
        return None

    def _next(self, kind: str) -> Candidate | None:
        """Of the passage whose turn it is. A passage that gives nothing is not asked again; its title is asked once."""
        places = self._open[kind]
        while places:
            place = places.popleft()
            question = self._write(kind, place)
            if question:
                if kind != "title":
                    places.append(place)
                passage = self._passages[place]
                return Candidate(question, kind, passage.id, passage.document_id, rank=0.0)
        return None

    def _write(self, kind: str, place: int) -> str:
        passage = self._passages[place]
        reading = self._readings.get(place)
        if reading is None:
            reading = self._readings[place] = Reading(passage, self._counted)
        for _ in range(_TRIES):
            self._attempts[kind, passage.id] += 1
            number = _number(self._seed, passage.id, kind, self._attempts[kind, passage.id])
            question = WRITERS[kind](reading, self._counted, Random(number))  # noqa: S311 - not a secret
            if reading.says_enough(question) and self._is_new(question):
                return question
        return ""

    def _is_new(self, question: str) -> bool:
        """Whether no other order of the same words was asked."""
        key = " ".join(sorted(normalised(question).split()))
        is_new = key not in self._asked
        self._asked.add(key)
        return is_new


def _number(*parts: object) -> int:
    return int.from_bytes(hashlib.blake2b(" ".join(map(str, parts)).encode(), digest_size=8).digest(), "big")
