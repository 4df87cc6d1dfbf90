"""A document that an endpoint cannot answer is left out; an endpoint that is down is told."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scripted_llm import Script, Server
from unit.stages.llm_endpoint import FIELD, Endpoint, Reply, good, is_judge, sdg
from unit.stages.scripted_sdg import designed, documents

from embedding_stages.formats.pairs import Pair
from embedding_stages.http_client import Answer, HttpClient, NoAnswerError
from embedding_stages.sdg import failures
from embedding_stages.sdg.answers import MISSING
from embedding_stages.sdg.written import Written

SIX = "unit 6."
Ends = Callable[[], Answer]


def status(number: int, text: str) -> Ends:
    return lambda: Answer(status=number, body=text.encode())


def raising(error: Exception) -> Ends:
    def end() -> Answer:
        raise error

    return end


ENDS: dict[str, tuple[Ends, str, str]] = {
    "a server error": (status(500, "Internal server error"), "missingAnswers", "HTTP 500 Internal"),
    "a time-out": (raising(TimeoutError("timed out")), "missingAnswers", "no answer within 300 s; bound answers with"),
    "a lost connection": (raising(http.client.RemoteDisconnected("bye")), "missingAnswers", "RemoteDisconnected"),
    "half an answer": (raising(http.client.IncompleteRead(b"{", 9)), "missingAnswers", "IncompleteRead"),
    "a firewall": (status(403, "<html>Blocked</html>"), "missingAnswers", "HTTP 403"),
    "an error of status 403": (status(200, '{"error": {"code": 403}}'), "missingAnswers", "a firewall"),
}


class Ending:
    """Takes the place of `HttpClient.send`: what is asked ends so where it `holds`, and goes its way otherwise."""

    def __init__(self, patch: pytest.MonkeyPatch, end: Ends, holds: Callable[[str], bool]) -> None:
        self.asked: list[str] = []
        self.end = end
        send = HttpClient.send

        def instead(client: HttpClient, method: str, path: str, body: Any, **more: Any) -> Answer:
            self.asked.append(json.dumps(body))
            return self.end() if holds(self.asked[-1]) else send(client, method, path, body, **more)

        patch.setattr(HttpClient, "send", instead)


@pytest.mark.parametrize("at_once", [1, 8])
@pytest.mark.parametrize("name", ENDS)
def test_a_document_that_is_never_answered_is_left_out_and_counted(
    tmp_path: Path,
    endpoint: type[Endpoint],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    name: str,
    at_once: int,
) -> None:
    end, counted, said = ENDS[name]
    Ending(monkeypatch, end, lambda body: SIX in body)
    code, result, pairs = sdg(tmp_path, endpoint.url, documents=8, concurrency=at_once)
    assert (code, len(pairs), result["counts"][counted]) == (0, 7, 1), result
    line = next(line for line in capfd.readouterr().out.splitlines() if "a section is left out" in line)
    assert '"document": "d6"' in line
    assert said in line


@pytest.mark.parametrize("name", ENDS)
def test_so_is_the_last_one_that_is_left_for_an_attempt(
    tmp_path: Path, endpoint: type[Endpoint], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Nobody else is answered meanwhile, and what was answered before says nothing of now."""
    end, counted, _ = ENDS[name]
    ending = Ending(monkeypatch, status(401, ""), lambda body: SIX in body)
    assert sdg(tmp_path, endpoint.url, documents=7, concurrency=1)[0] == 10
    ending.end = end
    ending.asked.clear()
    code, result, pairs = sdg(tmp_path, endpoint.url, documents=7, attempt=2)
    assert (code, len(pairs), result["counts"][counted]) == (0, 6, 1), result
    assert [SIX in body for body in ending.asked[-2:]] == [False, True], "something small, then it a last time"


