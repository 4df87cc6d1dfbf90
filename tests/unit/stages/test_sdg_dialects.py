"""Endpoints that answer in their own way: other shapes, errors in the place of answers, answers of no use."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from unit.stages.llm_endpoint import FIELD, KEY, Endpoint, Reply, chat, good, is_judge, sdg

from embedding_stages.sdg import openai_client


def completion(message: Any, **more: Any) -> Any:
    return {"choices": [{"index": 0, "message": message, **more}], "usage": {"prompt_tokens": 10}}


def text_of(reply: Reply) -> str:
    return str(reply[1]["choices"][0]["message"]["content"])


SHAPES: dict[str, Callable[[str], Any]] = {
    "a list of parts": lambda text: completion(
        {"content": [{"type": "thinking", "thinking": [{"text": "hm {"}]}, {"type": "text", "text": text}]}
    ),
    "a text in two parts": lambda text: completion(
        {"content": [{"type": "text", "text": text[:40]}, {"type": "output_text", "text": text[40:]}]}
    ),
    "reasoning_content": lambda text: completion({"content": None, "reasoning_content": text}),
    "reasoning": lambda text: completion({"content": "", "reasoning": text}),
    "reasoning and no content": lambda text: completion({"role": "assistant", "reasoning": text}),
    "thoughts beside": lambda text: completion({"content": text, "reasoning_content": '{"pairs": []}'}),
    "JSON in the place of a text": lambda text: completion(
        {"content": json.loads(text.partition("```json")[2].strip("` \n") or text)}
    ),
    "a completion": lambda text: {"choices": [{"text": text}]},
    "no error": lambda text: {"error": None, **completion({"content": text})},
}  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
def test_answers_of_another_shape_are_read(tmp_path: Path, endpoint: type[Endpoint], name: str) -> None:
    def reply(body: dict[str, Any], number: int) -> Reply:
        return 200, SHAPES[name](text_of(good(body, number))), {}

    endpoint.reply = staticmethod(reply)  # type: ignore[assignment]
    code, result, pairs = sdg(tmp_path, endpoint.url, documents=3)
    assert (code, len(pairs), len(endpoint.bodies)) == (0, 3, 6), result


def bare_arrays(body: dict[str, Any], number: int) -> Reply:
    text = text_of(good(body, number)).partition("```json")[2].strip("` \n") or text_of(good(body, number))
    return chat(next(iter(json.loads(text).values())))


def test_a_bare_array_is_what_was_asked_for(tmp_path: Path, endpoint: type[Endpoint]) -> None:
    endpoint.reply = staticmethod(bare_arrays)  # type: ignore[assignment]
    code, result, pairs = sdg(tmp_path, endpoint.url, documents=3)
    assert (code, len(pairs)) == (0, 3), result
    assert result["counts"]["droppedUngrounded"] == 3


def first_of_ten(odd: Reply) -> Callable[[dict[str, Any], int], Reply]:
    """Answers so to one question in ten, and well when asked again."""
    asked: set[str] = set()

    def reply(body: dict[str, Any], number: int) -> Reply:
        about = body["messages"][1]["content"]
        again, one_in_ten = about in asked, "unit 3." in about or "unit 13." in about
        asked.add(about)
        return odd if one_in_ten and not again else good(body, number)

    return reply


BEGUN = '{"pairs": [{"type": "contextual", "question": "What cools the turbine hall?", "answer": "S'
ODD: dict[str, tuple[Any, str, str]] = {
    "cut": (completion({"content": BEGUN}, finish_reason="length"), "cutAnswers", "parameters: {max_tokens"),
    "cut in its thoughts": (
        completion({"role": "assistant", "reasoning": "..."}, finish_reason="length"), "cutAnswers", "limit of tokens",
    ),
    "null": (completion({"content": None}), "emptyAnswers", "answers without a text: 6"),
    "blank": (completion({"content": " \n"}), "emptyAnswers", "answers without a text: 6"),
    "no key of a content": (completion({"role": "assistant"}), "emptyAnswers", "answers without a text: 6"),
    "no message": ({"choices": [{"finish_reason": "stop"}]}, "emptyAnswers", "answers without a text: 6"),
    "empty choices": ({"choices": []}, "emptyAnswers", "answers without a text: 6"),
    "no choices": ({"object": "chat.completion", "id": "x"}, "emptyAnswers", "answers without a text: 6"),
    "thoughts alone": (completion({"content": None, "reasoning": "I wonder"}), "emptyAnswers", "such as 'I wonder'"),
    "a refusal": (completion({"content": None, "refusal": "I will not"}), "refusedAnswers", "such as 'I will not'"),
    "a filter": (completion({"content": ""}, finish_reason="content_filter"), "refusedAnswers", "that refuse: 6"),
    "prose": (completion({"content": f"Sorry {KEY}!"}), "unreadableAnswers", "such as 'Sorry ***!'"),
    "JSON of something else": (completion({"content": '{"answer": 42}'}), "unreadableAnswers", '{"answer": 42}'),
    "an error without a status": ({"error": {"message": "oops"}}, "erroredAnswers", '"message": "oops"'),
    "an error that is a text": ({"error": f"oops {KEY}"}, "erroredAnswers", "oops ***"),
    "an error of the choice": (
        {"choices": [{"error": {"message": "oops"}, "message": {"content": ""}}]}, "erroredAnswers", "oops",
    ),
    "another API": ({"ok": True}, "invalidAnswers", "HTTP 200"),
    "no JSON": ("<html>wait a moment</html>", "invalidAnswers", "wait a moment"),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_one_odd_answer_in_ten_is_counted_and_asked_for_again(
    tmp_path: Path, endpoint: type[Endpoint], name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    body, kind, _ = ODD[name]
    endpoint.reply = staticmethod(first_of_ten((200, body, {})))  # type: ignore[assignment]
    code, result, pairs = sdg(tmp_path, endpoint.url, documents=20)
    assert (code, len(pairs), result["counts"][kind]) == (0, 20, 4), result
    assert len(endpoint.bodies) == 44
    output = capfd.readouterr().out
    assert '"message": "an answer is of no use", "document": ' in output
    assert output.count(f'"reason": "{kind}"') == 1
    assert KEY not in output


@pytest.mark.parametrize("name", ODD)
def test_nothing_but_odd_answers_says_what_was_answered(tmp_path: Path, endpoint: type[Endpoint], name: str) -> None:
    body, kind, said = ODD[name]
    endpoint.reply = staticmethod(lambda _body, _number: (200, body, {}))  # type: ignore[assignment]
    code, result, _ = sdg(tmp_path, endpoint.url, documents=2)
    found = {"erroredAnswers": (20, "LLMUnavailable"), "invalidAnswers": (10, "LLMEndpointInvalid")}
    assert (code, result["reason"]) == found.get(kind, (10, "NoPairs")), result
    if kind != "invalidAnswers":
        assert said in result["message"]
        assert ": 6" in result["message"]
    assert KEY not in result["message"]
    assert len(endpoint.bodies) <= 8
    endpoint.reply = staticmethod(good)  # type: ignore[assignment]
    code, _, pairs = sdg(tmp_path, endpoint.url, documents=2, attempt=2)
    assert (code, len(pairs)) == (0, 2), "the endpoint was mended"


def test_answers_that_are_always_cut_name_the_cure(tmp_path: Path, endpoint: type[Endpoint]) -> None:
    cut = completion({"content": BEGUN}, finish_reason="length")
    endpoint.reply = staticmethod(lambda _body, _number: (200, cut, {}))  # type: ignore[assignment]
    code, result, _ = sdg(tmp_path, endpoint.url)
    assert (code, result["reason"], result["field"]) == (10, "NoPairs", f"{FIELD}.parameters")
    assert "cutAnswers 3" in result["message"]
    assert "answers cut at the endpoint's limit of tokens: 3, such as" in result["message"]
    assert f"raise it with {FIELD}.parameters: {{max_tokens: 8192}}" in result["message"]


def test_the_questions_before_a_cut_are_kept(tmp_path: Path, endpoint: type[Endpoint]) -> None:
    def reply(body: dict[str, Any], number: int) -> Reply:
        if is_judge(body):
            return good(body, number)
        text = text_of(good(body, number)).partition("```json")[2]
        return 200, completion({"content": text[: text.index("the meaning of life")]}, finish_reason="length"), {}

    endpoint.reply = staticmethod(reply)  # type: ignore[assignment]
    code, result, pairs = sdg(tmp_path, endpoint.url, documents=3)
    assert (code, len(pairs), len(endpoint.bodies)) == (0, 3, 6), result
    assert result["counts"]["cutAnswers"] == 3


ERRORS: dict[str, tuple[Any, int, str]] = {
    "a gateway's": ({"error": {"message": "Provider returned error", "code": 502}}, 20, "LLMUnavailable"),
    "a limit of requests": ({"error": {"code": "429", "message": "slow down"}}, 20, "LLMUnavailable"),
    "a limit in words": ({"error": {"type": "rate_limit_exceeded"}}, 20, "LLMUnavailable"),
    "an overload in words": ({"type": "error", "error": {"type": "overloaded_error"}}, 20, "LLMUnavailable"),
    "of the choice": ({"choices": [{"error": {"code": 503}, "message": {"content": ""}}]}, 20, "LLMUnavailable"),
    "in an array": ([{"error": {"code": 500, "status": "INTERNAL"}}], 20, "LLMUnavailable"),
    "as vLLM's": ({"object": "error", "message": "no", "code": 400}, 10, "LLMRequestRejected"),
    "a bad key": ({"error": {"code": "invalid_api_key"}}, 10, "LLMUnauthorized"),
    "no credit": ({"error": {"code": 429, "type": "insufficient_quota"}}, 10, "LLMQuotaExhausted"),
    "an unknown model": ({"error": {"code": "model_not_found", "message": "no m"}}, 10, "LLMModelNotFound"),
    "a request": ({"error": {"type": "invalid_request_error", "message": "no"}}, 10, "LLMRequestRejected"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_in_an_answer_of_status_200_is_as_its_own_status(
    tmp_path: Path, endpoint: type[Endpoint], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    body, code, reason = ERRORS[name]
    endpoint.reply = staticmethod(lambda _body, _number: (200, body, {}))  # type: ignore[assignment]
    found, result, _ = sdg(tmp_path, endpoint.url)
    assert (found, result["reason"]) == (code, reason), result
    small = 0 if "limit" in name else openai_client._SMALL_TRIES  # of what tells an endpoint that is away
    tries = openai_client._TRIES + small
    assert len(endpoint.bodies) == (tries if code == 20 else 2 if reason == "LLMRequestRejected" else 1)
    endpoint.reply = staticmethod(first_of_ten((200, body, {})))  # type: ignore[assignment]
    if code == 20:
        endpoint.bodies.clear()
        found, result, pairs = sdg(tmp_path, endpoint.url, documents=20, attempt=2)
        assert (found, len(pairs)) == (0, 20), result


def test_a_gateway_without_its_service_is_asked_again_by_the_next_attempt(
    tmp_path: Path, endpoint: type[Endpoint]
) -> None:
    endpoint.reply = staticmethod(  # type: ignore[assignment]
        lambda body, number: good(body, number) if number < 3 else (404, "default backend - 404", {})
    )
    code, result, _ = sdg(tmp_path, endpoint.url, documents=20)
    assert (code, result["reason"]) == (20, "LLMUnavailable")
    assert "default backend - 404" in result["message"]
    endpoint.reply = staticmethod(good)  # type: ignore[assignment]
    code, _, pairs = sdg(tmp_path, endpoint.url, documents=20, attempt=2)
    assert (code, len(pairs)) == (0, 20)


def test_an_attempt_of_an_earlier_release_is_resumed(tmp_path: Path, endpoint: type[Endpoint]) -> None:
    scratch = tmp_path / "sdg" / "f.partial" / "scratch-llm"
    scratch.mkdir(parents=True)
    old = {"id": "d0", "pairs": [], "ungrounded": 2, "unjudged": 0, "unreadable": 1, "rejections": [],
           "usage": {"calls": 5, "prompt": 1, "completion": 1}}  # fmt: skip
    (scratch / "d0.json").write_text(json.dumps(old))
    code, result, _ = sdg(tmp_path, endpoint.url, documents=2)
    assert (code, len(endpoint.bodies)) == (0, 2)
    assert (result["counts"]["unreadableAnswers"], result["counts"]["droppedUngrounded"]) == (1, 3)
