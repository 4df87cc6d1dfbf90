"""How many documents a stage does without, what makes up for them, and what is not guessed from them."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Any

import pytest
from unit.stages.llm_endings import ENDS, Ending, is_small, prompt_of_all, status
from unit.stages.llm_endpoint import FIELD, Endpoint, Reply, good, is_judge, sdg

from embedding_stages.errors import Transient
from embedding_stages.formats.pairs import Pair
from embedding_stages.http_client import Answer, HttpClient, NoAnswerError
from embedding_stages.sdg import failures
from embedding_stages.sdg.answers import MISSING, OddAnswerError
from embedding_stages.sdg.losses import Losses
from embedding_stages.sdg.written import Written

SIX = "unit 6."


@pytest.mark.parametrize("at_once", [1, 8])
@pytest.mark.parametrize("role", ["writer", "judge", "both"])
def test_a_second_document_before_fifty_are_answered_ends_the_attempt_and_costs_nothing(
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
    assert "answers other requests, but none about the documents '" in result["message"]
    assert "'3.txt'" in result["message"]
    assert "'5.txt'" in result["message"]
    assert "no answer within 300 s" in result["message"]
    assert "max_tokens in spec.stages.sdg.provider.openAI.parameters" in result["message"]
    is_down = False
    code, result, pairs = sdg(tmp_path, endpoint.url, documents=12, attempt=2)
    assert (code, len(pairs)) == (0, 12), result
    assert "missingAnswers" not in result["counts"]


def test_another_one_is_done_without_once_fifty_are_answered(
    tmp_path: Path, endpoint: type[Endpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    left_out = [f"unit {number}." for number in (3, 54)]
    Ending(monkeypatch, ENDS["a server error"][0], lambda body: any(one in body for one in left_out))
    code, result, pairs = sdg(tmp_path, endpoint.url, documents=56, concurrency=1)
    assert (code, len(pairs), result["counts"]["missingAnswers"]) == (0, 54, 2), result


NONE_CAME = OddAnswerError(MISSING, "HTTP 500", field=FIELD)


def test_several_sections_of_a_document_count_once() -> None:
    losses = Losses()
    for name in ("a", "a"):
        losses.take(name, f"{name}.txt", NONE_CAME)
    with pytest.raises(Transient, match=r"the documents 'a.txt', 'b.txt' in all tries"):
        losses.take("b", "b.txt", NONE_CAME)


def test_a_request_that_is_known_to_be_of_no_document_counts_too() -> None:
    losses = Losses()
    losses.take("", "", NONE_CAME)
    with pytest.raises(Transient, match=r"the documents 'a.txt' and 1 of which it is not known in all tries"):
        losses.take("a", "a.txt", NONE_CAME)


def test_an_overload_late_in_a_long_run_costs_four_documents_at_most() -> None:
    losses = Losses()
    for _ in range(5000):
        losses.answered()
    for number in range(4):
        losses.take(str(number), f"{number}.txt", NONE_CAME)
    with pytest.raises(Transient, match=r"'4.txt'"):
        losses.take("4", "4.txt", NONE_CAME)


def test_a_long_error_leaves_room_for_the_cure() -> None:
    error = failures.unanswered(NoAnswerError(http.client.BadStatusLine("x" * 60_000), 300.0), FIELD)
    message = failures.too_many_missing(error, "'a.txt'", is_final=False).message
    assert len(message) < 600
    assert message.endswith("max_tokens in spec.stages.sdg.provider.openAI.parameters")


def test_what_bounds_a_model_that_writes_is_no_cure_of_embeddings() -> None:
    at = f"{FIELD}.embedding"
    late = NoAnswerError(TimeoutError("timed out"), 300.0)
    assert "max_tokens" not in failures.unreachable(late, "'http://a'", at).message
    assert "max_tokens" not in failures.too_many_missing(failures.unanswered(late, at), "x", is_final=False).message


def test_a_firewall_beside_a_moments_absence_may_pass(
    tmp_path: Path, endpoint: type[Endpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The small request is not answered either: the key is not what is at fault."""
    ending = Ending(monkeypatch, status(403, "<html>Blocked</html>"), lambda body: SIX in body)
    real = endpoint.reply

    def reply(body: dict[str, Any], number: int) -> Reply:
        return (503, "upstream is down", {}) if len(body["messages"]) == 1 else real(body, number)

    endpoint.reply = staticmethod(reply)  # type: ignore[assignment]
    code, result, _ = sdg(tmp_path, endpoint.url, documents=8, concurrency=1)
    assert (code, result["reason"]) == (20, "LLMUnavailable"), result
    assert ending.asked


