"""A row that an endpoint cannot answer is left out by Data Designer, too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from scripted_answers import role_of
from scripted_llm import Script, Server
from unit.stages.llm_endings import ENDS, Ending, is_small, prompt_of_all, status
from unit.stages.scripted_sdg import designed, documents

from embedding_stages.errors import Transient
from embedding_stages.http_client import Answer, HttpClient
from embedding_stages.sdg import designer_provider

pytestmark = pytest.mark.usefixtures("no_proxy")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedding_stages.sdg.openai_client._FIRST_WAIT_S", 0.01)
    monkeypatch.setattr("embedding_stages.sdg.openai_client._LONGEST_WAIT_S", 0.01)


@pytest.mark.parametrize("name", ["a server error", "a firewall"])
def test_data_designer_goes_on_without_a_row_that_is_never_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    texts = documents(8)
    text = texts["d0006"][:40]
    end, counted, _ = ENDS[name]
    Ending(monkeypatch, end, lambda body: text in body)
    with Server(Script()) as server:
        code, result, pairs = designed(tmp_path, server, texts)
    assert (code, len({pair["document_id"] for pair in pairs}), result["counts"][counted]) == (0, 7, 1), result
    assert '"message": "a section is left out", "document": "d0006.txt"' in capfd.readouterr().out


def test_a_second_row_before_fifty_are_answered_ends_the_attempt_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are counted, not the documents in them: each holds several here."""
    texts = {name: text[:180] for name, text in documents(40).items()}
    gone = [texts[f"d{number:04d}"][:25] for number in (0, 20)]
    Ending(monkeypatch, status(500, "boom"), lambda body: any(one in body for one in gone))
    with Server(Script()) as server:
        code, result, _ = designed(tmp_path, server, texts, design={"documentsPerBundle": 10}, pairsPerDocument=1)
    assert (code, result["reason"]) == (20, "LLMUnavailable"), result
    assert "none about the documents 'd00" in result["message"]
    assert "not known" not in result["message"]


@pytest.mark.parametrize("role", ["judge", "writer"])
def test_a_role_that_is_away_for_long_requests_ends_the_attempt_and_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    down = True

    def holds(body: str) -> bool:
        return down and "messages" in body and not is_small(body) and role_of(json.loads(body)) == role

    Ending(monkeypatch, ENDS["a time-out"][0], holds)
    with Server(Script()) as server:
        code, result, _ = designed(tmp_path, server, documents(12))
        assert (code, result["reason"]) == (20, "LLMUnavailable"), result
        assert "none about the documents 'd00" in result["message"]
        down = False
        code, result, pairs = designed(tmp_path, server, documents(12))
        assert server.state.stats()["answeredTwice"] == 0
    assert (code, len({pair["document_id"] for pair in pairs})) == (0, 12), result
    assert "missingAnswers" not in result["counts"]


def test_a_document_that_lost_a_section_is_not_kept_as_finished_beside_a_rejected_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = documents(8)
    texts["d0006"] = " ".join(
        f"Zebra section {number} reads the valve at {number} degrees when the harbour is cold." for number in range(250)
    )
    rejected = texts["d0003"][:40]
    send = HttpClient.send

    def instead(client: HttpClient, method: str, path: str, body: Any, **more: Any) -> Answer:
        said = json.dumps(body)
        if "Zebra section 200" in said:
            return Answer(status=500, body=b"boom")
        if rejected in said:
            return Answer(status=400, body=b"this text is not taken")
        return send(client, method, path, body, **more)

    def ended(*_: Any) -> None:
        raise Transient("Interrupted", "after this batch")

    monkeypatch.setattr(HttpClient, "send", instead)
    monkeypatch.setattr(designer_provider, "outcome_of", ended)
    with Server(Script()) as server:
        designed(tmp_path, server, texts)
    kept = {path.stem for path in tmp_path.rglob("d0*.json")}
    assert "d0006" not in kept
    assert "d0001" in kept


def test_texts_that_a_firewall_refuses_end_the_attempt_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = documents(12)
    refused = [texts[f"d{number:04d}"][:40] for number in (3, 5, 7)]
    Ending(monkeypatch, status(403, "<html>Blocked</html>"), lambda body: any(one in body for one in refused))
    with Server(Script()) as server:
        code, result, _ = designed(tmp_path, server, texts)
    assert (code, result["reason"]) == (10, "LLMRequestRejected"), result


def test_what_an_earlier_attempt_has_finished_makes_up_for_losses_of_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = documents(66)
    lost = [texts[f"d{number:04d}"][:40] for number in (2, 64)]
    down = True
    Ending(monkeypatch, status(500, "boom"), lambda body: any(one in body for one in lost))
    outcome_of = designer_provider.outcome_of

    def once(*given: Any) -> Any:
        if down:
            raise Transient("Interrupted", "after the last batch")
        return outcome_of(*given)

    monkeypatch.setattr(designer_provider, "outcome_of", once)
    with Server(Script()) as server:
        assert designed(tmp_path, server, texts, concurrency=1)[0] == 20
        down = False
        code, result, pairs = designed(tmp_path, server, texts, concurrency=1)
    assert (code, len({pair["document_id"] for pair in pairs})) == (0, 64), result


def test_a_preview_tells_rather_too_much_where_a_row_got_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = documents(12)
    first: list[str] = []

    def holds(body: str) -> bool:
        if "messages" not in body or is_small(body) or (first and body != first[0]):
            return False
        first.append(body)
        return True

    with Server(Script()) as server:
        _, whole, _ = designed(tmp_path / "whole", server, texts, preview=2)
        Ending(monkeypatch, status(500, "boom"), holds)
        _, lossy, _ = designed(tmp_path / "lossy", server, texts, preview=2, concurrency=1)
    assert "(1 requests got no answer)" in lossy["message"]
    assert (
        prompt_of_all(whole["message"]) * 0.8 < prompt_of_all(lossy["message"]) < prompt_of_all(whole["message"]) * 1.6
    )
