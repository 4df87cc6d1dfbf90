"""The Lease is released after the last pass, and not while one may still write."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from random import Random
from typing import Any

import pytest
from simulation.election import WHERE, World

from embedding_operator import replica as module
from embedding_operator.cluster.tenure import Tenure
from embedding_operator.replica import Replica
from embedding_operator.settings import Settings

IMAGES = {f"IMAGE_{name}": "i:1" for name in ("SDG", "PREP", "FINETUNE", "EVALUATE", "EXPORT", "SERVE", "SERVE_TORCH")}
ELECTED = {"LEADER_ELECTION": "true", "POD_NAMESPACE": WHERE[0], "LEASE_NAME": WHERE[1], "RETRY_PERIOD_S": "1"}


class Bench:
    """A replica, a Lease, and a pass that ends when it is told to."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self.world = World(Random(1))
        self.tenure = Tenure()
        self.began, self.ended = threading.Event(), threading.Event()
        self.may_end = threading.Event()
        self.filled = asyncio.Event()
        settings = Settings.from_env({**IMAGES, **env})
        if settings.election is None:
            self.tenure = Tenure.without_end()
        self.may_tell = asyncio.Event()
        self.may_tell.set()
        self.replica = Replica(settings=settings, leases=self, tenure=self.tenure, work=self.work, told=self.told)

    def read_lease(self, namespace: str, name: str, *, within_s: float) -> dict[str, Any] | None:
        return self.world.read()

    def write_lease(self, lease: Mapping[str, Any], *, within_s: float) -> dict[str, Any]:
        return self.world.write(lease)

    @property
    def holder(self) -> str:
        return "" if self.world.lease is None else str(self.world.lease["spec"]["holderIdentity"])

    async def work(self) -> None:
        passing = asyncio.ensure_future(asyncio.to_thread(self._pass))
        try:
            await asyncio.Event().wait()
        finally:
            await passing

    async def told(self) -> None:
        assert self.ended.is_set() or not self.may_end.is_set(), "the last pass may still tell of something"
        assert self.tenure.holds()
        await self.may_tell.wait()

    def _pass(self) -> None:
        self.began.set()
        self.may_end.wait()
        self.ended.set()

    async def lead(self) -> None:
        self.replica.start(self.filled)
        self.filled.set()
        await asyncio.to_thread(self.began.wait)


def test_it_is_no_candidate_before_its_cache_is_filled() -> None:
    async def story() -> None:
        bench = Bench(ELECTED)
        bench.replica.start(bench.filled)
        await asyncio.sleep(0)
        assert bench.replica.elector is not None
        assert bench.replica.elector._thread is None
        assert bench.replica.alive()
        await bench.replica.stop()
        assert bench.holder == ""

    asyncio.run(story())


def test_the_lease_is_released_once_the_last_pass_has_ended() -> None:
    async def story() -> None:
        bench = Bench(ELECTED)
        await bench.lead()
        assert bench.holder
        stopping = asyncio.ensure_future(bench.replica.stop())
        await asyncio.sleep(0.2)
        assert bench.holder, "its pass may still write"
        assert bench.tenure.holds()
        bench.may_end.set()
        await stopping
        assert bench.ended.is_set()
        assert (bench.holder, bench.tenure.holds()) == ("", False)

    asyncio.run(story())


def test_with_a_pass_that_hangs_the_lease_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LAST_PASSES_S", 0.1)

    async def story() -> None:
        bench = Bench(ELECTED)
        await bench.lead()
        await bench.replica.stop()
        assert not bench.ended.is_set()
        assert bench.holder
        bench.may_end.set()

    asyncio.run(story())


@pytest.mark.parametrize("env", [ELECTED, {}], ids=["elected", "alone"])
def test_events_that_cannot_be_posted_hold_up_neither_the_other_replica_nor_the_end(
    env: dict[str, str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_LAST_EVENTS_S", 0.1)

    async def story() -> None:
        bench = Bench(env)
        await bench.lead()
        bench.may_end.set()
        bench.may_tell.clear()
        await bench.replica.stop()
        assert bench.ended.is_set()
        assert bench.holder == ""

    asyncio.run(story())
    assert "has not ended" not in caplog.text


def test_without_an_election_it_works_at_once() -> None:
    async def story() -> None:
        bench = Bench({})
        bench.replica.start(bench.filled)
        await asyncio.to_thread(bench.began.wait)
        assert bench.replica.alive()
        bench.may_end.set()
        await bench.replica.stop()
        assert bench.world.lease is None

    asyncio.run(story())


def test_a_leader_whose_work_has_failed_is_not_alive() -> None:
    async def story() -> None:
        bench = Bench({})

        async def broken() -> None:
            raise RuntimeError("broken")

        bench.replica.work = broken
        bench.replica.start(bench.filled)
        assert bench.replica.leading is not None
        await asyncio.wait([bench.replica.leading])
        assert not bench.replica.alive()
        await bench.replica.stop()

    asyncio.run(story())
