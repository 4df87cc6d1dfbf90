"""The queue on a loop whose time is ours: delays pass in no time, and in order."""

from __future__ import annotations

import asyncio
import selectors
import threading
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

import pytest

from embedding_operator.cluster.cache import Key
from embedding_operator.workqueue import WorkQueue

A, B = ("ns", "a"), ("ns", "b")


class _Jumping(selectors.SelectSelector):
    """Instead of waiting for a timer, moves the clock to it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(0)
        if not ready and timeout:
            self.now += timeout
        return ready


class _Loop(asyncio.SelectorEventLoop):
    """A loop on that clock; what it is to run in a thread it runs at once."""

    def __init__(self) -> None:
        self.jumping = _Jumping()
        super().__init__(self.jumping)

    def time(self) -> float:
        return self.jumping.now

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future


class Bench:
    """A queue, the passes it made with their times, and what each of them was told to do."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None, *, concurrency: int = 2) -> None:
        self.loop = loop or _Loop()
        self.passes: list[tuple[Key, float]] = []
        self.answers: dict[Key, list[Any]] = {}
        self.during: Callable[[Key], None] = lambda key: None
        self.busy: set[Key] = set()
        self.most = 0
        self.lock = threading.Lock()
        self.now = 0.0  # as the queue's clock has it
        self.written: set[str] = set()
        self.queue = WorkQueue(
            self.work,
            concurrency=concurrency,
            random=Random(7),
            written=lambda _: self.written,
            clock=lambda: self.now,
        )

    def work(self, key: Key) -> float | None:
        with self.lock:
            assert key not in self.busy, "two passes over one resource"
            self.busy.add(key)
            self.most = max(self.most, len(self.busy))
            self.passes.append((key, round(self.loop.time(), 3)))
            answer = self.answers[key].pop(0) if self.answers.get(key) else None
        try:
            self.during(key)
            if isinstance(answer, Exception):
                raise answer
            return answer  # type: ignore[no-any-return]
        finally:
            with self.lock:
                self.busy.discard(key)

    def play(self, script: Callable[[], Coroutine[Any, Any, None]], seconds: float) -> Bench:
        async def main() -> None:
            running = asyncio.ensure_future(self.queue.run())
            await script()
            await asyncio.sleep(seconds)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

        try:
            self.loop.run_until_complete(main())
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
        finally:
            self.loop.close()
        return self

    def times(self, key: Key = A) -> list[float]:
        return [time for its, time in self.passes if its == key]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def add(bench: Bench, *keys: Key) -> Callable[[], Coroutine[Any, Any, None]]:
    async def script() -> None:
        for key in keys:
            bench.queue.add(key)

    return script
