"""When the queue works on a key again whose pass failed; the others do not wait for it."""

from __future__ import annotations

from itertools import pairwise

import pytest
from unit.operator.queue_bench import A, B, Bench, add, bench

from embedding_operator.cluster.errors import ClusterError, Conflict, Unavailable

__all__ = ["bench"]  # the fixture


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
