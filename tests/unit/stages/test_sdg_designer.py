"""Questions by NeMo Data Designer, the real library, against the scripted endpoint."""

from __future__ import annotations

import json
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from scripted_llm import Script, Server
from unit.stages.only_here import sitecustomize
from unit.stages.scripted_sdg import PRICES, designed, documents, killed_when_written, outcome_in, request_of, started

from embedding_stages.formats.pairs import normalised

pytestmark = pytest.mark.usefixtures("no_proxy", "nothing_but_this_machine")
FIELD = "spec.stages.sdg.provider.dataDesigner"
EMBEDDING = {"embedding": {"model": "e"}}


def test_the_whole_pipeline(tmp_path: Path, nothing_but_this_machine: Path) -> None:
    with Server(Script()) as server:
        code, result, pairs = designed(tmp_path, server, documents(12), endpoint=EMBEDDING, qualityThreshold=7.0)
        stats = server.state.stats()
    assert code == 0, result
    assert nothing_but_this_machine.read_text().splitlines() == [sitecustomize.STARTED], "the library's process"
    assert stats["roles"] == {"extractor": 12, "writer": 12, "embedder": 12, "judge": 12}
    details = result["details"]
    assert details["llmTokens"]["prompt"] == stats["prompt"]
    assert set(details["judgeScores"]) == {"relevance", "accuracy", "support", "clarity"}
    assert sum(details["questionTypes"].values()) == len(pairs)
    assert sum(details["reasoningTypes"].values()) == len(pairs)
    assert "1" not in details["complexities"]
    assert result["counts"]["keptPairs"] == sum(pair["score"] >= 7 for pair in pairs)
    for pair in pairs:
        assert (pair["type"] == "multi_hop") <= (len(pair["chunk_ids"]) in (2, 3))
    assert any(pair["type"] == "multi_hop" for pair in pairs)
    passages = {json.loads(line)["id"] for line in next(tmp_path.rglob("chunks.jsonl")).read_text().splitlines()}
    assert {name for pair in pairs for name in pair["chunk_ids"]} <= passages
    assert len({normalised(pair["question"]) for pair in pairs}) == len(pairs)


@pytest.mark.parametrize(
    ("design", "seen"),
    [
        ({"hops": 1}, {"hops": {"1"}, "questionTypes": {"structural", "contextual"}}),
        ({"hops": 2}, {"questionTypes": {"structural", "contextual", "multi_hop"}}),
        ({"complexity": 4}, {"complexities": {"4", "5"}}),
        ({"types": {"multiHop": 0, "structural": 1, "contextual": 0}}, {"questionTypes": {"structural"}}),
        ({"reasoning": ["causal"]}, {}),
    ],
    ids=lambda value: json.dumps(value, default=sorted),  # a set has another order in each process
)
def test_what_the_manifest_asks_for(tmp_path: Path, design: dict[str, Any], seen: dict[str, set[str]]) -> None:
    with Server(Script()) as server:
        code, result, pairs = designed(tmp_path, server, documents(6), design=design)
    assert code == 0, result
    details = result["details"]
    for name, values in seen.items():
        assert set(details[name]) <= values
    if design.get("hops") == 2:
        assert all(len(pair["chunk_ids"]) == 2 for pair in pairs if pair["type"] == "multi_hop")
        assert any(len(pair["chunk_ids"]) == 3 for pair in pairs), "what names more is of another type, and keeps them"
    if "complexity" in design:
        assert result["counts"]["droppedSimple"] > 0


def test_questions_that_ask_the_same_are_dropped_before_they_are_judged(tmp_path: Path) -> None:
    with Server(Script()) as server:
        _, plain, _ = designed(tmp_path / "plain", server, documents(6))
        _, strict, pairs = designed(
            tmp_path / "strict", server, documents(6), endpoint=EMBEDDING, design={"duplicateCosine": 0.7}
        )
    assert "droppedAlike" not in plain["counts"] or plain["counts"]["droppedAlike"] == 0
    assert strict["counts"]["droppedAlike"] == plain["counts"]["pairs"] - len(pairs) > 0
    assert strict["details"]["embeddingTokens"]["calls"] == 6


def test_documents_are_asked_about_together(tmp_path: Path) -> None:
    with Server(Script()) as server:
        code, _, pairs = designed(tmp_path, server, documents(6), design={"documentsPerBundle": 3})
        assert server.state.stats()["roles"]["writer"] == 2
    assert code == 0
    assert {pair["document_id"] for pair in pairs} == {"d0000", "d0003"}
    together = [pair for pair in pairs if len({name.rsplit("-", 1)[0] for name in pair["chunk_ids"]}) > 1]
    assert together
    assert {pair["type"] for pair in together} == {"multi_hop"}


