"""All vectors of an evaluation set from the endpoint: several requests at once, fewer and smaller for a slow server."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np

from embedding_stages.encoder.description import Role
from embedding_stages.vectors import Vectors
from embedding_stages.verify.client import Embedded, EndpointClient, TooSlowError

CLIENTS: Final = 4  # requests under way at once


class Pace:
    """How many texts a request holds and how many requests are under way. Thread-safe."""

    def __init__(self, batch: int, clients: int = CLIENTS) -> None:
        self.batch = batch
        self.clients = clients
        self._under_way = 0
        self._changed = threading.Condition()

    @contextmanager
    def turn(self) -> Iterator[int]:
        """Wait until a request may be sent; the value is how many texts it may hold."""
        with self._changed:
            self._changed.wait_for(lambda: self._under_way < self.clients)
            self._under_way += 1
        try:
            yield self.batch
        finally:
            with self._changed:
                self._under_way -= 1
                self._changed.notify_all()

    def slow_down(self, batch: int) -> None:
        """A request that might hold so many texts took too long. Alone it waits for no other, whatever the server does.

        What was sent before the pace changed says nothing about the new one.
        """
        with self._changed:
            if batch == self.batch:
                self.batch = max(1, batch // 2)
                self.clients = 1


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
    on_slow: Callable[[int], None]  # gets the new number of texts a request
    invalid: int = 0  # vectors that came back unfit, the ones that a retry mended included
    retries: int = 0  # requests sent again
    done: int = 0
    tokens: int = 0  # of the `counted` texts, as the server counts them
    counted: int = 0

    def embed(self, texts: Sequence[str], role: Role, *, prefixed: bool = True) -> Vectors:
        """float32 (len(texts), dimension). Not `prefixed`: the texts as they are, whatever the role's prefix.

        Raises what `EndpointClient.embed` does, and what `between` does.
        """
        prefix = self.prefixes.get(role, "") if prefixed else ""
        result = np.empty((len(texts), self.dimension), dtype=np.float32)
        size = told = self.pace.batch
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
                if self.pace.batch != told:
                    told = self.pace.batch
                    self.on_slow(told)
        finally:
            pool.shutdown(cancel_futures=True)
        return result

    def try_dimensions(self, texts: Sequence[str], role: Role, dimensions: int) -> tuple[int, list[Vectors | None]]:
        """As `EndpointClient.try_dimensions`, with the role's prefix."""
        self.between()
        prefix = self.prefixes.get(role, "")
        return self.client.try_dimensions(
            [prefix + text for text in texts], model=self.model, role=role, dimensions=dimensions
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
            with self.pace.turn() as most:
                part = list(texts[len(vectors) : len(vectors) + most])
                try:
                    answered = self.client.embed(part, model=self.model, role=role, dimension=self.dimension)
                except TooSlowError:
                    self.pace.slow_down(most)
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
