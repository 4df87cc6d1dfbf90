"""What the kubelet hears over HTTP from an operator whose first list takes its time."""

from __future__ import annotations

import asyncio
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Generator
from datetime import UTC, datetime
from typing import Any

import kopf
import pytest
from simulation.fake_cluster import FakeCluster
from unit.operator.test_doorbell import IMAGES, NoLeases

from embedding_operator.cluster.tenure import Tenure
from embedding_operator.handlers import Doorbell, register
from embedding_operator.probes import ALIVE, READY, Probes
from embedding_operator.settings import Settings


def test_both_families_are_listened_at() -> None:
    """A cluster may have IPv6 alone, and the kubelet asks at the pod's first address."""

    async def ask() -> list[str]:
        probes = Probes(port=0, alive=str, ready=str)
        await probes.start()
        answers = []
        for host in ("127.0.0.1", "::1") if socket.has_dualstack_ipv6() else ("127.0.0.1",):
            reader, writer = await asyncio.open_connection(host, probes.port)
            writer.write(f"GET {ALIVE} HTTP/1.0\r\n\r\n".encode())
            answers.append((await reader.read()).decode().splitlines()[-1])
            writer.close()
        await probes.stop()
        return answers

    assert set(asyncio.run(ask())) == {"ok"}


class SlowToList(FakeCluster):
    """Its lists end when they may."""

    def __init__(self) -> None:
        super().__init__(lambda: datetime(2026, 1, 1, tzinfo=UTC))
        self.may_list = threading.Event()

    def each(self, *arguments: Any, **named: Any) -> Generator[dict[str, Any], None, str]:
        assert self.may_list.wait(30)
        return super().each(*arguments, **named)


def doorbell(cluster: FakeCluster, **env: str) -> Doorbell:
    ports = {"LIVENESS_PORT": "0", "METRICS_PORT": "0", "METRICS_RESOURCES": "0"}
    settings = Settings.from_env({**IMAGES, "IMAGE_SERVE_TORCH": "image:1", **ports, **env})
    return Doorbell(settings, cluster, leases=NoLeases(), tenure=Tenure.without_end())


async def asked(door: Doorbell, path: str) -> tuple[int, str]:
    """(HTTP's code, the words)."""

    def get() -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{door.probes.port}{path}", timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    return await asyncio.to_thread(get)


def test_a_new_replica_is_alive_at_once_and_ready_when_its_cache_is_filled() -> None:
    async def story() -> None:
        cluster = SlowToList()
        door = doorbell(cluster)
        await door.start()
        assert await asked(door, ALIVE) == (200, "ok")
        assert await asked(door, READY) == (503, "the cache is not filled yet")
        cluster.may_list.set()
        await door.filled.wait()
        assert await asked(door, READY) == (200, "ok")
        ending = asyncio.ensure_future(door.stop())
        await asyncio.sleep(0)
        assert door.not_ready() == "the operator ends"
        await ending

    asyncio.run(story())


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (lambda door: setattr(door, "last_resync", float("-inf")), "no resync completed for three intervals"),
        (lambda door: door.tasks[0].cancel(), "what keeps the cache true has ended"),
        (lambda door: door.replica.leading.cancel(), "the election has stopped, or the work of the leader has"),
    ],
    ids=["resyncs", "listening", "working"],
)
def test_one_that_does_no_work_is_not_alive(fault: Any, words: str, caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        cluster = SlowToList()
        cluster.may_list.set()
        door = doorbell(cluster)
        await door.start()
        await door.filled.wait()
        fault(door)
        assert await asked(door, ALIVE) == (503, words)
        await door.stop()

    asyncio.run(story())
    assert f"not alive: {words}" in caplog.text


def test_a_port_that_is_taken_ends_the_start(caplog: pytest.LogCaptureFixture) -> None:
    registry = kopf.OperatorRegistry()
    with socket.socket() as other:
        other.bind(("0.0.0.0", 0))
        other.listen()
        register(registry, doorbell(SlowToList(), LIVENESS_PORT=str(other.getsockname()[1])))
        with pytest.raises(Exception, match="handlers failed"):
            kopf.run(registry=registry, standalone=True, clusterwide=True)
    assert "LIVENESS_PORT or METRICS_PORT cannot be listened on" in caplog.text


def test_one_that_is_asked_to_end_while_it_starts_ends() -> None:
    """Its API server does not answer yet, and Kopf has not begun to watch."""
    cluster = SlowToList()
    door = doorbell(cluster)
    registry = kopf.OperatorRegistry()
    register(registry, door)

    async def story() -> None:
        end = asyncio.Event()
        operator = asyncio.create_task(
            kopf.operator(registry=registry, standalone=True, clusterwide=True, stop_flag=end)
        )
        while not door.tasks:
            await asyncio.sleep(0.01)
        end.set()
        await asyncio.wait([operator])
        assert door.end.is_set()
        assert all(task.done() for task in door.tasks)
        cluster.may_list.set()  # the thread that lists ends with its request

    asyncio.run(story())
