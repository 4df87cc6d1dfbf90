"""A stage that is killed again and again pays no answer twice, and ends as one that was not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from scripted_llm import Script, Server
from unit.stages.scripted_sdg import documents, outcome_in, request_of, scripted

pytestmark = pytest.mark.usefixtures("no_proxy")
_ROOT = Path(__file__).parents[3]
KILLS = 20


def started(env: dict[str, str]) -> subprocess.Popen[bytes]:
    path = {"PYTHONPATH": str(_ROOT / "stage_images"), "NO_PROXY": "*"}
    return subprocess.Popen([sys.executable, "-m", "embedding_stages.sdg"], env=os.environ | env | path)


def killed(process: subprocess.Popen[bytes], server: Server, answers: int) -> bool:
    """Kill it after so many more answers, of which it has had time to write the last down; False when it was done."""
    wanted = server.state.stats()["answered"] + answers
    while server.state.stats()["answered"] < wanted:
        if process.poll() is not None:
            return False
        time.sleep(0.005)
    server.state.may_answer.clear()
    time.sleep(0.3)  # what was answered before arrives
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(0.1)  # and the kernel hangs up
    server.state.may_answer.set()
    return True


def test_nothing_answered_is_paid_twice_over_twenty_kills(tmp_path: Path) -> None:
    script = Script(latency=(0.02, 0.2), junk=0.05, cut=0.05, rate=60, burst=20)
    texts = documents(150)
    with Server(script) as server:
        env = request_of(tmp_path, server.url, texts)
        for _ in range(KILLS):
            assert killed(started(env), server, 12), "it was done before the last kill"
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