def test_a_time_out_and_a_firewall_together_may_pass(
    tmp_path: Path, endpoint: type[Endpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    send = HttpClient.send

    def instead(client: HttpClient, method: str, path: str, body: Any, **more: Any) -> Answer:
        said = json.dumps(body)
        if "unit 3." in said:
            return Answer(status=500, body=b"boom")
        return Answer(status=403, body=b"") if "unit 5." in said else send(client, method, path, body, **more)

    monkeypatch.setattr(HttpClient, "send", instead)
    code, result, _ = sdg(tmp_path, endpoint.url, documents=8, concurrency=1)
    assert (code, result["reason"]) == (20, "LLMUnavailable"), result


def test_a_cure_of_the_answers_is_told_beside_one_that_did_not_come(
    tmp_path: Path, endpoint: type[Endpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(body: dict[str, Any], number: int) -> Reply:
        code, said, headers = good(body, number)
        if len(body["messages"]) > 1:
            said["choices"][0] = {"message": {"content": "{"}, "finish_reason": "length"}
        return code, said, headers

    endpoint.reply = staticmethod(cut)  # type: ignore[assignment]
    Ending(monkeypatch, ENDS["a time-out"][0], lambda body: SIX in body)
    code, result, _ = sdg(tmp_path, endpoint.url, documents=8)
    assert (code, result["reason"]) == (10, "NoPairs"), result
    assert "max_tokens: 8192" in result["message"]


def test_refused_documents_make_up_for_none(
    tmp_path: Path, endpoint: type[Endpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    send = HttpClient.send

    def instead(client: HttpClient, method: str, path: str, body: Any, **more: Any) -> Answer:
        said = json.dumps(body)
        if "unit 0." in said or "unit 60." in said:
            return Answer(status=500, body=b"boom")
        refused = any(f"unit {number}." in said for number in range(3, 60))
        return Answer(status=400, body=b"no") if refused else send(client, method, path, body, **more)

    monkeypatch.setattr(HttpClient, "send", instead)
    code, result, _ = sdg(tmp_path, endpoint.url, documents=130, concurrency=1)
    assert (code, result["reason"]) == (20, "LLMUnavailable"), result


def test_texts_that_a_firewall_refuses_are_no_fault_that_passes(
    tmp_path: Path, endpoint: type[Endpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = [f"unit {number}." for number in (3, 5)]
    Ending(monkeypatch, ENDS["a firewall"][0], lambda body: any(one in body for one in refused))
    code, result, _ = sdg(tmp_path, endpoint.url, documents=12, concurrency=1)
    assert (code, result["reason"], result["field"]) == (10, "LLMRequestRejected", FIELD), result
    assert "'3.txt', '5.txt'" in result["message"]
    assert "leave the documents out of spec.corpus" in result["message"]


def test_where_no_question_is_left_what_did_not_come_is_asked_for_again(
    tmp_path: Path, endpoint: type[Endpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer was answered, so it is none of the models' faults: no cure of NoPairs helps."""
    Ending(monkeypatch, status(500, "boom"), lambda body: is_judge(json.loads(body)) and not is_small(body))
    code, result, _ = sdg(tmp_path, endpoint.url)
    assert (code, result["reason"], result["field"]) == (20, "LLMUnavailable", f"{FIELD}.baseURL"), result


def test_a_gateway_that_keeps_answers_proves_nothing(tmp_path: Path, endpoint: type[Endpoint]) -> None:
    """It has answered the small request before, when it was up."""
    kept: dict[str, Reply] = {}
    asked: list[str] = []

    def reply(body: dict[str, Any], number: int) -> Reply:
        key = json.dumps(body)
        if key in kept:
            return kept[key]
        asked.append(key)
        if "unit 2." in key or 160 < len(asked) <= 174:  # one document, and later an outage
            return 503, "upstream is down", {}
        return kept.setdefault(key, good(body, number))

    endpoint.reply = staticmethod(reply)  # type: ignore[assignment]
    code, result, _ = sdg(tmp_path, endpoint.url, documents=100, concurrency=1)
    assert (code, result["reason"]) == (20, "LLMUnavailable"), result


def test_a_small_request_that_is_refused_proves_nothing(tmp_path: Path, endpoint: type[Endpoint]) -> None:
    """What refuses it may be a gateway that wants a system message, with nothing behind."""
    real: list[int] = []

    def reply(body: dict[str, Any], number: int) -> Reply:
        if len(body["messages"]) == 1:
            return 400, "messages: the first one must be of role system", {}
        real.append(number)
        return (503, "upstream is down", {}) if 20 < len(real) <= 34 else good(body, number)

    endpoint.reply = staticmethod(reply)  # type: ignore[assignment]
    code, result, _ = sdg(tmp_path, endpoint.url, documents=40, concurrency=1)
    assert (code, result["reason"]) == (20, "LLMUnavailable"), result


def test_a_small_answer_shows_that_it_chats(tmp_path: Path, endpoint: type[Endpoint]) -> None:
    """The judge's gateway had a bad moment, then failed on the texts alone."""
    pages: list[int] = []

    def reply(body: dict[str, Any], number: int) -> Reply:
        if body["model"] == "j" and len(body["messages"]) > 1:
            pages.append(number)
            return (200, "<html>wait</html>", {}) if len(pages) == 1 else (502, "bad gateway", {})
        return good(body, number)

    endpoint.reply = staticmethod(reply)  # type: ignore[assignment]
    code, result, _ = sdg(tmp_path, endpoint.url, endpoint={"judge": {"model": "j"}}, concurrency=1)
    assert (code, result["reason"]) == (20, "LLMUnavailable"), result


def test_a_budget_is_not_guessed_from_a_document_that_got_no_answer(
    tmp_path: Path, endpoint: type[Endpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    def dear(body: dict[str, Any], number: int) -> Reply:
        code, said, headers = good(body, number)
        if is_judge(body):
            said["usage"] = {"prompt_tokens": 100, "completion_tokens": 20_000}
        return code, said, headers

    endpoint.reply = staticmethod(dear)  # type: ignore[assignment]

    def first_judged(body: str) -> bool:
        return "unit 0." in body and is_judge(json.loads(body)) and not is_small(body)

    Ending(monkeypatch, status(500, "boom"), first_judged)
    code, result, _ = sdg(tmp_path, endpoint.url, documents=60, concurrency=16, maxTokensTotal=100_000)
    assert (code, result["reason"]) == (40, "TokenBudgetSpent"), result
    assert int(result["message"].split()[0]) <= 100_000


def test_a_preview_tells_what_got_no_answer_and_does_not_guess_from_it(
    tmp_path: Path, endpoint: type[Endpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, whole, _ = sdg(tmp_path / "whole", endpoint.url, documents=20, preview=2, concurrency=1)
    name = endpoint.bodies[0]["messages"][1]["content"].split("unit ")[1].split(".")[0]

    def judged(body: str) -> bool:
        return f"unit {name}." in body and is_judge(json.loads(body)) and not is_small(body)

    Ending(monkeypatch, status(500, "boom"), judged)
    code, lossy, _ = sdg(tmp_path / "lossy", endpoint.url, documents=20, preview=2, concurrency=1)
    assert (code, lossy["reason"]) == (40, "PreviewDone"), lossy
    assert "2 of 20 documents (1 requests got no answer)" in lossy["message"]
    assert prompt_of_all(lossy["message"]) == pytest.approx(prompt_of_all(whole["message"]), rel=0.01)


def test_a_section_that_got_no_answer_is_asked_about_again_by_the_next_attempt(tmp_path: Path) -> None:
    """Also where others of its document have given questions."""
    document = Written("d", pairs=[Pair.about("d", "What is it?", ("p",), kind="fact", score=9.0)])
    document.usage.calls = 3
    document.save(tmp_path / "whole.json")
    document.odd.add(MISSING, "HTTP 500")
    document.save(tmp_path / "lost.json")
    assert [path.name for path in tmp_path.iterdir()] == ["whole.json"]
