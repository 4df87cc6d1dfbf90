"""Who leads: what a replica does next, from what it has read of the Lease and since when. Pure.

Clocks of two machines differ, so times in a Lease are for people. A replica waits for as long as the Lease lasts from
the moment at which it saw the Lease change, by its own clock; the leader stops earlier, counted from before it renewed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

Raw = Mapping[str, Any]
_JITTER: Final = 0.2  # of the pause between two looks, so that replicas do not look at the same time for ever


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Seconds. `lease_s` is greater than `renew_s`, and that greater than `retry_s`."""

    lease_s: float = 15  # the others wait for as long before they take the Lease
    renew_s: float = 10  # the leader stops when it could not renew for as long
    retry_s: float = 2  # between two looks


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What a Lease says of its holder. Another renewal is another record."""

    holder: str  # empty: it was released
    lasts_s: float
    acquired: str
    renewed: str
    transitions: int

    @classmethod
    def of(cls, lease: Raw, terms: Terms) -> Record:
        spec = lease.get("spec") or {}
        return cls(
            holder=spec.get("holderIdentity") or "",
            lasts_s=float(spec.get("leaseDurationSeconds") or terms.lease_s),
            acquired=spec.get("acquireTime") or "",
            renewed=spec.get("renewTime") or "",
            transitions=int(spec.get("leaseTransitions") or 0),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What was last seen of the Lease."""

    lease: Raw | None  # as it was read; None: there is none
    record: Record | None  # that of a Lease that is gone is kept: its holder may not know yet
    since: float  # when this record was first seen, by this process's clock


def look(before: Sight | None, lease: Raw | None, terms: Terms, now: float) -> Sight:
    """Take in what was read at `now`."""
    if lease is None:
        return Sight(lease=None, record=before.record if before else None, since=before.since if before else now)
    record = Record.of(lease, terms)
    seen_before = before is not None and before.record == record
    return Sight(lease=lease, record=record, since=before.since if before is not None and seen_before else now)


def left_s(sight: Sight, me: str, now: float) -> float:
    """For how long another replica may still lead; 0: none does, so `me` may claim the Lease.

    `me` is this process and no other, so a Lease that it holds was written by it.
    """
    record = sight.record
    if record is None or record.holder in ("", me):
        return 0.0
    return max(0.0, sight.since + record.lasts_s - now)


def pause_s(sight: Sight | None, me: str, terms: Terms, now: float, chance: float) -> float:
    """Until the next look. `chance` is from 0 to 1. A Lease that runs out is looked at in that moment."""
    pause = terms.retry_s * (1 + _JITTER * chance)
    left = left_s(sight, me, now) if sight is not None else 0.0
    return min(pause, left) if left > 0 else pause


def claimed(sight: Sight, me: str, terms: Terms, where: tuple[str, str], now: datetime) -> dict[str, Any]:
    """The Lease as `me` writes it when it creates, takes or renews it. `where` is its namespace and name."""
    record = sight.record
    mine = record is not None and record.holder == me
    moved = 0 if record is None else record.transitions + (not mine)
    spec = {
        "holderIdentity": me,
        "leaseDurationSeconds": int(terms.lease_s),
        "acquireTime": record.acquired if record is not None and mine else _micro_time(now),
        "renewTime": _micro_time(now),
        "leaseTransitions": moved,
    }
    return _with(sight, spec, where)


def released(sight: Sight, where: tuple[str, str], now: datetime) -> dict[str, Any]:
    """The Lease as its holder leaves it: nobody has to wait."""
    moved = sight.record.transitions if sight.record is not None else 0
    times = {"acquireTime": _micro_time(now), "renewTime": _micro_time(now)}
    spec = {"holderIdentity": "", "leaseDurationSeconds": 1, "leaseTransitions": moved, **times}
    return _with(sight, spec, where)


def _with(sight: Sight, spec: Raw, where: tuple[str, str]) -> dict[str, Any]:
    """What others wrote beside it stays. The resourceVersion comes with it: whoever was overtaken is refused."""
    namespace, name = where
    empty: Raw = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"namespace": namespace, "name": name},
    }
    lease = sight.lease or empty
    return dict(lease) | {"spec": {**(lease.get("spec") or {}), **spec}}


def _micro_time(now: datetime) -> str:
    return f"{now:%Y-%m-%dT%H:%M:%S.%f}Z"
