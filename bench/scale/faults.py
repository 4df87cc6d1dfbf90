"""Which fault happens when: a plan from a seed. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Final

KILL, PAUSE = "operator killed", "operator paused"
API_KILLED, API_PAUSED, ETCD_PAUSED = "API server killed", "API server paused", "etcd paused"
CUT, SILENT = "connections cut", "connections silent"
# How often each is drawn, and for how long it lasts; seconds.
_DRAWN: Final[Mapping[str, tuple[int, float, float]]] = {
    KILL: (4, 0.0, 2.0),
    PAUSE: (3, 1.0, 12.0),
    API_KILLED: (1, 1.0, 6.0),
    API_PAUSED: (2, 1.0, 8.0),
    ETCD_PAUSED: (1, 1.0, 4.0),
    CUT: (6, 0.0, 0.0),
    SILENT: (3, 2.0, 15.0),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """`at` counts from the start of the plan; one begins when the last one is over, if that is later."""

    at: float
    what: str
    lasts: float


def plan(seed: int, *, seconds: float, every_s: float, kills_until: float) -> list[Fault]:
    """A fault each `every_s`. The operator is killed before `kills_until` only: after that its memory is watched."""
    random = Random(seed)
    found: list[Fault] = []
    at = every_s
    while at < seconds:
        names = [name for name in _DRAWN if name != KILL or at < kills_until]
        name = random.choices(names, [_DRAWN[name][0] for name in names])[0]
        _, low, high = _DRAWN[name]
        found.append(Fault(round(at, 1), name, round(random.uniform(low, high), 1)))
        at += every_s * random.uniform(0.5, 1.5)
    return found
