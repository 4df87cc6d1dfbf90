"""Which key the queue works on, when, how often, and beside which others."""

from __future__ import annotations

import asyncio
import threading

from unit.operator.queue_bench import A, B, Bench, add, bench

from embedding_operator.cluster.cache import Key
from embedding_operator.metrics import METRICS

__all__ = ["bench"]  # the fixture


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
