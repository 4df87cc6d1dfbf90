"""What rings: news, for whom somebody works. Everything else only keeps the cache true."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from random import Random
from typing import Any

import pytest
from prometheus_client import REGISTRY
from simulation.fake_cluster import NAMESPACE, FakeCluster

from embedding_operator import replica as replica_module
from embedding_operator.cluster.lists import Lists
from embedding_operator.cluster.tenure import Tenure
from embedding_operator.decide.decision import Event
from embedding_operator.handlers import Doorbell
from embedding_operator.resource.api import KIND
from embedding_operator.resource.labels import OWNER_LABEL
from embedding_operator.settings import Settings

KEY = (NAMESPACE, "handbook")
IMAGES: dict[str, str] = {
    f"IMAGE_{name}": "image:1" for name in ("SDG", "PREP", "FINETUNE", "EVALUATE", "EXPORT", "SERVE")
}


class NoLeases:
    """These doorbells stand in no election."""

    def read_lease(self, namespace: str, name: str, *, within_s: float) -> dict[str, Any] | None:
        raise AssertionError(name)

    def write_lease(self, lease: Mapping[str, Any], *, within_s: float) -> dict[str, Any]:
        raise AssertionError(lease)


def doorbell() -> Doorbell:
    cluster = FakeCluster(lambda: datetime(2026, 1, 1, tzinfo=UTC))
    settings = Settings.from_env({**IMAGES, "IMAGE_SERVE_TORCH": "image:1"})
    return Doorbell(settings, cluster, leases=NoLeases(), tenure=Tenure.without_end())


def event(kind: str, version: int, how: str | None = "MODIFIED", **more: Any) -> Any:
    name = "handbook" if kind == KIND else f"handbook-{kind.lower()}"
    meta = {"namespace": NAMESPACE, "name": name, "uid": name, "resourceVersion": str(version)}
    meta |= {"labels": {OWNER_LABEL: "handbook"}}
    return {"type": how, "object": {"metadata": meta, **more}}


def waiting_for(*events: tuple[str, Any], working: bool = True) -> tuple[bool, bool]:
    """(rung for at once, rung for in a moment), by these events."""

    async def hear() -> tuple[bool, bool]:
        door = doorbell()
        door.working = working
        for kind, told in events:
            door.hear(kind, told)
        assert door.cache.state(KEY) != doorbell().cache.state(KEY)
        return KEY in door.queue._first, KEY in door.queue._timers

    return asyncio.run(hear())


@pytest.mark.parametrize("kind", [KIND, "Job", "Deployment"])
def test_what_somebody_waits_for_rings_at_once(kind: str) -> None:
    assert waiting_for((kind, event(kind, 1))) == (True, False)


@pytest.mark.parametrize("kind", ["Pod", "Service", "PersistentVolumeClaim"])
def test_what_comes_in_bursts_is_gathered(kind: str) -> None:
    assert waiting_for((kind, event(kind, 1))) == (False, True)


@pytest.mark.parametrize("kind", [KIND, "Pod"])
def test_nobody_is_rung_for_who_does_not_work(kind: str) -> None:
    assert waiting_for((kind, event(kind, 1)), working=False) == (False, False)


def test_what_is_known_does_not_ring() -> None:
    async def hear() -> bool:
        door = doorbell()
        door.hear("Job", event("Job", 1))
        door.working = True
        door.hear("Job", event("Job", 1, None))  # Kopf's own list
        door.hear("Job", event("Job", 2, status={"active": 1}))
        return KEY in door.queue._first

    assert not asyncio.run(hear())


def test_a_deletion_rings() -> None:
    async def hear() -> bool:
        door = doorbell()
        door.hear(KIND, event(KIND, 1))
        door.working = True
        door.hear(KIND, event(KIND, 2, "DELETED"))
        assert door.cache.resource(KEY) is None
        return KEY in door.queue._first

    assert asyncio.run(hear())


def test_the_end_does_not_wait_for_an_api_server_that_is_away(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an election. The request under way has its own time limit; what waits behind it is given up."""
    monkeypatch.setattr(replica_module, "_LAST_EVENTS_S", 0.1)
    away, asked = threading.Event(), threading.Event()

    async def end() -> None:
        door = doorbell()
        door.filled.set()

        def post(*_: Any) -> None:
            asked.set()
            away.wait()

        door.cluster.post_event = post  # type: ignore[method-assign]
        door.replica.lead()
        said = [Event(type="Warning", reason="Said", message=str(number)) for number in range(50)]
        door.events.post(event(KIND, 1)["object"], said, "2026-01-01T00:00:00Z")
        await asyncio.to_thread(asked.wait)
        await door.stop()
        away.set()

    asyncio.run(end())
    assert "50 events not posted: the operator ends" in caplog.text


def test_work_waits_for_the_cache_and_begins_with_what_is_not_ready() -> None:
    async def begin() -> tuple[list[Any], list[Any]]:
        door = doorbell()
        for name, status in (("ready", {"phase": "Ready", "observedGeneration": 1}), ("new", {})):
            meta = {"namespace": NAMESPACE, "name": name, "uid": name, "resourceVersion": "1", "generation": 1}
            door.cache.put(KIND, {"metadata": meta, "status": status})
        work = asyncio.create_task(door.work())
        await asyncio.sleep(0)
        assert not door.working
        door.filled.set()
        await asyncio.sleep(0)
        found = list(door.queue._first), list(door.queue._later)
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        assert not door.working
        return found

    assert asyncio.run(begin()) == ([(NAMESPACE, "new")], [(NAMESPACE, "ready")])


def test_a_resync_that_takes_long_comes_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    async def listen() -> tuple[float, float | None]:
        door = doorbell()
        door.filled.set()
        monkeypatch.setattr(door, "_catch_up", lambda: (set(), 9.6))
        door.last_resync = before = door.last_resync - 1000
        listening = asyncio.create_task(door.listen())
        while door.last_resync == before:
            await asyncio.sleep(0.01)
        listening.cancel()
        return door.interval_s, REGISTRY.get_sample_value("embedding_operator_resync_interval_seconds")

    assert asyncio.run(listen()) == (1920, 1920)


@pytest.mark.parametrize(
    ("filled", "done", "most"),
    [(False, False, 3.0), (True, False, 30.0), (True, True, 1.1 * 900)],
    ids=["no list yet", "a resync failed", "a resync was done"],
)
def test_the_pause_before_the_next_list(filled: bool, done: bool, most: float) -> None:
    async def pause_s() -> float:
        door = doorbell()
        door.interval_s = 900.0
        if filled:
            door.filled.set()
        return door._pause_s(Random(1), done=done)

    assert 0.8 * most < asyncio.run(pause_s()) <= most


def test_a_watch_that_begins_anew_takes_in_what_it_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def versions() -> list[str]:
        door = doorbell()
        known = {("Job", None): "7"}
        monkeypatch.setattr(Lists, "since", lambda _, *of: known.pop(of, ""))
        monkeypatch.setattr(Lists, "begin_anew", lambda *_: ("9", {(NAMESPACE, "changed"), (NAMESPACE, "gone")}))
        door.working = True
        told = [await door.list_for_watch("Job", None) for _ in range(2)]
        assert set(door.queue._first) == {(NAMESPACE, "changed"), (NAMESPACE, "gone")}
        return told

    assert asyncio.run(versions()) == ["7", "9"]
