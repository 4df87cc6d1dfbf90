"""The API server's time, between its answers too. Thread-safe.

Every timestamp of an object is by that clock, and deadlines are told by the two: a time that is hours off for one pass
fails a stage for good. One of several API servers may have a clock that is wrong, and connections that are kept alive
bring its answers in rows. So a jump is believed once nobody has said anything else for a minute, or at once where this
machine's clock says the same. Until then time goes on from what was believed before, by a clock that nobody sets.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from embedding_operator.cluster.answers import server_ahead_s

_DOUBT_S: Final = 60.0
_JUMP_S: Final = 5.0  # what an answer may say more or less for having been on its way, and in whole seconds


@dataclass(frozen=True, slots=True)
class _Said:
    time: datetime
    at: float  # when it was, by the steady clock

    def now(self, steady: float) -> datetime:
        return self.time + timedelta(seconds=steady - self.at)

    def agrees(self, other: _Said | None) -> bool:
        return other is not None and abs((self.time - other.now(self.at)).total_seconds()) <= _JUMP_S


class ServerClock:
    """`own` is this machine's time, and `steady` what its clock that is never set shows, both at the same moment."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._believed: _Said | None = None
        self._doubted: _Said | None = None  # what answers have said since, of which none agrees with what is believed

    def now(self, own: datetime, steady: float) -> datetime:
        """This machine's time where no answer has told any."""
        believed = self._believed
        return own if believed is None else believed.now(steady)

    def hear(self, date: str, own: datetime, steady: float) -> None:
        """Take in the `Date` of an answer that came at that moment."""
        ahead_s = server_ahead_s(date, own)
        if ahead_s is None:
            return
        said = _Said(own + timedelta(seconds=ahead_s), steady)
        with self._lock:
            doubted = self._doubted if said.agrees(self._doubted) else None
            known = self._believed is None or said.agrees(self._believed) or abs(ahead_s) <= _JUMP_S
            if known or (doubted is not None and steady - doubted.at >= _DOUBT_S):
                self._believed, self._doubted = said, None
            else:
                self._doubted = doubted or said
