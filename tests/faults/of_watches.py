"""Kinds of scenarios: something happens to an event, or to the stream that it comes in."""

from __future__ import annotations

from faults.lab import Scenario, first
from faults.of_requests import Goldens
from faults.plans import Cut, Drop, Fault, Gone, Later, Rule, Silent, Twice

# Of the events of a run, by kind: the first ones, some in the middle, and one near the end.
_NTH = {
    "embeddingfinetunes": (1, 2, 5, 8),
    "jobs": (1, 2, 3, 5, 8, 13),
    "pods": (1, 2, 3, 6, 10, 14),
    "deployments": (1, 2),
    "services": (1, 2),
}
_STREAMS = {"embeddingfinetunes": (1, 5), "jobs": (1, 5, 12), "pods": (2, 11), "deployments": (1, 2), "services": (1,)}
ALL = 10**6


def _rows(words: str, fault: Fault, where: dict[str, tuple[int, ...]], *, times: int = 1) -> list[Scenario]:
    return [
        Scenario(
            name=f"{words} {kind} {nth}",
            script=first,
            golden="first",
            cost=4,
            rules=(Rule(f"event {kind} .*", fault, nth, times),),
        )
        for kind, numbers in where.items()
        for nth in numbers
    ]


def events_dropped(goldens: Goldens) -> list[Scenario]:
    """The resync, or a poll, finds what nobody told."""
    return _rows("dropped event", Drop(), _NTH) + _rows(
        "no event at all of", Drop(), dict.fromkeys(_NTH, (1,)), times=ALL
    )


def events_twice(goldens: Goldens) -> list[Scenario]:
    return _rows("event twice", Twice(), _NTH) + _rows(
        "every event twice of", Twice(), dict.fromkeys(_NTH, (1,)), times=ALL
    )


def events_reordered(goldens: Goldens) -> list[Scenario]:
    return _rows("event after the next", Later(), _NTH)


def streams_broken(goldens: Goldens) -> list[Scenario]:
    return (
        _rows("stream cut at", Cut(), _STREAMS)
        + _rows("410 at", Gone(), _STREAMS)
        + _rows("silence from", Silent(8.0), _STREAMS)
    )
