"""A server's own word that it is ready, and of which model."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest
from unit.stages.test_verify_client import Reply, client, scripted

from embedding_stages.errors import BadInput, StageError, Transient
from embedding_stages.verify.client import EndpointClient


class TestReadiness:
    def wait(self, url: str, limit: float = 60.0, check: Callable[[], None] = lambda: None) -> int:
        now = 0
        pauses = 0

        def sleep(seconds: float) -> None:
            nonlocal now, pauses
            now, pauses = now + int(seconds), pauses + 1

        EndpointClient(url, timeout_s=1.0, sleep=sleep, clock=lambda: now).wait_ready(limit, check)
        return pauses

    def test_a_slow_start_is_waited_for(self) -> None:
        with scripted(lambda _, __, number: (503 if number < 5 else 200, {})) as url:
            assert self.wait(url) == 5

    def test_the_wait_is_bounded(self) -> None:
        with scripted(lambda *_: (503, {"message": "loading"})) as url, pytest.raises(Transient) as caught:
            self.wait(url, 10.0)
        assert caught.value.reason == "EndpointNotReady"
        assert "within 10 s" in caught.value.message
        assert "loading" in caught.value.message
        assert "the server's log" in caught.value.message

    def test_nobody_there(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        with pytest.raises(Transient, match="ConnectionRefusedError"):
            self.wait(f"http://127.0.0.1:{port}", 3.0)

    def test_it_can_be_interrupted(self) -> None:
        def stop() -> None:
            raise Transient("Interrupted", "asked to stop")

        with scripted(lambda *_: (503, {})) as url, pytest.raises(StageError) as caught:
            self.wait(url, 10.0, stop)
        assert caught.value.reason == "Interrupted"


@pytest.mark.parametrize(
    ("reply", "digest"),
    [
        ((200, {"artefactDigest": "sha256:1"}), "sha256:1"),
        ((200, {"artefactDigest": 5}), None),
        ((200, {"modelInfo": []}), None),
        ((200, []), None),
        ((404, {}), None),
        ((405, "no"), None),
    ],
)
def test_the_servers_own_word(reply: Reply, digest: str | None) -> None:
    with scripted(lambda *_: reply) as url:
        assert client(url).artefact_digest() == digest


@pytest.mark.parametrize("url", ["", "svc:8000", "ftp://svc", "http://", "http://svc/path", "file:///etc/passwd"])
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(BadInput):
        client(url)
