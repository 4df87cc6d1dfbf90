"""A stage that is killed again and again pays no answer twice, and ends as one that was not."""

from __future__ import annotations

from pathlib import Path

import pytest
from scripted_llm import Script, Server
from unit.stages.scripted_sdg import documents, killed, outcome_in, request_of, scripted, started

pytestmark = pytest.mark.usefixtures("no_proxy")
KILLS = 20


def test_nothing_answered_is_paid_twice_over_twenty_kills(tmp_path: Path) -> None:
    script = Script(latency=(0.02, 0.2), junk=0.05, cut=0.05, rate=60, burst=20)
    texts = documents(150)
    with Server(script) as server:
        env = request_of(tmp_path, server.url, texts)
        for _ in range(KILLS):
            assert killed(started(env), server, 12, tmp_path), "it was done before the last kill"
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


def test_an_endpoint_that_dies_and_comes_back_is_gone_on_with(tmp_path: Path) -> None:
    script = Script(latency=(0.01, 0.1), junk=0.1, cut=0.1, rate=40, burst=10, down=[(1.0, 2.5)])
    with Server(script) as server:
        code, result, pairs = scripted(tmp_path, server.url, documents(60))
        stats = server.state.stats()
    assert (code, stats["answeredTwice"]) == (0, 0)
    assert result["counts"]["unreadableAnswers"] > 0
    assert stats["refused"] > 0
    assert len({pair["document_id"] for pair in pairs}) == 60
