"""Which rows go through the model together. Requests take turns, so a short one never waits for a long one.

A batch begins with the request whose turn it is, its longest rows first; rows of other requests join where the
padding that costs stays small.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from embedding_stages.serve.model import Vectors
from embedding_stages.serve.requests import RequestError
from embedding_stages.serve.settings import MAX_BATCH_ROWS, MAX_WAITING_ROWS

Row = list[int]
Run = Callable[[Sequence[Row], int], Vectors]  # rows, dimensions -> float32 (rows, dimensions)
_MAX_PADDING = 1.5  # tokens computed for one that counts, when requests are joined


@dataclass(eq=False, slots=True)
class Waiting:
    """The rows of one request that have no vector yet: `rest` holds their positions, longest first."""

    rows: Sequence[Row]
    dimensions: int
    done: asyncio.Future[Vectors]
    result: Vectors
    rest: deque[int] = field(default_factory=deque)
    answered: int = 0


def choose(waiting: deque[Waiting], limit: int = MAX_BATCH_ROWS) -> list[tuple[Waiting, int]]:
    """Take the next batch out of `waiting`: (request, position of its row). The first request goes to the end
    of the queue when rows of it are left. Pure but for the queue.
    """
    first = waiting.popleft()
    batch = [(first, first.rest.popleft()) for _ in range(min(limit, len(first.rest)))]
    width = max(len(first.rows[at]) for _, at in batch)
    tokens = sum(len(first.rows[at]) for _, at in batch)
    for other in list(waiting):
        if len(batch) == limit:
            break
        if other.dimensions != first.dimensions:
            continue
        while other.rest and len(batch) < limit:
            length = len(other.rows[other.rest[0]])
            if (len(batch) + 1) * max(width, length) > _MAX_PADDING * (tokens + length):
                break
            batch.append((other, other.rest.popleft()))
            width, tokens = max(width, length), tokens + length
        if not other.rest:
            waiting.remove(other)
    if first.rest:
        waiting.append(first)
    return batch


class Batcher:
    """One thread runs the model; the event loop fills its batches."""

    def __init__(self, run: Run, on_batch: Callable[[int], None]) -> None:
        """`run` is called in the thread, `on_batch` with the number of rows in the event loop. Needs a running loop."""
        self._run = run
        self._on_batch = on_batch
        self._waiting: deque[Waiting] = deque()
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")
        self._loop = asyncio.get_running_loop().create_task(self._work())

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
        self._arrived.set()
        try:
            return await request.done
        finally:
            if request in self._waiting:  # cancelled: its rows shall cost nothing more
                self._waiting.remove(request)

    async def close(self) -> None:
        self._loop.cancel()
        await asyncio.gather(self._loop, return_exceptions=True)
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._arrived.wait()
            if not self._waiting:
                self._arrived.clear()
                continue
            batch = choose(self._waiting)
            self._on_batch(len(batch))
            rows = [request.rows[at] for request, at in batch]
            try:
                vectors = await loop.run_in_executor(self._thread, self._run, rows, batch[0][0].dimensions)
                self._hand_out(batch, vectors)
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
