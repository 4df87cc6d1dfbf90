"""A document that an endpoint cannot answer is left out; an endpoint that is down is told."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Any

import pytest
from unit.stages.llm_endings import ENDS, Ending, Ends, is_small, raising, status
from unit.stages.llm_endpoint import FIELD, Endpoint, Reply, good, is_judge, sdg

from embedding_stages.http_client import NoAnswerError
from embedding_stages.sdg import failures

SIX = "unit 6."


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
        return SIX in body and "messages" in body and not any(map(is_small, answered[-1:]))

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
    assert f"max_tokens in {FIELD}.parameters" in error.message
    not_made = failures.unreachable(NoAnswerError(TimeoutError(110, "Connection timed out"), 300.0), "'http://a'")
    assert "no connection to the LLM endpoint (TimeoutError)" in not_made.message
