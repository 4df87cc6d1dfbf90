"""When the API server collected garbage: beside ten thousand resources it needs seconds of the cores that all share."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

TRACED: Final = {"GODEBUG": "gctrace=1"}  # a line on stderr for each collection
# gc 12 @34.567s 3%: 0.05+1234+0.02 ms clock, ...: what number, since the start, and its three phases
_LINE: Final = re.compile(r"^gc (\d+) @([\d.]+)s \d+%: ([\d.]+)\+([\d.]+)\+([\d.]+) ms clock")


@dataclass(frozen=True, slots=True)
class Collection:
    began: float  # Unix time
    seconds: float

    def meets(self, begin: float, end: float) -> bool:
        """Whether a part of it lies between two Unix times."""
        return self.began < end and begin < self.began + self.seconds


def collections(log: Iterable[str], started: float) -> list[Collection]:
    """Those of the last process that wrote to the log, which started at `started` (Unix time)."""
    found: list[Collection] = []
    for line in log:
        if (match := _LINE.match(line)) is None:
            continue
        number, since, *phases = map(float, match.groups())
        if number == 1:
            found = []
        found.append(Collection(began=started + since, seconds=sum(phases) / 1000))
    return found
