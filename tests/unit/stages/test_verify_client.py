"""Answers to vectors, and which faults of an endpoint are sent again, counted or final."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from embedding_stages.errors import Stopped, Transient
from embedding_stages.verify import client as client_module
from embedding_stages.verify.answers import read_tokens, read_vector, read_vectors
from embedding_stages.verify.client import EndpointClient, TooSlowError

NAN = float("nan")
GOOD = [0.6, 0.8]


@pytest.mark.parametrize(
    "value",
    [
        None, "text", [], [1.0], [1.0, 0.0, 0.0], [NAN, 1.0], [float("inf"), 0.0], [None, 1.0], ["1", "0"], [True, 0.0],
        [[1.0], [0.0]], [0.5, 0.5], [0.0, 0.0], [1e300, 0.0], [10**400, 0], {"0": 1.0},
    ],
    ids=str,
)  # fmt: skip
def test_vectors_that_are_not_fit_to_use(value: Any) -> None:
    assert read_vector(value, 2) is None


@pytest.mark.parametrize("value", [GOOD, [1, 0], [-1.0, 0.0], [1.001, 0.0]], ids=str)
def test_vectors_that_are(value: Any) -> None:
    found = read_vector(value, 2)
    assert found is not None
    assert found.tolist() == pytest.approx(value)
    assert found.dtype == np.float32


def test_vectors_are_put_where_their_index_says() -> None:
    body = {"data": [{"index": 1, "embedding": [1, 0]}, {"index": 0, "embedding": [0, 1]}]}
    assert [vector.tolist() for vector in read_vectors(body, texts=2, dimension=2) if vector is not None] == [
        [0, 1],
        [1, 0],
    ]


@pytest.mark.parametrize(
    "body",
    [
        None, [], "text", {}, {"data": None}, {"data": [None, 1, "x"]}, {"data": [{"embedding": GOOD}]},
        {"data": [{"index": 2, "embedding": GOOD}]}, {"data": [{"index": -1, "embedding": GOOD}]},
        {"data": [{"index": True, "embedding": GOOD}]}, {"data": [{"index": "0", "embedding": GOOD}]},
    ],
    ids=str,
)  # fmt: skip
def test_any_other_body_has_no_vectors(body: Any) -> None:
    assert read_vectors(body, texts=2, dimension=2) == [None, None]


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        ({"usage": {"prompt_tokens": 7, "total_tokens": 7}}, 7),
        ({"usage": {"prompt_tokens": 0}}, None),
        ({"usage": {"prompt_tokens": True}}, None),
        ({"usage": {"prompt_tokens": "7"}}, None),
        ({"usage": {"total_tokens": 7}}, None),
        ({"usage": None}, None),
        ({}, None),
        ([], None),
        (None, None),
    ],
    ids=str,
)
def test_tokens_are_what_the_server_says_or_nothing(body: Any, tokens: int | None) -> None:
    assert read_tokens(body) == tokens


Reply = tuple[int, Any] | bytes | None  # (status, JSON); raw bytes of a whole response; or silence


@contextmanager
def scripted(reply: Callable[[str, Any, int], Reply]) -> Iterator[str]:
    """A server that answers as told: (path, request, how many came before) -> reply."""
    count = 0
    lock = threading.Lock()
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            nonlocal count
            with lock:
                number, count = count, count + 1
            length = int(self.headers.get("Content-Length", 0))
            found = reply(self.path, json.loads(self.rfile.read(length) or b"null"), number)
            if found is None:
                ended.wait(5)
            elif isinstance(found, bytes):
                self.wfile.write(found)
            else:
                data = json.dumps(found[1]).encode()
                self.send_response(found[0])
                self.send_header("Content-Length", str(len(data)))
                self.send_header("Location", "/elsewhere")
                self.end_headers()
                self.wfile.write(data)

        do_GET = do_POST = answer  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        ended.set()
        server.shutdown()
        thread.join()
        server.server_close()


def vectors_for(request: Any) -> dict[str, Any]:
    return {"data": [{"index": at, "embedding": GOOD} for at in range(len(request["input"]))]}


def client(url: str, **options: Any) -> EndpointClient:
    return EndpointClient(url, timeout_s=options.pop("timeout_s", 5.0), sleep=options.pop("sleep", lambda _: None))


def embed(url: str, texts: int = 3, **options: Any) -> Any:
    return client(url, **options).embed(["text"] * texts, model="m", role="query", dimension=2)


def test_the_request_says_what_it_wants() -> None:
    seen: list[Any] = []

    def reply(path: str, request: Any, _: int) -> Reply:
        seen.append((path, request))
        return 200, vectors_for(request)

    with scripted(reply) as url:
        found = client(url).embed(["a", "b"], model="m", role="passage", dimension=2)
    assert (len(found.vectors), found.invalid, found.retries) == (2, 0, 0)
    expected = {
        "input": ["a", "b"],
        "model": "m",
        "input_type": "passage",
        "encoding_format": "float",
        "truncate": "END",
    }
    assert seen == [("/v1/embeddings", expected)]


@pytest.mark.parametrize(
    "fault",
    [
        (500, {}),
        (503, {}),
        (429, {}),
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{",
        b"garbage\r\n\r\n",
        b"",
    ],
    ids=["500", "503", "429", "cut off", "no JSON", "no HTTP", "closed"],
)
def test_a_passing_fault_is_sent_again_and_counted(fault: Reply) -> None:
    pauses: list[float] = []
    with scripted(lambda _, request, number: fault if number < 2 else (200, vectors_for(request))) as url:
        found = embed(url, timeout_s=0.2, sleep=pauses.append)
    assert (len(found.vectors), found.invalid, found.retries) == (3, 0, 2)
    assert pauses == [0.5, 1.0]


@pytest.mark.parametrize("texts", [1, 2])
def test_silence_is_not_waited_for_again_at_the_same_pace(texts: int) -> None:
    asked: list[Any] = []
    with scripted(lambda _, request, __: asked.append(request)) as url, pytest.raises(TooSlowError):
        embed(url, texts, timeout_s=0.1)
    assert len(asked) == 1


def test_silence_about_the_server_itself_is_waited_for_again() -> None:
    with scripted(lambda _, __, number: None if number < 2 else (200, {"artefactDigest": "sha256:1"})) as url:
        assert client(url, timeout_s=0.2).artefact_digest() == "sha256:1"
    with scripted(lambda *_: None) as url, pytest.raises(Transient, match=r"no answer within 0\.1 s"):
        client(url, timeout_s=0.1).artefact_digest()


INVALID = {"error": {"message": "1 of 3 vectors are not finite", "code": "invalid_vectors"}}


def test_a_server_that_finds_its_own_vectors_unfit_has_a_defect() -> None:
    with scripted(lambda _, request, number: (500, INVALID) if number < 2 else (200, vectors_for(request))) as url:
        found = embed(url)
    assert (len(found.vectors), found.invalid, found.retries) == (3, 2, 2)
    with scripted(lambda *_: (500, INVALID)) as url, pytest.raises(Stopped) as caught:
        embed(url)
    assert caught.value.reason == "InvalidVectors"


def test_a_lasting_fault_is_transient_and_quoted() -> None:
    with scripted(lambda *_: (500, {"error": "no GPU"})) as url, pytest.raises(Transient) as caught:
        embed(url)
    assert caught.value.reason == "EndpointFailing"
    assert "failed 4 times" in caught.value.message
    assert "no GPU" in caught.value.message
    assert "the server's log" in caught.value.message


@pytest.mark.parametrize("status", [400, 401, 404, 422, 301, 307])
def test_a_refusal_is_final_and_redirects_are_not_followed(status: int) -> None:
    paths: list[str] = []

    def reply(path: str, *_: Any) -> Reply:
        paths.append(path)
        return status, {"error": "no"}

    with scripted(reply) as url, pytest.raises(Stopped) as caught:
        embed(url)
    assert (caught.value.reason, caught.value.field) == ("EndpointRefused", "spec.stages.deploy.image")
    assert str(status) in caught.value.message
    assert "spec.stages.deploy.backend" in caught.value.message
    assert paths == ["/v1/embeddings"]


@pytest.mark.parametrize("bad", [None, [NAN, NAN], [0.5, 0.5], [1.0]], ids=["null", "NaN", "short", "dimension"])
def test_unfit_vectors_are_asked_for_again_alone_and_counted(bad: Any) -> None:
    sizes: list[int] = []

    def reply(_: str, request: Any, number: int) -> Reply:
        sizes.append(len(request["input"]))
        body = vectors_for(request)
        for item in body["data"][:2] if number == 0 else body["data"][:1] if number == 1 else []:
            item["embedding"] = bad
        return 200, body

    with scripted(reply) as url:
        found = embed(url)
    assert sizes == [3, 2, 1]
    assert (len(found.vectors), found.invalid, found.retries) == (3, 2 + 1, 2)


def test_vectors_that_stay_unfit_stop_the_stage() -> None:
    with scripted(lambda _, request, __: (200, {"data": vectors_for(request)["data"][:1]})) as url:
        with pytest.raises(Stopped) as caught:
            embed(url, texts=1 + client_module.TRIES + 1)
        assert caught.value.reason == "InvalidVectors"
        assert "2 of 6 query texts 4 times" in caught.value.message


@pytest.mark.parametrize(
    ("came", "said"),
    [
        ((200, [0.5] * 4), "4 numbers where the model has 2: the server has another model"),
        ((200, [3.0, 4.0]), "a vector of length 5, which the server did not scale to 1"),
        ((200, [NAN, 1.0]), "numbers that are not finite"),
        ((200, [1e300, 0.0]), "numbers that are not finite"),
        ((200, [10**400, 0]), "numbers that are not finite"),
        ((200, [None, 1.0]), "a list with something else than numbers"),
        ((200, None), "no vector"),
        ((500, None), "the server's own word, HTTP 500"),
    ],
    ids=["size", "length", "NaN", "infinite", "too large", "null", "nothing", "its own word"],
)
def test_unfit_vectors_are_told_with_what_came_and_the_cure(came: tuple[int, Any], said: str) -> None:
    status, vector = came
    body = {"data": [{"index": 0, "embedding": vector}]} if status == 200 else INVALID
    with scripted(lambda *_: (status, body)) as url, pytest.raises(Stopped) as caught:
        embed(url, 1)
    assert said in caught.value.message
    assert caught.value.field == "spec.stages.deploy.image"


def test_an_endless_answer_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "MAX_ANSWER_BYTES", 100)
    with scripted(lambda *_: (200, "x" * 200)) as url, pytest.raises(Transient, match="longer than 100 bytes"):
        embed(url)


def test_tokens_are_counted_with_the_texts_that_they_are_of() -> None:
    """A text that is asked for again counts again, on both sides, and an answer that says nothing counts on neither."""

    def reply(_: str, request: Any, number: int) -> Reply:
        body = vectors_for(request) | {"usage": {"prompt_tokens": 5 * len(request["input"])}}
        if number == 0:
            body["data"][0]["embedding"] = None
        return 200, body

    with scripted(reply) as url:
        found = embed(url)
    assert (found.tokens, found.counted) == (20, 4)
    with scripted(lambda _, request, __: (200, vectors_for(request))) as url:
        found = embed(url)
    assert (found.tokens, found.counted) == (0, 0)


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        ((200, {"data": [{"index": 0, "embedding": [1.0, 0.0]}]}), (200, [[1.0, 0.0]])),
        ((200, {"data": [{"index": 0, "embedding": [1.0, 0.0, 0.0]}]}), (200, [None])),
        ((200, "text"), (200, [None])),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{", (200, [None])),
        ((400, {"error": "no"}), (400, [None])),
        ((422, {}), (422, [None])),
        ((500, {}), (500, [None])),
    ],
    ids=["cut", "whole", "no object", "no JSON", "refused", "refused otherwise", "failed"],
)
def test_whatever_a_server_says_to_a_number_of_dimensions_is_an_answer(reply: Reply, found: Any) -> None:
    asked: list[Any] = []

    def answer(_: str, request: Any, __: int) -> Reply:
        asked.append(request)
        return reply

    with scripted(answer) as url:
        status, vectors = client(url).try_dimensions(["a"], model="m", role="query", dimensions=2)
    assert (status, [vector if vector is None else vector.tolist() for vector in vectors]) == found
    assert (asked[0]["dimensions"], asked[0]["input_type"], asked[0]["truncate"]) == (2, "query", "END")


def test_no_answer_to_a_number_of_dimensions_is_transient() -> None:
    with scripted(lambda *_: b"") as url, pytest.raises(Transient) as caught:
        client(url).try_dimensions(["a"], model="m", role="query", dimensions=2)
    assert caught.value.reason == "EndpointFailing"
