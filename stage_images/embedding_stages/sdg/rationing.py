"""Which documents a language model is asked about where not all may be: a preview, or a budget of tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from embedding_stages.contract.settings import Prices, Sdg
from embedding_stages.errors import BadInput, StageError, Stopped, Transient
from embedding_stages.formats.pairs import Pair
from embedding_stages.sdg.answers import Usage
from embedding_stages.sdg.bill import Forecast, Shape, is_kept, price_of, rounded, spread
from embedding_stages.sdg.failures import UNAVAILABLE
from embedding_stages.sdg.ledger import JUDGE, WRITER, Ledger

BUDGET_FIELD: Final = "spec.stages.sdg.maxTokensTotal"
PREVIEW_FIELD: Final = "spec.stages.sdg.preview"
_Item = TypeVar("_Item")


@dataclass(slots=True)
class Rations(Generic[_Item]):
    """Hands documents out, one after the other.

    `shape` is of one that is asked about, `is_paid` says that all of it was answered before.
    """

    items: Iterator[_Item]
    shape: Callable[[_Item], Shape]
    is_paid: Callable[[_Item], bool]
    ledger: Ledger
    most: int | None  # tokens
    forecast: Forecast = field(default_factory=Forecast)
    size: Callable[[_Item], int] = lambda _: 1  # documents in one
    given: int = 0
    documents: int = 0  # in what was given
    _next: _Item | None = None
    is_cut_short: bool = False  # all tokens are used, and documents under way are not done
    _reserved: dict[int, float] = field(default_factory=dict)  # number -> first guess of the tokens, of those under way

    def take(self) -> _Item | None:
        """The next one; None at the end, and where its tokens may be more than are left."""
        if self._next is None:
            self._next = next(self.items, None)
        item = self._next
        if item is None:
            return None
        if self.most is not None and not self.is_paid(item):
            guessed = self.shape(item).tokens
            if not self._has_room_for(guessed, self.most):
                return None
            self._reserved[self.given] = guessed
        self._next = None
        self.given += 1
        self.documents += self.size(item)
        return item

    def _has_room_for(self, guessed: float, most: int) -> bool:
        """The first document is asked about alone: nobody knows before how far such guesses are off."""
        if self._reserved and not self.forecast.worst:
            return False
        needed = self.forecast.most_of(sum(self._reserved.values()) + guessed)
        return self.ledger.spent().tokens + needed <= most

    def done(self, number: int, shape: Shape, usage: Usage) -> None:
        """The one that was handed out as number `number` from 0 is answered."""
        self.release(number)
        self.forecast.learn(shape, usage)

    def release(self, number: int) -> None:
        """What was kept back for a document is used."""
        self._reserved.pop(number, None)

    def cut_short(self, documents: int) -> None:
        """All tokens were used before so many that were handed out were done."""
        self.documents -= documents
        self.is_cut_short = True

    def check_all_were_taken(self, documents: int, pairs: int) -> None:
        """Raises BadInput `TokenBudgetTooSmall` and Stopped `TokenBudgetSpent`."""
        if self._next is None and not self.is_cut_short:
            return
        spent, ahead = self.ledger.spent(), "documents are under way"
        if self._next is not None and not self.is_cut_short:
            needed = round(self.forecast.most_of(self.shape(self._next).tokens))
            if not self.given and not spent.tokens:
                raise BadInput(
                    "TokenBudgetTooSmall",
                    f"{self.most} tokens are fewer than the first document takes, about {needed}; raise it",
                    field=BUDGET_FIELD,
                )
            ahead = f"the next document takes up to {needed}"
        raise Stopped(
            "TokenBudgetSpent",
            f"{spent.tokens} of {self.most} tokens are used, and {ahead}: "
            f"{self.documents} of {documents} documents gave {pairs} questions; raise it to go on, what was answered "
            "is kept and not asked again",
            field=BUDGET_FIELD,
        )


def chosen(shapes: Sequence[Shape], preview: int | None) -> frozenset[int] | None:
    """The places of the documents that a preview asks about; None for all."""
    return None if preview is None else frozenset(spread(shapes, preview))


def preview_done(
    asked: Sdg,
    ledger: Ledger,
    forecast: Forecast,
    shapes: Sequence[Shape],
    pairs: Iterable[Pair],
    *,
    previewed: tuple[int, int],
    missing: int,
) -> StageError:
    """How a preview ends: with what all would cost.

    `shapes` are of all that can be asked about; `previewed` so many of all documents were. `missing` requests got no
    answer: Transient `LLMUnavailable` where nothing is known for it.
    """
    documents, of_all = previewed
    used = Usage()
    for one in forecast.used:
        used.add(one)
    written = list(pairs)
    kept = sum(is_kept(pair, asked.qualityThreshold) for pair in written)
    everything = forecast.of(shapes)
    a_pair = everything.tokens / max(1, kept * of_all / max(1, documents))
    share = used.tokens / max(1, everything.tokens)
    price = _prices_told(asked.prices, ledger, used, everything)
    threshold = "" if asked.qualityThreshold is None else f", {kept} with a score of {asked.qualityThreshold:g} or more"
    if missing and not used.tokens:
        return Transient(UNAVAILABLE, f"none of {documents} documents got all its answers", field=PREVIEW_FIELD)
    unanswered = f" ({missing} requests got no answer)" if missing else ""
    return Stopped(
        "PreviewDone",
        f"{documents} of {of_all} documents{unanswered} gave {len(written)} questions{threshold}, for {used.prompt} "
        f"prompt and {used.completion} completion tokens. All documents would take about {everything.prompt} and "
        f"{everything.completion}{price}: {a_pair:.0f} tokens a kept question. {share:.0%} of it is paid. Remove it to "
        "go on; what was answered is kept and not asked again",
        field=PREVIEW_FIELD,
    )


def _prices_told(prices: Prices | None, ledger: Ledger, used: Usage, everything: Usage) -> str:
    if prices is None:
        return ""
    writer, judge = ledger.spent(WRITER), ledger.spent(JUDGE)
    a_token = price_of(prices, writer, judge) / max(1, writer.tokens + judge.tokens)
    return f", a price of {rounded(a_token * everything.tokens)} after {rounded(a_token * used.tokens)} so far"
