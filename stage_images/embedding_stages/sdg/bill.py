"""What a language model costs: so far, a kept pair, and before it is asked. Pure, but for `Forecast.save` and
`load`.

Nobody knows the tokens of a document before it is asked about. Its size is known, and how many questions are wanted: a
first guess of its tokens follows from these, and what asked documents used says how far the guess is off.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from embedding_stages.contract.settings import Prices
from embedding_stages.formats.pairs import Pair
from embedding_stages.sdg.answers import Usage
from embedding_stages.sdg.written import write_json

_CHARACTERS_A_TOKEN: Final = 4
_MILLION: Final = 1e6
_DIGITS: Final = 6  # of a price


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What is known of a document before it is asked about, and what one call more costs beside its text."""

    characters: int  # of the passages that are sent
    calls: int
    pairs: int  # that are wanted
    readings: int = 2  # by the writer, and by the judge
    instructions: int = 350  # tokens of each call
    answer: int = 170  # tokens of a question, with its answer, its evidence and its score

    @property
    def prompt(self) -> float:
        return self.readings * self.characters / _CHARACTERS_A_TOKEN + self.instructions * self.calls

    @property
    def completion(self) -> float:
        return float(self.answer * self.pairs)

    @property
    def tokens(self) -> float:
        return self.prompt + self.completion


@dataclass(slots=True)
class Forecast:
    """Learns from documents that were asked about."""

    shapes: list[Shape] = field(default_factory=list)
    used: list[Usage] = field(default_factory=list)
    worst: float = field(default=0.0, init=False)  # the largest share of its first guess that one used; 0 before any

    def __post_init__(self) -> None:
        shares = (used.tokens / known.tokens for known, used in zip(self.shapes, self.used, strict=True))
        self.worst = max(shares, default=0.0)

    def learn(self, shape: Shape, usage: Usage) -> None:
        if usage.tokens:
            self.shapes.append(shape)
            self.used.append(usage)
            self.worst = max(self.worst, usage.tokens / shape.tokens)

    def save(self, path: Path) -> None:
        """For the next attempt."""
        body = [[asdict(shape), used.to_json()] for shape, used in zip(self.shapes, self.used, strict=True)]
        write_json(path, body)

    @classmethod
    def load(cls, path: Path) -> Self:
        """One that knows nothing where there is no file, or a damaged one."""
        try:
            known = [(Shape(**shape), Usage(**used)) for shape, used in json.loads(path.read_bytes())]
        except (OSError, ValueError, TypeError):
            return cls()
        return cls(shapes=[shape for shape, _ in known], used=[used for _, used in known])

    def of(self, shapes: Sequence[Shape]) -> Usage:
        """What documents are likely to use."""
        prompt = _ratio(sum(one.prompt for one in self.used), sum(one.prompt for one in self.shapes))
        completion = _ratio(sum(one.completion for one in self.used), sum(one.completion for one in self.shapes))
        calls = _ratio(sum(one.calls for one in self.used), sum(one.calls for one in self.shapes))
        return Usage(
            round(calls * sum(one.calls for one in shapes)),
            round(prompt * sum(one.prompt for one in shapes)),
            round(completion * sum(one.completion for one in shapes)),
        )

    def most_of(self, guessed: float) -> float:
        """Tokens that documents use at most, of which so many are a first guess, if none is worse than the worst so
        far.
        """
        return guessed * (self.worst or 1.0)


def _ratio(used: float, known: float) -> float:
    return used / known if used and known else 1.0


def is_kept(pair: Pair, threshold: float | None) -> bool:
    """By prep, which knows one reason not to."""
    return threshold is None or pair.score is None or pair.score >= threshold


def spread(shapes: Sequence[Shape], number: int) -> list[int]:
    """The places of `number` documents that stand for all: one from the middle of each group of equal size."""
    order = sorted(range(len(shapes)), key=lambda place: (shapes[place].tokens, place))
    number = min(number, len(order))
    return sorted(order[(2 * part + 1) * len(order) // (2 * number)] for part in range(number))


def price_of(prices: Prices, writer: Usage, judge: Usage) -> float:
    """In the currency of the prices."""
    judge_prompt = prices.promptPerMillion if prices.judgePromptPerMillion is None else prices.judgePromptPerMillion
    judge_completion = (
        prices.completionPerMillion if prices.judgeCompletionPerMillion is None else prices.judgeCompletionPerMillion
    )
    total = (
        writer.prompt * prices.promptPerMillion
        + writer.completion * prices.completionPerMillion
        + judge.prompt * judge_prompt
        + judge.completion * judge_completion
    )
    return total / _MILLION


def rounded(price: float) -> float:
    return float(f"{price:.{_DIGITS}g}")


def told(prices: Prices | None, writer: Usage, judge: Usage, kept: int) -> dict[str, Any]:
    """For the details of the stage's result."""
    found: dict[str, Any] = {"tokensPerKeptPair": round((writer.tokens + judge.tokens) / max(1, kept))}
    if prices is not None:
        total = price_of(prices, writer, judge)
        found |= {"total": rounded(total), "perKeptPair": rounded(total / max(1, kept))}
    return found
