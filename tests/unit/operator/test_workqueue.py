"""The queue on a loop whose time is ours: delays pass in no time, and in order."""

from __future__ import annotations

import asyncio
import selectors
import threading
from collections.abc import Callable, Coroutine
from itertools import pairwise
from random import Random
from typing import Any

import pytest

from embedding_operator.cluster.cache import Key
from embedding_operator.cluster.errors import ClusterError, Conflict, Unavailable
from embedding_operator.metrics import METRICS
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


def test_a_key_that_waits_is_not_added_twice(bench: Bench) -> None:
    bench.play(add(bench, A, A, B, A), 10)
    assert bench.passes == [(A, 0), (B, 0)]


def test_the_depth_falls_again(bench: Bench) -> None:
    depth = []
    bench.during = lambda key: depth.append(METRICS.queue_depth.collect()[0].samples[0].value)
    bench.play(add(bench, A, B, ("ns", "c")), 10)
    assert depth == [2, 1, 0]


def test_the_queue_is_as_old_as_its_first_key(bench: Bench) -> None:
    ages = []

    def look(key: Key) -> None:
        bench.now += 10
        ages.append(bench.queue.oldest_s())

    bench.during = look
    bench.play(add(bench, A, B, ("ns", "c")), 10)
    assert ages == [10, 20, 0]
    assert bench.queue.oldest_s() == 0


def test_a_pass_says_when_the_next_is_due(bench: Bench) -> None:
    bench.answers[A] = [5.0, 10.0, None]
    bench.play(add(bench, A), 100)
    assert bench.times() == [0, 5, 15]


def test_a_key_that_is_rung_while_it_is_worked_on_is_worked_on_once_more(bench: Bench) -> None:
    rings = [True, True]

    def ring(key: Key) -> None:
        if rings:
            rings.pop()
            bench.queue.add(key)
            bench.queue.add(key)

    bench.during = ring
    bench.play(add(bench, A), 10)
    assert len(bench.times()) == 3


def test_what_the_last_pass_wrote_itself_rings_for_no_other(bench: Bench) -> None:
    heard = ["7"]

    def write(key: Key) -> None:
        bench.written = {"7"}
        for version in heard:
            bench.queue.add(key, version)
        heard.clear()

    bench.during = write
    bench.play(add(bench, A), 10)
    assert len(bench.times()) == 1


def test_what_others_wrote_while_a_key_was_worked_on_rings(bench: Bench) -> None:
    heard = ["7", "8"]

    def write(key: Key) -> None:
        bench.written = {"7"}
        for version in heard:
            bench.queue.add_soon(key, version)
        heard.clear()

    bench.during = write
    bench.play(add(bench, A), 10)
    assert bench.times() == [0, 0.1]


def test_what_follows_a_pass_closely_is_gathered(bench: Bench) -> None:
    async def script() -> None:
        for _ in range(10):
            bench.queue.add(A)
            await asyncio.sleep(0.02)

    bench.play(script, 10)
    assert bench.times() == [0, 0.1, 0.2]


def test_a_burst_that_nobody_waits_for_is_gathered_from_the_start(bench: Bench) -> None:
    async def script() -> None:
        for _ in range(4):
            bench.queue.add_soon(A)
            await asyncio.sleep(0.02)

    bench.play(script, 10)
    assert bench.times() == [0.1]


def test_an_event_comes_before_what_can_wait() -> None:
    bench = Bench(concurrency=1)
    keys = [("ns", str(number)) for number in range(3)]

    async def script() -> None:
        for key in (*keys, *keys):
            bench.queue.add_later(key)
        bench.queue.add(A)
        bench.queue.add(keys[2])

    bench.play(script, 10)
    assert [key for key, _ in bench.passes] == [A, keys[2], keys[0], keys[1]]


def test_a_queue_that_was_stopped_has_forgotten_what_waited_and_can_run_again() -> None:
    bench = Bench(concurrency=1)

    async def script() -> None:
        bench.queue.add(A)
        bench.queue.add_after(B, 5)
        await asyncio.sleep(1)
        first = asyncio.all_tasks() - {asyncio.current_task()}
        for task in first:
            task.cancel()
        await asyncio.gather(*first, return_exceptions=True)
        again = asyncio.ensure_future(bench.queue.run())
        bench.queue.add(A)
        await asyncio.sleep(10)
        again.cancel()
        await asyncio.gather(again, return_exceptions=True)

    bench.play(script, 1)
    assert bench.passes == [(A, 0), (A, 1)]


