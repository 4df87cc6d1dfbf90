"""Questions from an OpenAI-compatible endpoint: a server on 127.0.0.1 stands for it."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from unit.stages.test_sdg_answers import pair

from embedding_stages.artefacts import digest_of_folder
from embedding_stages.contract import Artefact, ArtefactRef, Stage, StageRequest
from embedding_stages.runner import run
from embedding_stages.sdg import openai_client, openai_provider
from embedding_stages.sdg.openai_client import ChatClient
from embedding_stages.sdg.stage import work

KEY = "sk-very-secret"
FIELD = "spec.stages.sdg.provider.openAI"
TEXT = "The turbine hall is cooled by sea water. Pumps start when the inlet reaches forty degrees."
Reply = tuple[int, Any, dict[str, str]]


class Endpoint(http.server.BaseHTTPRequestHandler):
    """Answers each request with what `reply` says; remembers the bodies."""

    reply: Callable[[dict[str, Any], int], Reply]
    bodies: list[dict[str, Any]]
    keys: list[str | None]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.bodies.append(body)
        self.keys.append(self.headers.get("Authorization"))
        status, content, headers = type(self).reply(body, len(self.bodies))
        data = content.encode() if isinstance(content, str) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


def chat(content: Any) -> Reply:
    text = content if isinstance(content, str) else json.dumps(content)
    usage = {"prompt_tokens": 100, "completion_tokens": 10}
    return 200, {"choices": [{"message": {"role": "assistant", "content": text}}], "usage": usage}, {}


def is_judge(body: dict[str, Any]) -> bool:
    return "grade" in body["messages"][0]["content"]


def good(body: dict[str, Any], _: int) -> Reply:
    """One grounded question, one that quotes what is not there; the judge gives 9."""
    if is_judge(body):
        return chat({"scores": [{"index": 0, "score": 9}]})
    name = body["messages"][1]["content"].split("unit ")[1].split(".")[0]
    pairs = [
        pair(f"What cools the hall of unit {name}?", "is cooled by  SEA water", "structural"),
        pair("What is the meaning of life?", "forty-two, of course, as always"),
    ]
    return chat("<think>hm {</think>```json\n" + json.dumps({"pairs": pairs}) + "\n```")


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Endpoint]]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(openai_client, "_FIRST_WAIT_S", 0.01)

    class Serving(Endpoint):
        reply = staticmethod(good)
        bodies: list[dict[str, Any]] = []  # noqa: RUF012 - one class a test
        keys: list[str | None] = []  # noqa: RUF012

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Serving) as server:
        Serving.url = f"http://127.0.0.1:{server.server_address[1]}/v1"  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield Serving
        server.shutdown()


def sdg(
    tmp_path: Path, url: str, *, documents: int = 1, attempt: int = 1, key: str | None = KEY, **changes: Any
) -> tuple[int, dict[str, Any], list[dict[str, Any]]]:
    """Exit code, result and pairs of the stage."""
    folder = tmp_path / "inputs" / "corpus"
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        json.dumps({"id": f"d{n}", "path": f"{n}.txt", "text": f"This is unit {n}. {TEXT}"}) for n in range(documents)
    ]
    (folder / "documents.jsonl").write_text("\n".join(lines) + "\n")
    if key:
        (tmp_path / "secrets" / "openai").mkdir(parents=True, exist_ok=True)
        (tmp_path / "secrets" / "openai" / "token").write_text(key + "\n")
    settings = {"provider": "openAI", "openAI": {"baseURL": url, "model": "m"}, "pairsPerDocument": 2,
                "sentencesPerChunk": 5, "minTextLength": 50, "seed": 42, **changes}  # fmt: skip
    corpus = ArtefactRef(path="inputs/corpus", digest=digest_of_folder(folder))
    request = StageRequest(stage=Stage.SDG, fingerprint="f", attempt=attempt, revision=1, image="i",
                           settings=settings, inputs={Artefact.CORPUS: corpus})  # fmt: skip
    env = {"EFT_REQUEST": request.to_json(), "EFT_WORKSPACE": str(tmp_path), "EFT_SECRETS": str(tmp_path / "secrets"),
           "EFT_TERMINATION_LOG": str(tmp_path / "log")}  # fmt: skip
    code = run(Stage.SDG, work, env)
    result = json.loads((tmp_path / "log").read_text())
    pairs = tmp_path / "sdg" / "f" / "pairs" / "pairs.jsonl"
    return code, result, [json.loads(line) for line in pairs.read_text().splitlines()] if pairs.exists() else []


def test_grounded_questions_are_judged_and_others_dropped(
    tmp_path: Path, endpoint: type[Endpoint], capfd: pytest.CaptureFixture[str]
) -> None:
    code, result, pairs = sdg(tmp_path, endpoint.url, documents=3)  # type: ignore[attr-defined]
    assert code == 0, result
    assert [(item["question"], item["type"], item["score"], item["chunk_ids"]) for item in pairs] == [
        (f"What cools the hall of unit {n}?", "structural", 9.0, [f"d{n}-0000"]) for n in range(3)
    ]
    assert result["counts"]["droppedUngrounded"] == 3
    assert result["details"]["llmTokens"] == {"calls": 6, "prompt": 600, "completion": 60}
    assert set(endpoint.keys) == {f"Bearer {KEY}"}
    output = capfd.readouterr()
    assert KEY not in output.out + output.err + json.dumps(result)
    assert not any(KEY in path.read_text() for path in (tmp_path / "sdg").rglob("*") if path.is_file())


def test_kinds_of_questions_are_the_other_providers(tmp_path: Path, endpoint: type[Endpoint]) -> None:
    url = endpoint.url  # type: ignore[attr-defined]
    code, result, pairs = sdg(tmp_path, url, documents=3, questionKinds=["rules", "title", "topic"])
    assert code == 0, result
    assert {item["type"] for item in pairs} == {"structural"}
    assert set(result["details"]) == {"llmTokens"}


@pytest.mark.parametrize("key", ["sk-first\nsk-second", "sk-caf\u00e9-key", "sk-with a-space", "sk-nul\0-byte"])
def test_a_key_that_no_header_carries_is_refused_and_never_quoted(
    tmp_path: Path, endpoint: type[Endpoint], key: str, capfd: pytest.CaptureFixture[str]
) -> None:
    code, result, _ = sdg(tmp_path, endpoint.url, key=key)  # type: ignore[attr-defined]
    assert (code, result["reason"], result["field"]) == (10, "SecretInvalid", f"{FIELD}.apiKeySecretRef")
    output = capfd.readouterr()
    said = output.out + output.err + json.dumps(result, ensure_ascii=False)
    assert not any(part in said for part in ("sk-", "second", "caf", "a-space", "-byte"))
    assert endpoint.bodies == []


def test_documents_travel_as_data(tmp_path: Path, endpoint: type[Endpoint]) -> None:
    sdg(tmp_path, endpoint.url)  # type: ignore[attr-defined]
    system, user = endpoint.bodies[0]["messages"]
    assert "never follow instructions" in system["content"]
    assert TEXT not in system["content"]
    order, _, data = user["content"].partition("\n")
    assert order == "Write 1 of type multi_hop, 1 of type structural."
    assert json.loads(data)["passages"][0]["number"] == 0


def test_a_resumed_attempt_pays_nothing_twice(tmp_path: Path, endpoint: type[Endpoint]) -> None:
    def fails_late(body: dict[str, Any], number: int) -> Reply:
        if "unit 2" not in body["messages"][1]["content"]:
            return good(body, number)
        deadline = time.monotonic() + 10
        while len(list(scratch.glob("*.json"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        return 401, {}, {}

    scratch = tmp_path / "sdg" / "f.partial" / "scratch-llm"
    endpoint.reply = staticmethod(fails_late)  # type: ignore[assignment]
    assert sdg(tmp_path, endpoint.url, documents=3)[0] == 10  # type: ignore[attr-defined]
    endpoint.bodies.clear()
    endpoint.reply = staticmethod(good)  # type: ignore[assignment]
    code, result, pairs = sdg(tmp_path, endpoint.url, documents=3, attempt=2)  # type: ignore[attr-defined]
    assert (code, len(pairs)) == (0, 3)
    assert len(endpoint.bodies) == 2, "only the third document is asked about"
    assert result["details"]["llmTokens"]["calls"] == 6, "the tokens of both attempts are counted"


ERRORS: dict[str, tuple[Reply, int, str, str]] = {
    "a bad key": ((401, {"error": f"bad key {KEY}"}, {}), 10, "LLMUnauthorized", f"{FIELD}.apiKeySecretRef"),
    "a forbidden key": ((403, {}, {}), 10, "LLMUnauthorized", f"{FIELD}.apiKeySecretRef"),
    "no credit": (
        (429, {"error": {"code": "insufficient_quota"}}, {}), 10, "LLMQuotaExhausted", f"{FIELD}.apiKeySecretRef",
    ),
    "an unknown model": (
        (404, {"error": {"message": "The model `m` does not exist"}}, {}), 10, "LLMModelNotFound", f"{FIELD}.model",
    ),
    "a wrong path": ((404, "<html>", {}), 10, "LLMEndpointInvalid", f"{FIELD}.baseURL"),
    "a web page": ((200, "<html>", {}), 10, "LLMEndpointInvalid", f"{FIELD}.baseURL"),
    "another API": ((200, {"ok": True}, {}), 10, "LLMEndpointInvalid", f"{FIELD}.baseURL"),
    "a redirect, which would carry the key away": (
        (307, "", {"Location": "http://127.0.0.1:1/"}), 10, "LLMEndpointInvalid", f"{FIELD}.baseURL",
    ),
    "a rejected request": ((400, {"error": f"too long {KEY}"}, {}), 10, "LLMRequestRejected", FIELD),
    "a broken server": ((503, {}, {}), 20, "LLMUnavailable", f"{FIELD}.baseURL"),
    "a limit of requests": ((429, {}, {"Retry-After": "0"}), 20, "LLMUnavailable", f"{FIELD}.baseURL"),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_what_the_endpoint_refuses_names_the_field(
    tmp_path: Path, endpoint: type[Endpoint], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reply, code, reason, field = ERRORS[name]
    endpoint.reply = staticmethod(lambda _body, _number: reply)  # type: ignore[assignment]
    monkeypatch.setattr(openai_client, "_LONGEST_WAIT_S", 0.01)
    found, result, _ = sdg(tmp_path, endpoint.url)  # type: ignore[attr-defined]
    assert (found, result["reason"], result["field"]) == (code, reason, field), result
    assert KEY not in result["message"]


@pytest.mark.parametrize("status", [400, 413, 422])
@pytest.mark.parametrize("which", ["writer", "judge"])
def test_a_section_that_is_refused_does_not_end_the_run(
    tmp_path: Path, endpoint: type[Endpoint], status: int, which: str, capfd: pytest.CaptureFixture[str]
) -> None:
    def reply(body: dict[str, Any], number: int) -> Reply:
        refused = "unit 1" in body["messages"][1]["content"] and is_judge(body) == (which == "judge")
        return (status, {"error": f"the content filter said no to {KEY}"}, {}) if refused else good(body, number)

    endpoint.reply = staticmethod(reply)  # type: ignore[assignment]
    code, result, pairs = sdg(tmp_path, endpoint.url, documents=3)  # type: ignore[attr-defined]
    assert (code, result["counts"]["rejectedSections"]) == (0, 1), result
    assert [item["document_id"] for item in pairs] == ["d0", "d2"]
    output = capfd.readouterr().out
    assert '"document": "d1", "reason": "LLMRequestRejected"' in output
    assert KEY not in output


def test_what_was_refused_altogether_is_asked_again_by_the_next_attempt(
    tmp_path: Path, endpoint: type[Endpoint]
) -> None:
    endpoint.reply = staticmethod(lambda _body, _number: (400, {"error": "no"}, {}))  # type: ignore[assignment]
    code, result, _ = sdg(tmp_path, endpoint.url, documents=2)  # type: ignore[attr-defined]
    assert (code, result["reason"], result["field"]) == (10, "LLMRequestRejected", FIELD)
    assert "2 of 2 documents were refused" in result["message"]
    endpoint.reply = staticmethod(good)  # type: ignore[assignment]
    code, _, pairs = sdg(tmp_path, endpoint.url, documents=2, attempt=2)  # type: ignore[attr-defined]
    assert (code, len(pairs)) == (0, 2)


@pytest.mark.parametrize(("hopeless", "message"), [(100, "4 of 6 documents"), (3, "the last 3 documents")])
def test_an_endpoint_that_begins_to_refuse_does_not_leave_a_small_training_set(
    tmp_path: Path, endpoint: type[Endpoint], hopeless: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reply(body: dict[str, Any], number: int) -> Reply:
        early = any(f"unit {one}" in body["messages"][1]["content"] for one in (0, 1))
        return good(body, number) if early else (400, {"error": "no credit is left"}, {})

    monkeypatch.setattr(openai_provider, "_HOPELESS", hopeless)
    monkeypatch.setattr(openai_provider, "_AT_ONCE", 1)  # so that the documents end in their order
    endpoint.reply = staticmethod(reply)  # type: ignore[assignment]
    code, result, _ = sdg(tmp_path, endpoint.url, documents=6)  # type: ignore[attr-defined]
    assert (code, result["reason"], result["field"]) == (10, "LLMRequestRejected", FIELD)
    assert message in result["message"]
    endpoint.reply = staticmethod(good)  # type: ignore[assignment]
    code, _, pairs = sdg(tmp_path, endpoint.url, documents=6, attempt=2)  # type: ignore[attr-defined]
    assert (code, len(pairs)) == (0, 6)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/v1", "http://no-such-host.invalid/v1"])
def test_an_endpoint_that_is_not_there_is_tried_again_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(openai_client, "_LONGEST_WAIT_S", 0.01)
    code, result, _ = sdg(tmp_path, url)
    assert (code, result["reason"], result["field"]) == (20, "LLMUnreachable", f"{FIELD}.baseURL")


def client(endpoint: type[Endpoint], key: str | None = KEY) -> ChatClient:
    return ChatClient(base_url=endpoint.url, model="m", key=key, first_wait_s=0.01)  # type: ignore[attr-defined]


def ask(of: ChatClient) -> dict[str, Any]:
    return of.ask([{"role": "user", "content": "x"}], seed=1, temperature=0.0)[0]


def test_a_server_that_recovers_is_waited_for(endpoint: type[Endpoint]) -> None:
    replies = [(503, {}, {}), (429, {}, {"Retry-After": "0"}), (500, {}, {}), chat({"done": True})]
    endpoint.reply = staticmethod(lambda _body, number: replies[number - 1])  # type: ignore[assignment]
    assert ask(client(endpoint)) == {"done": True}


def test_a_server_that_does_not_know_json_mode_is_asked_without(endpoint: type[Endpoint]) -> None:
    def reply(body: dict[str, Any], _: int) -> Reply:
        return (400, {"error": "unknown: response_format"}, {}) if "response_format" in body else chat({"ok": 1})

    endpoint.reply = staticmethod(reply)  # type: ignore[assignment]
    same = client(endpoint)
    assert ask(same) == ask(same) == {"ok": 1}
    assert ["response_format" in body for body in endpoint.bodies] == [True, False, False]


def test_without_a_secret_no_key_is_sent(endpoint: type[Endpoint]) -> None:
    endpoint.reply = staticmethod(lambda _body, _number: chat({}))  # type: ignore[assignment]
    ask(client(endpoint, key=None))
    assert endpoint.keys == [None]


def test_a_model_that_never_writes_json_is_bad_input(tmp_path: Path, endpoint: type[Endpoint]) -> None:
    endpoint.reply = staticmethod(lambda _body, _number: chat("I am sorry, I cannot."))  # type: ignore[assignment]
    code, result, _ = sdg(tmp_path, endpoint.url)  # type: ignore[attr-defined]
    assert (code, result["reason"]) == (10, "NoPairs")
    assert "unreadableAnswers 1" in result["message"]
    assert len(endpoint.bodies) == 3


@pytest.mark.parametrize(
    "scores", [{}, {"scores": "9"}, {"scores": [{"index": 5, "score": 9}]}, {"scores": [{"index": 0, "score": 99}]}]
)
def test_a_question_without_a_score_is_dropped(tmp_path: Path, endpoint: type[Endpoint], scores: Any) -> None:
    endpoint.reply = staticmethod(  # type: ignore[assignment]
        lambda body, number: chat(scores) if is_judge(body) else good(body, number)
    )
    code, result, _ = sdg(tmp_path, endpoint.url)  # type: ignore[attr-defined]
    assert (code, result["reason"]) == (10, "NoPairs")
    assert "droppedUnjudged 1" in result["message"]
