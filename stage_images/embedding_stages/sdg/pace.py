"""How fast an endpoint is asked: as fast as it lets requests through, and a little faster.

Endpoints do not tell what they permit, they refuse (429) what is more. So the pace is learned: requests go out without
a pause until one is refused, then one after the other in even steps. A refusal makes the steps longer by the share that
was refused, and each second without one makes them shorter, the more the longer it lasts. What the endpoint permits is
then always asked for, and few requests are sent in vain.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

_REMEMBERED_S: Final = 5.0  # for which requests count
_SMALLEST_CUT: Final = 0.97
_LARGEST_CUT: Final = 0.5
_GROWTH: Final = 0.01  # a second, after a refusal
_DOUBLES_S: Final = 3.0  # seconds without a refusal in which the growth doubles
_MOST_GROWTH: Final = 1.0
_SLOWEST: Final = 0.02  # requests a second
_LATE_S: Final = 0.2  # that are made up for when threads wake up late
_ROUNDING_S: Final = 1.0  # of Retry-After
_TRICKLE_S: Final = 0.1  # between requests while the endpoint may be closed yet

Wait = Callable[[float], None]  # seconds; may raise to give up


@dataclass(slots=True)
class Pace:
    """Thread-safe. `clock` counts seconds."""

    clock: Callable[[], float] = time.monotonic
    rate: float = math.inf  # requests a second
    _next: float = -math.inf  # when the next request may go out
    _closed: float = -math.inf  # nothing goes out before,
    _opens: float = -math.inf  # and a few from then to here, because Retry-After is rounded up to whole seconds
    _grown: float = -math.inf  # when the rate was last looked at
    _refused: float = -math.inf  # the last time
    _cut: float = -math.inf
    _sent: deque[float] = field(default_factory=deque)
    _tried: int = 0  # requests since the last cut
    _refusals: int = 0  # of them
    _gate: threading.Lock = field(default_factory=threading.Lock)  # who holds it goes next
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def turn(self, wait: Wait) -> float:
        """Wait until a request may go out; the time when it does. Raises what `wait` raises."""
        with self._gate:
            while (seconds := self.until_next()) > 0:
                wait(min(seconds, 1.0))
            return self.take()

    def refused(self, sent: float, retry_after_s: float) -> None:
        """A request that went out at `sent` was one too many; the endpoint asks for so many seconds without."""
        with self._lock:
            now = self.clock()
            self._refused = now
            self._refusals += 1
            was_expected = sent < self._cut + _ROUNDING_S or self._closed <= sent < self._opens
            # Whoever was refused waits as long as it was told; the others only while nobody can be let through.
            if retry_after_s > _ROUNDING_S:
                opens = now + retry_after_s
                self._opens = min(self._opens, opens) if now < self._opens else opens
                self._closed = max(self._closed, opens - _ROUNDING_S)
            if was_expected:
                return
            self._cut = max(now, self._closed)
            self.rate = max(_SLOWEST, min(self.rate, self._sent_a_second(now)) * self._kept_share(retry_after_s))
            self._grown = self._cut
            self._tried = self._refusals = 0

    def _kept_share(self, retry_after_s: float) -> float:
        """What becomes of the pace. A limit that opens much later is one of whole minutes, say: it is used up whatever
        the pace, and a slower one would not use it up.
        """
        if retry_after_s > _ROUNDING_S:
            return _SMALLEST_CUT
        passed = 1.0 - self._refusals / max(1, self._tried, self._refusals)
        return min(max(passed, _LARGEST_CUT), _SMALLEST_CUT)

    def _sent_a_second(self, now: float) -> float:
        if not self._sent:
            return self.rate
        return len(self._sent) / max(1.0, min(_REMEMBERED_S, now - self._sent[0]))

    def until_next(self) -> float:
        """Seconds until a request may go out."""
        with self._lock:
            return max(self._next, self._closed) - self.clock()

    def take(self) -> float:
        """A request goes out now; the time."""
        with self._lock:
            now = self.clock()
            if self.rate < math.inf:
                self._grow(now, waited=self._next > now - 1 / self.rate - _LATE_S)
                step = max(1 / self.rate, _TRICKLE_S if now < self._opens else 0.0)
                self._next = max(self._next, now - _LATE_S, self._closed) + step
            self._tried += 1
            self._sent.append(now)
            while self._sent[0] < now - _REMEMBERED_S:
                self._sent.popleft()
            return now

    def _grow(self, now: float, *, waited: bool) -> None:
        """Only where it is the pace that holds requests up."""
        passed, self._grown = now - self._grown, max(now, self._grown)
        if waited and passed > 0:
            quiet = now - self._refused
            growth = min(_MOST_GROWTH, _GROWTH * 2.0 ** min(quiet / _DOUBLES_S, 30.0))
            self.rate *= math.exp(growth * min(passed, 1.0))