def test_one_document_alone_is_asked_about(tmp_path: Path) -> None:
    """Statistics of one row ended the library, and the stage as a bug, also where it was the last one of a batch."""
    with Server(Script()) as server:
        code, result, pairs = designed(tmp_path, server, documents(1))
    assert (code, len(pairs)) == (0, 7), result


def test_a_preview_counts_documents_and_not_what_is_asked_about_together(tmp_path: Path) -> None:
    with Server(Script()) as server:
        code, result, _ = designed(tmp_path, server, documents(12), design={"documentsPerBundle": 3}, preview=5)
        assert server.state.stats()["roles"]["writer"] == 2
        again = designed(tmp_path, server, documents(12), design={"documentsPerBundle": 3}, preview=5)
        assert server.state.stats()["roles"]["writer"] == 2
    assert (code, result["reason"]) == (40, "PreviewDone")
    assert result["message"].startswith("6 of 12 documents gave ")
    assert again[1]["message"] == result["message"], "what was learned is there for the next attempt"


def test_nonsense_costs_tries_and_no_rows(tmp_path: Path) -> None:
    with Server(Script(junk=0.15, cut=0.1)) as server:
        code, result, pairs = designed(tmp_path, server, documents(20))
        stats = server.state.stats()
    assert (code, stats["answeredTwice"]) == (0, 0)
    assert result["counts"]["unreadableAnswers"] > 0
    assert len({pair["document_id"] for pair in pairs}) >= 18


def test_a_preview_and_a_budget_hold_here_too(tmp_path: Path) -> None:
    texts = documents(40)
    with Server(Script()) as server:
        code, result, _ = designed(tmp_path, server, texts, preview=5, prices=PRICES)
        assert (code, result["reason"], server.state.stats()["answered"]) == (40, "PreviewDone", 15)
        told = [float(one) for one in re.findall(r"about (\d+) and (\d+), a price of ([\d.e-]+)", result["message"])[0]]
        code, result, _ = designed(tmp_path, server, texts, maxTokensTotal=45_000)
        spent = server.state.stats()
        assert (code, result["reason"]) == (40, "TokenBudgetSpent"), result
        assert 30_000 < spent["prompt"] + spent["completion"] <= 45_000
        code, result, _ = designed(tmp_path, server, texts, prices=PRICES)
        stats = server.state.stats()
    assert (code, stats["answeredTwice"]) == (0, 0)
    real = (stats["prompt"], stats["completion"], result["details"]["llmCost"]["total"])
    assert told == [pytest.approx(one, rel=0.2) for one in real]


@pytest.mark.parametrize(
    ("models", "endpoint", "field"),
    [
        (["other"], {}, "model"),
        (["m"], {"judge": {"model": "nobody"}}, "judge.model"),
        (["m"], {"embedding": {"model": "nobody"}}, "embedding.model"),
    ],
)
def test_a_model_that_does_not_exist_is_named(
    tmp_path: Path, models: list[str], endpoint: dict[str, Any], field: str
) -> None:
    with Server(Script(models=models)) as server:
        code, result, _ = designed(tmp_path, server, documents(3), endpoint=endpoint)
    assert (code, result["reason"], result["field"]) == (10, "LLMModelNotFound", f"{FIELD}.{field}")


def test_a_kill_costs_no_answer(tmp_path: Path) -> None:
    script = Script(latency=(0.02, 0.2), junk=0.05, cut=0.05)
    texts = documents(60)
    with Server(script) as server:
        env = request_of(tmp_path, server.url, texts, provider="dataDesigner", endpoint=EMBEDDING)
        for _ in range(3):
            assert killed_when_written(started(env), server, 25, tmp_path), "it was done before the last kill"
        assert started(env).wait() == 0
        stats = server.state.stats()
        result, pairs = outcome_in(tmp_path)
    assert stats["answeredTwice"] == 0
    assert result["details"]["llmTokens"]["calls"] == stats["answered"]
    with Server(script) as server:
        _, _, unbroken = designed(tmp_path / "unbroken", server, texts, endpoint=EMBEDDING)
    assert pairs == unbroken


def test_a_pod_that_has_to_end_ends(tmp_path: Path) -> None:
    with Server(Script(latency=(0.5, 1.0))) as server:
        process = started(request_of(tmp_path, server.url, documents(60), provider="dataDesigner"))
        deadline = time.monotonic() + 30
        while server.state.stats()["answered"] < 5 and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=25) == 20
    assert outcome_in(tmp_path)[0]["reason"] == "Interrupted"
