"""The endpoint over real HTTP: answers, errors, health, metrics."""

from __future__ import annotations

import base64
import http.client
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from unit.stages.tiny_serving import HIDDEN, MAX_TOKENS, call, make_serving_folder, serving

from embedding_stages.artefacts import digest_of_folder
from embedding_stages.contract.servers import MAX_BODY_BYTES
from embedding_stages.encoder.tokens import MAX_TEXT_CHARACTERS
from embedding_stages.serve.app import Endpoint
from embedding_stages.serve.bodies import Bodies

GOOD = {"input": ["topic1", "topic2 topic3"], "model": "tiny", "input_type": "query"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_serving_folder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    with serving(folder) as found:
        yield found


def vectors(url: str, **changes: Any) -> np.ndarray:
    status, body = call(f"{url}/v1/embeddings", GOOD | changes)
    assert status == 200, body
    rows = [item["embedding"] for item in body["data"]]
    if changes.get("encoding_format") == "base64":
        return np.stack([np.frombuffer(base64.b64decode(row), dtype="<f4") for row in rows])
    return np.array(rows, dtype=np.float32)


def test_the_answer_is_openais(url: str) -> None:
    status, body = call(f"{url}/v1/embeddings", GOOD)
    assert status == 200
    assert body.keys() == {"object", "data", "model", "usage"}
    assert (body["object"], body["model"]) == ("list", "tiny")
    assert [(item["object"], item["index"]) for item in body["data"]] == [("embedding", 0), ("embedding", 1)]
    assert body["usage"] == {"prompt_tokens": 5 + 6, "total_tokens": 5 + 6}


def test_vectors_are_finite_and_of_length_one(url: str) -> None:
    found = vectors(url)
    assert found.shape == (2, HIDDEN)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-6)


def test_base64_and_numbers_are_the_same_bits(url: str) -> None:
    assert np.array_equal(vectors(url, encoding_format="base64"), vectors(url))


def test_a_single_text_is_a_list_of_one(url: str) -> None:
    assert np.array_equal(vectors(url, input="topic1"), vectors(url, input=["topic1"]))


def test_fewer_dimensions_are_the_first_ones_scaled(url: str) -> None:
    whole, cut = vectors(url), vectors(url, dimensions=4)
    expected = whole[:, :4] / np.linalg.norm(whole[:, :4], axis=1, keepdims=True)
    np.testing.assert_allclose(cut, expected, atol=1e-6)


def test_roles_differ_and_the_models_name_may_carry_them(url: str) -> None:
    query, passage = vectors(url), vectors(url, input_type="passage")
    assert not np.allclose(query, passage)
    named = vectors(url, model="tiny-passage", input_type=None)
    assert np.array_equal(named, passage)


def test_many_texts_keep_their_order(url: str) -> None:
    texts = [" ".join([f"topic{at % 20}"] * (1 + at % 7)) for at in range(100)]
    together = vectors(url, input=texts)
    for at in (0, 1, 57, 99):
        np.testing.assert_allclose(together[at], vectors(url, input=texts[at])[0], atol=1e-6)


def test_long_texts_are_refused_or_cut(url: str) -> None:
    long = " ".join(["topic1"] * MAX_TOKENS)
    status, body = call(f"{url}/v1/embeddings", GOOD | {"input": long})
    assert (status, body["error"]["param"]) == (400, "input")
    assert str(MAX_TOKENS) in body["error"]["message"]
    for rule in ("START", "END"):
        status, body = call(f"{url}/v1/embeddings", GOOD | {"input": long, "truncate": rule})
        assert (status, body["usage"]["total_tokens"]) == (200, MAX_TOKENS)