def test_a_judge_that_does_not_answer_about_one_document_costs_that_one(
    tmp_path: Path, endpoint: type[Endpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    Ending(monkeypatch, status(500, ""), lambda body: SIX in body and is_judge(json.loads(body)))
    code, result, pairs = sdg(tmp_path, endpoint.url, documents=8)
    assert (code, len(pairs), result["counts"]["missingAnswers"]) == (0, 7, 1), result


@pytest.mark.parametrize("name", ENDS)
def test_one_that_is_answered_again_meanwhile_is_kept(
    tmp_path: Path, endpoint: type[Endpoint], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The endpoint was away for as long as all tries took."""
    answered: list[str] = []

    def away(body: str) -> bool:
        answered.extend([body] if SIX not in body else [])
        return SIX in body and "messages" in body and not _is_small(answered[-1:])

    Ending(monkeypatch, ENDS[name][0], away)
    code, result, pairs = sdg(tmp_path, endpoint.url, documents=8, concurrency=1)
    assert (code, len(pairs), result["counts"].get(ENDS[name][1], 0)) == (0, 8, 0), result


def test_what_is_asked_to_tell_them_apart_says_nothing_of_parameters(
    tmp_path: Path, endpoint: type[Endpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has those of the request: without them it would be taken for one that the endpoint takes with all of them."""

    def reply(body: dict[str, Any], number: int) -> Reply:
        return (400, {"error": "no"}, {}) if "response_format" in body else good(body, number)

    endpoint.reply = staticmethod(reply)  # type: ignore[assignment]
    Ending(monkeypatch, status(403, ""), lambda body: "unit 0." in body)
    code, result, pairs = sdg(tmp_path, endpoint.url, documents=8, concurrency=1)
    assert (code, len(pairs), result["counts"]["missingAnswers"]) == (0, 7, 1), result


def _is_small(bodies: list[str]) -> bool:
    return any(len(json.loads(body)["messages"]) == 1 for body in bodies)


DOWN: dict[str, tuple[Ends, int, str, str]] = {
    "a server error": (status(503, "down"), 20, "LLMUnavailable", "baseURL"),
    "a time-out": (raising(TimeoutError("timed out")), 20, "LLMUnreachable", "baseURL"),
    "a lost connection": (raising(http.client.RemoteDisconnected("bye")), 20, "LLMUnreachable", "baseURL"),
    "a key that is revoked": (status(401, "revoked"), 10, "LLMUnauthorized", "apiKeySecretRef"),
    "a key that is forbidden": (status(403, "revoked"), 10, "LLMUnauthorized", "apiKeySecretRef"),
    "a limit of requests": (status(429, "slow down"), 20, "LLMUnavailable", "baseURL"),
}


@pytest.mark.parametrize("name", DOWN)
def test_an_endpoint_that_goes_down_in_the_middle_is_told_and_costs_no_document(
    tmp_path: Path, endpoint: type[Endpoint], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    end, expected, reason, field = DOWN[name]
    is_down = True
    ending = Ending(monkeypatch, end, lambda _: is_down and len(ending.asked) > 9)
    # One at once, so that nothing of this attempt is under way in this process beside the next one.
    code, result, _ = sdg(tmp_path, endpoint.url, documents=20, concurrency=1)
    assert (code, result["reason"], result["field"]) == (expected, reason, f"{FIELD}.{field}"), result
    is_down = False
    code, result, pairs = sdg(tmp_path, endpoint.url, documents=20, attempt=2)
    assert (code, len(pairs)) == (0, 20), result
    assert "missingAnswers" not in result["counts"]


def test_a_time_out_says_how_long_it_was_and_what_bounds_answers() -> None:
    error = failures.unreachable(NoAnswerError(TimeoutError("timed out"), 300.0), "'http://a'")
    assert "no answer within 300 s" in error.message
    assert f"{FIELD}.parameters: {{max_tokens: 8192}}" in error.message
    not_made = failures.unreachable(NoAnswerError(TimeoutError(110, "Connection timed out"), 300.0), "'http://a'")
    assert "no connection to the LLM endpoint (TimeoutError)" in not_made.message


@pytest.mark.parametrize("at_once", [1, 8])
@pytest.mark.parametrize("role", ["writer", "judge", "both"])
def test_more_documents_than_one_of_fifty_end_the_attempt_and_cost_nothing(
    tmp_path: Path, endpoint: type[Endpoint], monkeypatch: pytest.MonkeyPatch, role: str, at_once: int
) -> None:
    """So looks an endpoint that is overloaded: what is asked to tell them apart is small, and answered."""
    is_down = True

    def holds(body: str) -> bool:
        asked = json.loads(body)
        is_small = len(asked["messages"]) == 1
        of_role = role == "both" or is_judge(asked) == (role == "judge")
        return is_down and not is_small and of_role and any(f"unit {number}." in body for number in (3, 5))

    Ending(monkeypatch, ENDS["a time-out"][0], holds)
    code, result, _ = sdg(tmp_path, endpoint.url, documents=12, concurrency=at_once)
    assert (code, result["reason"], result["field"]) == (20, "LLMUnavailable", f"{FIELD}.baseURL"), result
    assert "more than 1 of this attempt got no answer" in result["message"]
    assert "no answer within 300 s" in result["message"]
    is_down = False
    code, result, pairs = sdg(tmp_path, endpoint.url, documents=12, attempt=2)
    assert (code, len(pairs)) == (0, 12), result
    assert "missingAnswers" not in result["counts"]


def test_one_of_fifty_documents_is_done_without(
    tmp_path: Path, endpoint: type[Endpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    left_out = [f"unit {number}." for number in (3, 40)]
    Ending(monkeypatch, ENDS["a server error"][0], lambda body: any(one in body for one in left_out))
    code, result, pairs = sdg(tmp_path, endpoint.url, documents=50)
    assert (code, len(pairs), result["counts"]["missingAnswers"]) == (0, 48, 2), result


def test_a_section_that_got_no_answer_is_asked_about_again_by_the_next_attempt(tmp_path: Path) -> None:
    """Also where others of its document have given questions."""
    document = Written("d", pairs=[Pair.about("d", "What is it?", ("p",), kind="fact", score=9.0)])
    document.usage.calls = 3
    document.save(tmp_path / "whole.json")
    document.odd.add(MISSING, "HTTP 500")
    document.save(tmp_path / "lost.json")
    assert [path.name for path in tmp_path.iterdir()] == ["whole.json"]


@pytest.mark.usefixtures("no_proxy")
@pytest.mark.parametrize("name", ["a server error", "a firewall"])
def test_data_designer_goes_on_without_a_row_that_is_never_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    texts = documents(8)
    text = texts["d0006"][:40]
    end, counted, _ = ENDS[name]
    Ending(monkeypatch, end, lambda body: text in body)
    monkeypatch.setattr("embedding_stages.sdg.openai_client._FIRST_WAIT_S", 0.01)
    monkeypatch.setattr("embedding_stages.sdg.openai_client._LONGEST_WAIT_S", 0.01)
    with Server(Script()) as server:
        code, result, pairs = designed(tmp_path, server, texts)
    assert (code, len({pair["document_id"] for pair in pairs}), result["counts"][counted]) == (0, 7, 1), result
