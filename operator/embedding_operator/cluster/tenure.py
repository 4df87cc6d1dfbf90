"""Until when this process surely leads. Every write to the cluster asks here first. Thread-safe.

A process that was stopped for a while wakes up with its time run out, so it need not be told that it leads no more.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from embedding_operator.cluster.errors import NotLeader

_CLOCK: Final[int] = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # the first is Linux's


def steady_s() -> float:
    """Seconds that pass even while the machine sleeps, where the system counts those; never set back."""
    return time.clock_gettime(_CLOCK)


@dataclass(slots=True)
class Tenure:
    """Ends at `ends_at` of the clock, unless it is extended. One float is written and read at once, so no lock."""

    ends_at: float = -math.inf
    clock: Callable[[], float] = steady_s

    @classmethod
    def without_end(cls) -> Tenure:
        """Of a process that shares its work with nobody."""
        return cls(math.inf)

    def extend(self, ends_at: float) -> None:
        self.ends_at = ends_at

    def end(self) -> None:
        self.ends_at = -math.inf

    def left_s(self) -> float:
        return self.ends_at - self.clock()

    def holds(self) -> bool:
        return self.left_s() > 0

    def check(self, verb: str, kind: str, namespace: str, name: str) -> None:
        """Raises NotLeader when the time is over."""
        if not self.holds():
            raise NotLeader(verb, kind, namespace, name, "another replica may lead by now, so nothing is written")