def test_a_ring_comes_before_a_delay_and_replaces_it(bench: Bench) -> None:
    bench.answers[A] = [50.0, None]

    async def script() -> None:
        bench.queue.add(A)
        await asyncio.sleep(5)
        bench.queue.add(A)

    bench.play(script, 200)
    assert bench.times() == [0, 5]


def test_the_earlier_of_two_delays_counts(bench: Bench) -> None:
    async def script() -> None:
        bench.queue.add_after(A, 30)
        bench.queue.add_after(A, 10)
        bench.queue.add_after(A, 20)

    bench.play(script, 100)
    assert bench.times() == [10]


def gaps(times: list[float]) -> list[float]:
    return [round(b - a, 3) for a, b in pairwise(times)]


@pytest.mark.parametrize("error", [ClusterError("get", "Job", "ns", "j", "no"), RuntimeError("a bug")], ids=str)
def test_failures_are_retried_further_and_further_apart_up_to_a_limit(bench: Bench, error: Exception) -> None:
    bench.answers[A] = [error] * 12
    bench.play(add(bench, A), 1000)
    for gap, nominal in zip(gaps(bench.times()), [0.5 * 2**n for n in range(12)], strict=False):
        assert 0.75 * min(60, nominal) <= gap <= 1.25 * min(60, nominal)
    assert len(bench.times()) == 13


def test_backoffs_are_each_keys_own_and_forgotten_after_a_success(bench: Bench) -> None:
    bench.answers[A] = [RuntimeError()] * 3 + [5.0, RuntimeError()]
    bench.play(add(bench, A, B), 100)
    assert bench.times(B) == [0]
    assert gaps(bench.times())[-1] <= 0.625


def test_a_server_that_says_when_is_asked_then(bench: Bench) -> None:
    bench.answers[A] = [Unavailable("get", "Job", "ns", "j", "429", 30)]
    bench.play(add(bench, A), 100)
    assert bench.times() == [0, 30]


def test_a_conflict_is_tried_again_at_once_and_is_no_failure(bench: Bench) -> None:
    conflict = Conflict("update", "E", "ns", "a", "409")
    bench.answers[A] = [conflict, conflict, RuntimeError()]
    bench.play(add(bench, A), 100)
    assert gaps(bench.times())[:2] == [0.1, 0.1]
    assert gaps(bench.times())[2] <= 0.625


def test_conflicts_without_end_are_tried_ever_less_often(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """Such as those of a webhook that answers 409."""
    bench.answers[A] = [Conflict("create", "Job", "ns", "a", "409")] * 1000
    bench.play(add(bench, A), 3600)
    assert gaps(bench.times())[:3] == [0.1, 0.1, 0.1]
    assert len(bench.times()) < 80
    assert "4 conflicts in a row: cannot create Job ns/a: 409" in caplog.text
    assert " 3 conflicts" not in caplog.text


def test_one_broken_resource_does_not_stop_the_others(bench: Bench) -> None:
    bench.answers[A] = [RuntimeError()] * 20
    bench.answers[B] = [1.0] * 20
    bench.play(add(bench, A, B), 100)
    assert len(bench.times(B)) == 21


def test_resources_are_worked_on_side_by_side_and_each_by_one_worker() -> None:
    """On a loop of the usual kind, with threads."""
    bench = Bench(asyncio.new_event_loop(), concurrency=3)
    together = threading.Barrier(3)
    keys = [("ns", str(number)) for number in range(3)]

    def meet(key: Key) -> None:
        together.wait(timeout=10)

    bench.during = meet

    async def script() -> None:
        for key in keys:
            bench.queue.add(key)
            bench.queue.add(key)
        while len(bench.passes) < 3 or bench.busy:
            await asyncio.sleep(0)

    bench.play(script, 0)
    assert sorted(key for key, _ in bench.passes) == keys
    assert bench.most == 3


def test_the_concurrency_is_what_was_asked_for_however_few_cpus_there_are() -> None:
    """On a loop of the usual kind: each pass waits until all have begun."""
    most = 40
    bench = Bench(asyncio.new_event_loop(), concurrency=most)
    together = threading.Barrier(most)
    keys = [("ns", str(number)) for number in range(most)]

    def meet(key: Key) -> None:
        together.wait(timeout=30)

    bench.during = meet

    async def script() -> None:
        for key in keys:
            bench.queue.add(key)
        while len(bench.passes) < most or bench.busy:
            await asyncio.sleep(0)

    bench.play(script, 0)
    assert bench.most == most
