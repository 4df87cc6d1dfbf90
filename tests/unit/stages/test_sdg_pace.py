"""How fast an endpoint is asked: against limits that are simulated, with a clock of their own."""

from __future__ import annotations

import heapq
import math
import random
from dataclasses import dataclass, field
from typing import Protocol

import pytest

from embedding_stages.sdg.pace import Pace


class Limit(Protocol):
    def refuse(self, now: float) -> int: ...

    def permitted(self, seconds: float) -> float: ...


@dataclass
class Bucket:
    """Requests a second, and so many at once."""

    rate: float
    burst: float
    left: float = math.nan
    at: float = 0.0

    def refuse(self, now: float) -> int:
        left = self.burst if math.isnan(self.left) else min(self.burst, self.left + (now - self.at) * self.rate)
        self.at, self.left = now, left - 1 if left >= 1 else left
        return 0 if left >= 1 else math.ceil((1 - left) / self.rate)

    def permitted(self, seconds: float) -> float:
        return self.burst + self.rate * seconds


@dataclass
class Window:
    """So many requests in each window of seconds."""

    most: int
    seconds: float
    used: dict[int, int] = field(default_factory=dict)

    def refuse(self, now: float) -> int:
        window = int(now // self.seconds)
        self.used[window] = self.used.get(window, 0) + 1
        return 0 if self.used[window] <= self.most else math.ceil((window + 1) * self.seconds - now)

    def permitted(self, seconds: float) -> float:
        return self.most * math.ceil(seconds / self.seconds)


def played(limit: Limit, *, seconds: float, at_once: int = 64) -> tuple[int, int]:
    """How many requests were let through and refused. Answers take 0.2 to 5 seconds."""
    now, draw = 0.0, random.Random(1)
    pace = Pace(clock=lambda: now)
    events: list[tuple[float, int, str]] = [(0.0, 0, "gate")]
    waiting, let_through, refused, number = at_once, 0, 0, 0
    is_open = True

    def later(after: float, what: str) -> None:
        nonlocal number
        number += 1
        heapq.heappush(events, (now + after, number, what))

    while events and events[0][0] < seconds:
        now, _, what = heapq.heappop(events)
        if what == "back":
            waiting += 1
            if not is_open:
                is_open = True
                later(0.0, "gate")
            continue
        if not waiting:
            is_open = False
            continue
        if (rest := pace.until_next()) > 1e-9:
            later(min(rest, 1.0) + 0.001, "gate")
            continue
        sent = pace.take()
        waiting -= 1
        told = limit.refuse(now)
        if told:
            refused += 1
            pace.refused(sent, told)
        else:
            let_through += 1
        later(told or draw.uniform(0.2, 5), "back")
        later(0.0001, "gate")
    return let_through, refused


LIMITS: dict[str, tuple[Limit, float]] = {
    "10 a second": (Bucket(10, 10), 60),
    "20 a second": (Bucket(20, 20), 60),
    "2 a second, 60 at once": (Bucket(2, 60), 120),
    "60 in 10 seconds": (Window(60, 10), 60),
    "300 a minute": (Window(300, 60), 180),
    "10 in a second": (Window(10, 1), 60),
}


@pytest.mark.parametrize("name", LIMITS)
def test_what_is_permitted_is_used(name: str) -> None:
    limit, seconds = LIMITS[name]
    let_through, refused = played(limit, seconds=seconds)
    assert let_through >= 0.95 * limit.permitted(seconds)
    assert refused <= 64 + 0.2 * let_through, "the first burst is refused, later few are"


def test_without_a_limit_nothing_waits() -> None:
    let_through, refused = played(Bucket(1e6, 1e6), seconds=60)
    assert (refused, let_through) == (0, pytest.approx(64 * 60 / 2.6, rel=0.1))


def test_after_a_limit_is_gone_the_pace_recovers() -> None:
    @dataclass
    class Raised(Bucket):
        def refuse(self, now: float) -> int:
            self.rate = 2 if now < 60 else 20
            return super().refuse(now)

    early, _ = played(Raised(2, 2), seconds=60)
    all_of_it, _ = played(Raised(2, 2), seconds=120)
    assert all_of_it - early >= 0.6 * 20 * 60