def test_large_requests_are_told_to_come_back_when_too_many_wait(folder: Path) -> None:
    endpoint = Endpoint("tiny")
    with serving(folder, endpoint=endpoint) as url:
        large = GOOD | {"input": ["topic1 topic2"] * 500}
        assert call(f"{url}/v1/embeddings", large)[0] == 200
        endpoint.bodies.held = endpoint.bodies.budget
        status, body = call(f"{url}/v1/embeddings", large)
        assert (status, body["error"]["code"]) == (429, "overloaded")
        assert call(f"{url}/v1/embeddings", GOOD)[0] == 200, "a small one does not wait"
        endpoint.bodies.held = 0
        assert call(f"{url}/v1/embeddings", large)[0] == 200
        call(f"{url}/v1/embeddings", GOOD | {"input": ["topic1 " * 50] * 500})
        assert endpoint.bodies.held == 0, "a refused one counts no more"


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class SlowClient:
    """Sends a request of `size` bytes but for its last byte, or in pieces without saying how many."""

    def __init__(self, url: str, size: int, *, chunked: bool = False) -> None:
        self.rest = b" "
        self._connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=20)
        self._connection.putrequest("POST", "/v1/embeddings")
        start = json.dumps(GOOD).encode().ljust(size - 1)
        if chunked:
            self._connection.putheader("Transfer-Encoding", "chunked")
            start, self.rest = b"%x\r\n%s\r\n" % (len(start), start), b"0\r\n\r\n"
        else:
            self._connection.putheader("Content-Length", str(size))
        self._connection.endheaders()
        self._connection.send(start)

    def finish(self) -> None:
        self._connection.send(self.rest)

    def answer(self) -> tuple[int, str | None]:
        """(status, error code)"""
        response = self._connection.getresponse()
        body = json.loads(response.read())
        self._connection.close()
        return response.status, body.get("error", {}).get("code")


@pytest.mark.parametrize("chunked", [False, True])
def test_bodies_that_arrive_slowly_take_no_more_than_the_budget(folder: Path, chunked: bool) -> None:
    size = 10_000
    endpoint = Endpoint("tiny", bodies=Bodies(budget=4 * size))
    with serving(folder, endpoint=endpoint) as url:
        admitted = [SlowClient(url, size, chunked=chunked) for _ in range(4)]
        wait_until(lambda: endpoint.bodies.held >= 4 * (size - 1))
        for _ in range(3):
            assert SlowClient(url, size, chunked=chunked).answer() == (429, "overloaded"), "answered before its end"
        assert endpoint.bodies.held <= endpoint.bodies.budget
        assert call(f"{url}/v1/embeddings", GOOD)[0] == 200, "a small one does not wait"
        for client in admitted:
            client.finish()
            assert client.answer() == (200, None)
        assert endpoint.bodies.held == 0


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_never_ends_is_given_up(folder: Path, chunked: bool) -> None:
    endpoint = Endpoint("tiny", bodies=Bodies(seconds=0.2))
    with serving(folder, endpoint=endpoint) as url:
        assert SlowClient(url, 10_000, chunked=chunked).answer() == (408, "timeout")
        assert endpoint.bodies.held == 0


def test_a_body_whose_stated_length_is_too_large_is_refused_unread(url: str) -> None:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=20)
    connection.putrequest("POST", "/v1/embeddings")
    connection.putheader("Content-Length", str(MAX_BODY_BYTES + 1))
    connection.endheaders()
    response = connection.getresponse()
    assert (response.status, json.loads(response.read())["error"]["code"]) == (413, "too_large")
    connection.close()


def test_a_body_that_is_not_in_its_coding_is_the_clients_fault(url: str) -> None:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=20)
    connection.request("POST", "/v1/embeddings", json.dumps(GOOD), {"Content-Encoding": "gzip"})
    response = connection.getresponse()
    assert (response.status, json.loads(response.read())["error"]["code"]) == (400, "invalid_body")
    connection.close()


