"""A world for elections: an API server that keeps one Lease, replicas with clocks of their own, and time.

Time passes while a request is under way, and whatever else happens then, happens then. A write is carried out somewhere
between being sent and being answered; the answer may be lost, and a replica may be stopped before it hears it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from embedding_operator.cluster.election import Terms
from embedding_operator.cluster.errors import Conflict, Rejected, Unavailable
from embedding_operator.cluster.tenure import Tenure
from embedding_operator.leadership import Elector

WHERE = ("home", "operator")
LEASE = ("Lease", *WHERE)
TERMS = Terms(lease_s=15, renew_s=10, retry_s=2)
_BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class World:
    """`trouble` is the share of requests that go wrong. After each moment `leaders` is looked at."""

    random: Random
    trouble: float = 0.0
    now: float = 0.0
    lease: dict[str, Any] | None = None
    away_until: float = 0.0  # the API server
    replicas: list[Replica] = field(default_factory=list)
    terms_of: list[str] = field(default_factory=list)  # who led, one after the other
    _version: int = 0

    def pass_time(self, seconds: float) -> None:
        """In small steps, so that nobody leads unseen."""
        ends = self.now + seconds
        while self.now < ends:
            self.now = min(ends, self.now + 0.25)
            self.check()

    def check(self) -> None:
        leaders = [replica.name for replica in self.replicas if replica.tenure.holds()]
        assert len(leaders) <= 1, f"at {self.now:g} s {leaders} may write"
        for name in leaders:
            if self.terms_of[-1:] != [name]:
                self.terms_of.append(name)

    def run(self, seconds: float) -> None:
        """Replicas take their turns, whoever is due first."""
        ends = self.now + seconds
        while (due := min(self.replicas, key=lambda replica: replica.due)).due < ends:
            self.pass_time(due.due - self.now)
            due.turn()
        self.pass_time(ends - self.now)

    def read(self) -> dict[str, Any] | None:
        return None if self.lease is None else {**self.lease, "spec": dict(self.lease["spec"])}

    def write(self, lease: Mapping[str, Any]) -> dict[str, Any]:
        known = lease["metadata"].get("resourceVersion")
        if known is None and self.lease is not None:
            raise Conflict("create", *LEASE, "exists")
        if known is not None and self.lease is None:
            raise Rejected("update", *LEASE, "not found")
        if self.lease is not None and known != self.lease["metadata"]["resourceVersion"]:
            raise Conflict("update", *LEASE, "modified")
        self._version += 1
        self.lease = {**lease, "metadata": {**lease["metadata"], "resourceVersion": str(self._version)}}
        return self.read() or {}


class Replica:
    """One process. Its clock shows something else than the others', and it may be stopped for a while."""

    def __init__(self, world: World, name: str, terms: Terms = TERMS) -> None:
        self.world, self.name = world, name
        self.clock_ahead = world.random.uniform(-1e6, 1e6)
        self.due = world.now + world.random.random() * 2
        self.rests = 0
        self.tenure = Tenure(clock=lambda: world.now + self.clock_ahead)
        self.elector = Elector(
            leases=self,
            tenure=self.tenure,
            terms=terms,
            me=name,
            where=WHERE,
            lead=lambda: None,
            rest=self._rest,
            random=world.random,
            utc=lambda: _BEGAN + timedelta(seconds=world.now + self.clock_ahead % 7200),
        )
        world.replicas.append(self)

    def turn(self) -> None:
        pause = self.elector.turn()
        self.due = self.world.now + pause

    def read_lease(self, namespace: str, name: str, *, within_s: float) -> dict[str, Any] | None:
        self._on_its_way("get", within_s)
        found = self.world.read()
        self._on_its_way("get", within_s)
        return found

    def write_lease(self, lease: Mapping[str, Any], *, within_s: float) -> dict[str, Any]:
        self._on_its_way("update", within_s)
        written = self.world.write(lease)
        self._on_its_way("update", within_s)
        return written

    def _on_its_way(self, verb: str, within_s: float) -> None:
        world = self.world
        if world.now < world.away_until or world.random.random() < world.trouble / 2:
            world.pass_time(world.random.random() * within_s / 2)
            raise Unavailable(verb, *LEASE, "no answer")
        if world.random.random() < world.trouble / 4:
            world.pass_time(world.random.random() * 60)  # stopped, and woken
        world.pass_time(world.random.random() * 0.02)

    def _rest(self) -> None:
        self.rests += 1
        assert not self.tenure.holds()
        self.world.pass_time(self.world.random.random())
