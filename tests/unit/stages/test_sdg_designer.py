"""Questions by NeMo Data Designer, the real library, against the scripted endpoint."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scripted_llm import Script, Server
from unit.stages.scripted_sdg import documents, scripted

from embedding_stages.formats.pairs import normalised

pytestmark = pytest.mark.usefixtures("no_proxy", "nothing_but_this_machine")
FIELD = "spec.stages.sdg.provider.dataDesigner"
EMBEDDING = {"embedding": {"model": "e"}}


@pytest.fixture
def nothing_but_this_machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A name that is looked up, or an address elsewhere, is a call that must not be."""
    asked: list[Any] = []
    connect, look_up = socket.socket.connect, socket.getaddrinfo

    def checked(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1"):
            asked.append(address)
            raise OSError(f"{address} is not this machine")
        connect(self, address)

    def only_here(host: Any, *rest: Any, **more: Any) -> Any:
        if host not in ("127.0.0.1", "localhost", None):
            asked.append(host)
            raise OSError(f"{host} is not this machine")
        return look_up(host, *rest, **more)

    monkeypatch.setattr(socket.socket, "connect", checked)
    monkeypatch.setattr(socket, "getaddrinfo", only_here)
    yield
    assert asked == []


def designed(
    tmp_path: Path, server: Server, texts: dict[str, str], **changes: Any
) -> tuple[int, dict[str, Any], list[dict[str, Any]]]:
    return scripted(tmp_path, server.url, texts, provider="dataDesigner", **changes)


def test_the_whole_pipeline(tmp_path: Path) -> None:
    with Server(Script()) as server:
        code, result, pairs = designed(tmp_path, server, documents(12), endpoint=EMBEDDING, qualityThreshold=7.0)
        stats = server.state.stats()
    assert code == 0, result
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