def test_a_client_that_goes_away_counts_no_more(folder: Path) -> None:
    endpoint = Endpoint("tiny")
    with serving(folder, endpoint=endpoint) as url:
        client = SlowClient(url, 10_000)
        wait_until(lambda: endpoint.bodies.held > 0)
        client._connection.close()
        wait_until(lambda: endpoint.bodies.held == 0)


def test_errors_have_openais_shape(url: str) -> None:
    for path, sent, status in (
        ("/v1/embeddings", b"{", 400),
        ("/v1/embeddings", b"\xff\xfe", 400),
        ("/v1/embeddings", b"[" * 100_000, 400),
        ("/v1/embeddings", b"[]", 400),
        ("/v1/embeddings", b'{"input": "a", "model": "other"}', 404),
        ("/v1/nothing", b"{}", 404),
        ("/v1/models", b"{}", 405),
        ("/v1/embeddings", b" " * (MAX_BODY_BYTES + 1), 413),
        ("/v1/embeddings", json.dumps(GOOD | {"input": " " * (MAX_TEXT_CHARACTERS + 1)}).encode(), 422),
    ):
        found, body = call(url + path, raw=sent)
        assert found == status, (path, sent[:20], body)
        assert body["error"].keys() == {"message", "type", "param", "code"}


def test_health_models_and_metadata(url: str, folder: Path) -> None:
    assert call(f"{url}/v1/health/live")[0] == 200
    assert call(f"{url}/v1/health/ready")[0] == 200
    status, models = call(f"{url}/v1/models")
    assert status == 200
    assert [model["id"] for model in models["data"]] == ["tiny", "tiny-query", "tiny-passage"]
    assert {model["max_model_len"] for model in models["data"]} == {MAX_TOKENS}
    status, metadata = call(f"{url}/v1/metadata")
    assert status == 200
    assert metadata["artefactDigest"] == digest_of_folder(folder)
    assert metadata["encoder"]["max_tokens"] == MAX_TOKENS
    assert metadata["runtime"]["name"] == "onnxruntime"
    assert metadata["runtime"]["providers"] == ["CPUExecutionProvider"]


def test_metrics_count_requests_tokens_and_batches(folder: Path) -> None:
    with serving(folder) as url:
        vectors(url)
        call(f"{url}/v1/embeddings", {})
        status, text = call(f"{url}/v1/metrics")
    assert status == 200
    for line in (
        'embedding_server_requests_total{status="200"} 1.0',
        'embedding_server_requests_total{status="400"} 1.0',
        'embedding_server_tokens_total{input_type="query"} 11.0',
        "embedding_server_request_seconds_count 2.0",
        "embedding_server_batch_rows_sum 2.0",
        "embedding_server_waiting_rows 0.0",
        "embedding_server_invalid_vectors_total 0.0",
    ):
        assert line in text
    assert 'embedding_server_model_info{artefact_digest="sha256:' in text


def test_before_the_model_is_loaded_the_server_lives_and_is_not_ready() -> None:
    with serving(None) as url:
        assert call(f"{url}/v1/health/live")[0] == 200
        assert call(f"{url}/v1/health/ready") == (503, {"object": "health.response", "message": "loading"})
        assert call(f"{url}/v1/models") == (200, {"object": "list", "data": []})
        assert call(f"{url}/v1/metadata")[0] == 503
        status, body = call(f"{url}/v1/embeddings", GOOD)
        assert (status, body["error"]["type"], body["error"]["code"]) == (503, "server_error", "not_ready")


def test_a_vector_that_is_not_finite_is_never_handed_out(tmp_path: Path) -> None:
    with serving(make_serving_folder(tmp_path / "broken", broken_word="topic3")) as url:
        status, body = call(f"{url}/v1/embeddings", GOOD)
        assert (status, body["error"]["code"]) == (500, "invalid_vectors")
        assert "embedding_server_invalid_vectors_total 1.0" in call(f"{url}/v1/metrics")[1]
        assert call(f"{url}/v1/embeddings", GOOD | {"input": "topic1"})[0] == 200
