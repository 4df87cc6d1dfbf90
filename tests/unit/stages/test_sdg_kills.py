"""A stage that is killed again and again pays no answer twice, and ends as one that was not."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path

import pytest
from scripted_llm import Script, Server
from unit.stages.scripted_sdg import documents, killed_when_written, outcome_in, request_of, scripted, started

pytestmark = pytest.mark.usefixtures("no_proxy")
KILLS = 20


def test_nothing_answered_is_paid_twice_over_twenty_kills(tmp_path: Path) -> None:
    script = Script(latency=(0.02, 0.2), junk=0.05, cut=0.05, rate=60, burst=20)
    texts = documents(150)
    with Server(script) as server:
        env = request_of(tmp_path, server.url, texts)
        for _ in range(KILLS):
            assert killed_when_written(started(env), server, 12, tmp_path), "it was done before the last kill"
        assert started(env).wait() == 0
        stats = server.state.stats()
        result, pairs = outcome_in(tmp_path)
    assert stats["answeredTwice"] == 0, stats
    told = result["details"]["llmTokens"]
    assert (told["calls"], told["prompt"], told["completion"]) == (
        stats["answered"],
        stats["prompt"],
        stats["completion"],
    )
    with Server(script) as server:
        _, _, unbroken = scripted(tmp_path / "unbroken", server.url, texts)
    assert pairs == unbroken


@pytest.mark.parametrize(("left", "read"), [(0, 1), (1, 0)], ids=["all", "all but a byte"])
def test_the_endpoint_knows_what_its_client_has_read(left: int, read: int) -> None:
    """So that what a kill costs is told apart: what the process had and lost, and what had not reached it."""
    body = json.dumps({"model": "e", "input": ["a question"]}).encode()
    with Server(Script()) as server:
        with socket.create_connection(server.server_address[:2]) as client:
            client.sendall(b"POST /v1/embeddings HTTP/1.0\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            while b"\r\n\r\n" not in (seen := client.recv(1 << 16, socket.MSG_PEEK)):
                assert seen, "it hung up"
            length = seen.index(b"\r\n\r\n") + 4 + int(seen.split(b"Content-Length: ")[1].split(b"\r\n")[0]) - left
            while length:
                length -= len(client.recv(length))
        deadline = time.monotonic() + 30
        while server.state.stats()["unsure"] and time.monotonic() < deadline:
            time.sleep(0.01)
        assert (server.state.stats()["answered"], server.state.read.total()) == (1, read)


def test_an_endpoint_that_dies_and_comes_back_is_gone_on_with(tmp_path: Path) -> None:
    script = Script(latency=(0.01, 0.1), junk=0.1, cut=0.1, rate=40, burst=10, down=[(1.0, 2.5)])
    with Server(script) as server:
        code, result, pairs = scripted(tmp_path, server.url, documents(60))
        stats = server.state.stats()
    assert (code, stats["answeredTwice"]) == (0, 0)
    assert result["counts"]["unreadableAnswers"] > 0
    assert stats["refused"] > 0
    assert len({pair["document_id"] for pair in pairs}) == 60
