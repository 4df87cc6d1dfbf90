"""All vectors of an evaluation set from the endpoint: several requests at once. For a slow server fewer and smaller,
with more time where they cannot be smaller.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np

from embedding_stages.encoder.description import Role
from embedding_stages.errors import StageError
from embedding_stages.vectors import Vectors
from embedding_stages.verify.client import Embedded, EndpointClient, TooSlowError

CLIENTS: Final = 4  # requests under way at once
_MOST_PATIENCE: Final = 8  # times the time-out: a text alone is sent four times, for fifteen minutes at 60 s


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one request may."""

    texts: int
    patience: int = 1  # times the client's time-out


class Pace:
    """How many texts a request holds, how long it may take and how many requests are under way. Thread-safe."""

    def __init__(self, batch: int, clients: int = CLIENTS) -> None:
        self.allows = Allowance(batch)
        self.clients = clients
        self._over: StageError | None = None
        self._under_way = 0
        self._changed = threading.Condition()

    @contextmanager
    def turn(self) -> Iterator[Allowance]:
        """Wait until a request may be sent; the value is what it may. Raises what `give_up` was called with."""
        with self._changed:
            self._changed.wait_for(lambda: self._under_way < self.clients)
            if self._over is not None:
                raise self._over
            self._under_way += 1
        try:
            yield self.allows
        finally:
            with self._changed:
                self._under_way -= 1
                self._changed.notify_all()

    def slow_down(self, allowed: Allowance, *, texts: int) -> None:
        """A request of so many texts took too long. Alone it waits for no other, whatever the server does; a single
        text gets more time, for the server may also be busy with the one that nobody waits for any more.

        What was sent before the pace changed says nothing about the new one.
        """
        with self._changed:
            if allowed == self.allows:
                longer = allowed.patience * (2 if texts == 1 else 1)
                self.allows = Allowance(max(1, allowed.texts // 2), longer)
                self.clients = 1

    def give_up(self, error: StageError) -> None:
        """Nothing is sent any more: the next text would take as long to say the same."""
        self._over = error


@dataclass(slots=True, kw_only=True)
class EndpointVectors:
    """The endpoint as what embeds; counts what it took."""

    client: EndpointClient
    model: str
    dimension: int
    prefixes: Mapping[Role, str]  # put before every text of a role, for a server that is not told the role
    pace: Pace
    between: Callable[[], None]  # called before every request; may raise
    progress: Callable[[int], None]  # gets the texts done
    on_slow: Callable[[Allowance], None]  # gets what a request may from now on
    invalid: int = 0  # vectors that came back unfit, the ones that a retry mended included
    retries: int = 0  # requests sent again
    done: int = 0
    tokens: int = 0  # of the `counted` texts, as the server counts them
    counted: int = 0

    def embed(self, texts: Sequence[str], role: Role, *, prefixed: bool = True) -> Vectors:
        """float32 (len(texts), dimension). Not `prefixed`: the texts as they are, whatever the role's prefix.

        Raises what `EndpointClient.embed` does but TooSlowError, what its `too_slow` makes, and what `between` does.
        """
        prefix = self.prefixes.get(role, "") if prefixed else ""
        result = np.empty((len(texts), self.dimension), dtype=np.float32)
        told = self.pace.allows
        size = told.texts
        pool = ThreadPoolExecutor(max_workers=CLIENTS)
        try:
            starts = range(0, len(texts), size)
            # By the part: a second copy of all passages is as large as the corpus.
            parts = pool.map(
                lambda start: self._part([prefix + text for text in texts[start : start + size]], role), starts
            )
            for start, answered in zip(starts, parts, strict=True):
                result[start : start + len(answered.vectors)] = answered.vectors
                self.invalid += answered.invalid
                self.retries += answered.retries
                self.tokens += answered.tokens
                self.counted += answered.counted
                self.done += len(answered.vectors)
                self.progress(self.done)
                if self.pace.allows != told:
                    told = self.pace.allows
                    self.on_slow(told)
        finally:
            pool.shutdown(cancel_futures=True)
        return result

    def try_dimensions(self, texts: Sequence[str], role: Role, dimensions: int) -> tuple[int, list[Vectors | None]]:
        """As `EndpointClient.try_dimensions`, with the role's prefix."""
        self.between()
        prefix = self.prefixes.get(role, "")
        return self.client.try_dimensions(
            [prefix + text for text in texts],
            model=self.model,
            role=role,
            dimensions=dimensions,
            patience=self.pace.allows.patience,
        )

    def rate(self, seconds: float) -> dict[str, float]:
        """How fast everything so far was embedded, passages in `seconds`: passagesPerSecond, and where the server
        counts tokens tokensPerPassage and tokensPerSecond. Over the network, with `CLIENTS` requests at once, the
        server's first ones among them: an index that is made anew is made at this pace or faster.
        """
        if not self.done or seconds <= 0:
            return {}
        passages = self.done / seconds
        if not self.counted:
            return {"passagesPerSecond": _short(passages)}
        tokens = self.tokens / self.counted
        return {
            "passagesPerSecond": _short(passages),
            "tokensPerPassage": _short(tokens),
            "tokensPerSecond": _short(tokens * passages),
        }

    def _part(self, texts: Sequence[str], role: Role) -> Embedded:
        """One request, or several when the pace has slowed down. Runs in a thread."""
        vectors: list[Vectors] = []
        invalid = retries = tokens = counted = 0
        while len(vectors) < len(texts):
            self.between()
            with self.pace.turn() as allowed:
                part = list(texts[len(vectors) : len(vectors) + allowed.texts])
                try:
                    answered = self.client.embed(
                        part, model=self.model, role=role, dimension=self.dimension, patience=allowed.patience
                    )
                except TooSlowError:
                    if len(part) == 1 and allowed.patience >= _MOST_PATIENCE:
                        error = self.client.too_slow(part[0], allowed.patience)
                        self.pace.give_up(error)
                        raise error from None
                    self.pace.slow_down(allowed, texts=len(part))
                    retries += 1
                    continue
            vectors.extend(answered.vectors)
            invalid += answered.invalid
            retries += answered.retries
            tokens += answered.tokens
            counted += answered.counted
        return Embedded(vectors, invalid, retries, tokens, counted)


def _short(value: float) -> float:
    """Four digits: the next run differs in the second."""
    return float(f"{value:.4g}")
