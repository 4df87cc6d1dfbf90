"""Which rows go through the model together. Requests take turns, so a short one never waits for a long one.

A batch begins with the request whose turn it is, its longest rows first; rows of other requests join where the
padding that costs stays small. A model over packs has no padding, and counts tokens instead.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from embedding_stages.serve.model import Limits
from embedding_stages.serve.requests import RequestError
from embedding_stages.serve.settings import MAX_WAITING_ROWS
from embedding_stages.vectors import Vectors

Row = list[int]
Run = Callable[[Sequence[Row], int], Vectors]  # rows, dimensions -> float32 (rows, dimensions)


@dataclass(eq=False, slots=True)
class Waiting:
    """The rows of one request that have no vector yet: `rest` holds their positions, longest first."""

    rows: Sequence[Row]
    dimensions: int
    done: asyncio.Future[Vectors]
    result: Vectors
    rest: deque[int] = field(default_factory=deque)
    answered: int = 0


@dataclass(slots=True)
class _Batch:
    """What a batch holds so far, and whether another row fits."""

    limits: Limits
    chosen: list[tuple[Waiting, int]] = field(default_factory=list)
    width: int = 0  # tokens of the longest row
    tokens: int = 0

    def take(self, request: Waiting, padding: float) -> None:
        """Rows of `request` while they fit; `padding` is how many tokens may be computed for one that counts."""
        while request.rest:
            length = len(request.rows[request.rest[0]])
            count, tokens, width = len(self.chosen) + 1, self.tokens + length, max(self.width, length)
            too_much = count > self.limits.rows or tokens > self.limits.tokens or count * width > padding * tokens
            too_much = too_much or count * width**2 > self.limits.area
            if self.chosen and too_much:
                return
            self.chosen.append((request, request.rest.popleft()))
            self.width, self.tokens = width, tokens


def choose(waiting: deque[Waiting], limits: Limits) -> list[tuple[Waiting, int]]:
    """Take the next batch out of `waiting`: (request, position of its row). The first request goes to the end
    of the queue when rows of it are left. Pure but for the queue.
    """
    first = waiting.popleft()
    batch = _Batch(limits)
    batch.take(first, padding=math.inf)  # its own rows wait for each other in any case
    for other in list(waiting):
        if other.dimensions != first.dimensions:
            continue
        batch.take(other, padding=limits.padding)
        if not other.rest:
            waiting.remove(other)
    if first.rest:
        waiting.append(first)
    return batch.chosen


class Batcher:
    """Threads run the model, most often one; the event loop fills their batches."""

    def __init__(self, run: Run, limits: Limits, on_batch: Callable[[int], None]) -> None:
        """`run` is called in a thread, `on_batch` with the number of rows in the event loop. Needs a running loop."""
        self._run = run
        self._limits = limits
        self._on_batch = on_batch
        self._waiting: deque[Waiting] = deque()
        self._threads = ThreadPoolExecutor(max_workers=limits.under_way, thread_name_prefix="model")
        self._under_way: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()

    @property
    def waiting_rows(self) -> int:
        return sum(len(request.rest) for request in self._waiting)

    async def embed(self, rows: Sequence[Row], dimensions: int) -> Vectors:
        """float32 (rows, dimensions), in the order of `rows`. Raises RequestError 429 when too much waits."""
        if self.waiting_rows + len(rows) > MAX_WAITING_ROWS:
            raise RequestError(429, "too many texts are waiting, try again in a second", code="overloaded")
        request = Waiting(
            rows=rows,
            dimensions=dimensions,
            done=asyncio.get_running_loop().create_future(),
            result=np.empty((len(rows), dimensions), dtype=np.float32),
            rest=deque(sorted(range(len(rows)), key=lambda at: -len(rows[at]))),
        )
        self._waiting.append(request)
        self._loop.call_soon(self._begin)  # whoever arrives at the same time can join
        try:
            return await request.done
        finally:
            if request in self._waiting:  # cancelled: its rows shall cost nothing more
                self._waiting.remove(request)

    async def close(self) -> None:
        self._waiting.clear()
        tasks = list(self._under_way)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _begin(self) -> None:
        """Start batches. Beside another one only full ones: until the model is free, further rows may join."""
        while self._waiting and len(self._under_way) < self._limits.under_way:
            if self._under_way and not self._full():
                return
            task = self._loop.create_task(self._compute(choose(self._waiting, self._limits)))
            self._under_way.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._begin()

    def _full(self) -> bool:
        rows, tokens = 0, 0
        for request in self._waiting:
            for at in request.rest:
                rows, tokens = rows + 1, tokens + len(request.rows[at])
                if rows >= self._limits.rows or tokens >= self._limits.tokens:
                    return True
        return False

    async def _compute(self, batch: list[tuple[Waiting, int]]) -> None:
        self._on_batch(len(batch))
        rows = [request.rows[at] for request, at in batch]
        try:
            work = self._loop.run_in_executor(self._threads, self._run, rows, batch[0][0].dimensions)
            self._hand_out(batch, await work)
        except Exception as error:  # whatever the runtime raises is the answer to these requests, not the end
            self._fail(batch, error)

    def _hand_out(self, batch: list[tuple[Waiting, int]], vectors: Vectors) -> None:
        for (request, at), vector in zip(batch, vectors, strict=True):
            request.result[at] = vector
            request.answered += 1
            if request.answered == len(request.rows) and not request.done.done():
                request.done.set_result(request.result)

    def _fail(self, batch: list[tuple[Waiting, int]], error: Exception) -> None:
        for request, _ in batch:
            if not request.done.done():
                request.done.set_exception(error)
            if request in self._waiting:
                self._waiting.remove(request)
