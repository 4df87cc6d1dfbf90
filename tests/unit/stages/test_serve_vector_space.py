"""A client that says which vector space it expects is never answered in another one."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from unit.stages.tiny_serving import call, make_serving_folder, serving

from embedding_stages.contract import ENV_VECTOR_SPACE, vector_space_of
from embedding_stages.contract.servers import MAX_BODY_BYTES, SERVERS
from embedding_stages.serve.app import Endpoint
from embedding_stages.serve.settings import ServerSettings

OURS, OTHER = vector_space_of("sha256:tuned"), vector_space_of("sha256:tuned again")
GOOD = {"input": "topic1", "model": "tiny", "input_type": "query"}
HEADER = "X-Vector-Space"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_serving_folder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    with serving(folder, endpoint=Endpoint("tiny", vector_space=OURS)) as found:
        yield found


@pytest.fixture(scope="module")
def untold(folder: Path) -> Iterator[str]:
    """A server that nobody told its space, as one that an earlier release started."""
    with serving(folder) as found:
        yield found


def post(url: str, values: list[str], body: Any = GOOD) -> tuple[int, Any, Mapping[str, str]]:
    """(status, body, headers) of a request with these values of the header, each in a line of its own."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=20)
    data = json.dumps(body).encode()
    connection.putrequest("POST", "/v1/embeddings")
    connection.putheader("Content-Length", str(len(data)))
    for value in values:
        connection.putheader(HEADER, value)
    connection.endheaders(data)
    response = connection.getresponse()
    found = response.status, json.loads(response.read()), dict(response.headers)
    connection.close()
    return found


def test_who_expects_this_space_or_none_is_answered_and_told_the_space(url: str) -> None:
    for values in ([], [OURS], [f"  {OURS} "]):
        status, body, headers = post(url, values)
        assert (status, headers[HEADER]) == (200, OURS), values
        assert len(body["data"]) == 1


def test_who_expects_another_space_is_told_both_and_the_cure(url: str) -> None:
    status, body, headers = post(url, [OTHER])
    assert (status, headers[HEADER]) == (409, OURS)
    assert headers["x-should-retry"] == "false"
    error = body["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", HEADER, "vector_space_mismatch")
    for words in (OURS, OTHER, "use the index that was made in", "<name>-next"):
        assert words in error["message"]


NOT_NAMES = {
    "empty": [""],
    "capitals": [OURS.upper()],
    "a digest": ["sha256:" + "0" * 64],
    "too short": [OURS[:15]],
    "too long": [OURS + "0"],
    "not hexadecimal": ["g" * 16],
    "a list": [f"{OURS}, {OTHER}"],
    "the header twice": [OURS, OURS],
    "digits of another script": ["\u0661".encode().decode("latin-1") * 16],
}


@pytest.mark.parametrize("values", NOT_NAMES.values(), ids=NOT_NAMES.keys())
def test_what_is_no_name_is_refused_and_never_passed_over(url: str, untold: str, values: list[str]) -> None:
    for server in (url, untold):
        status, body, _ = post(server, values)
        assert (status, body["error"]["code"], body["error"]["param"]) == (400, "invalid_value", HEADER)


def test_a_server_that_does_not_know_its_space_promises_nothing(untold: str) -> None:
    status, body, headers = post(untold, [OURS])
    assert (status, body["error"]["code"]) == (409, "vector_space_unknown")
    for words in (OURS, ENV_VECTOR_SPACE, HEADER):
        assert words in body["error"]["message"]
    assert HEADER not in headers
    assert post(untold, [])[0] == 200


@pytest.mark.parametrize("size", [10_000, MAX_BODY_BYTES + 1], ids=["large", "too large"])
def test_the_space_is_compared_before_the_body_is_read(folder: Path, size: int) -> None:
    endpoint = Endpoint("tiny", vector_space=OURS)
    with serving(folder, endpoint=endpoint) as url:
        connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=20)
        connection.putrequest("POST", "/v1/embeddings")
        connection.putheader("Content-Length", str(size))
        connection.putheader(HEADER, OTHER)
        connection.endheaders(b"{")  # the rest never comes
        response = connection.getresponse()
        assert (response.status, json.loads(response.read())["error"]["code"]) == (409, "vector_space_mismatch")
        assert endpoint.bodies.held == 0
        connection.close()


def test_every_answer_for_embeddings_names_the_space_whatever_its_status(url: str) -> None:
    for body, expected in ((GOOD, 200), ({}, 400), (GOOD | {"model": "other"}, 404), (GOOD | {"input": [1]}, 422)):
        status, _, headers = post(url, [OURS], body)
        assert (status, headers[HEADER]) == (expected, OURS)


def test_the_space_is_compared_before_the_model_is_there() -> None:
    with serving(None, endpoint=Endpoint("tiny", vector_space=OURS)) as url:
        assert post(url, [OTHER])[0] == 409
        assert post(url, [OURS])[0] == 503


def test_the_metadata_names_the_space(url: str, untold: str) -> None:
    assert call(f"{url}/v1/metadata")[1]["vectorSpace"] == OURS
    assert call(f"{untold}/v1/metadata")[1]["vectorSpace"] is None


def test_other_paths_compare_nothing(url: str) -> None:
    for path in ("/v1/models", "/v1/metadata", "/v1/health/ready"):
        assert call(f"{url}{path}", headers={HEADER: OTHER})[0] == 200


def test_the_refusals_are_counted(folder: Path) -> None:
    with serving(folder, endpoint=Endpoint("tiny", vector_space=OURS)) as url:
        post(url, [OTHER])
        assert 'embedding_server_requests_total{status="409"} 1.0' in call(f"{url}/v1/metrics")[1]


def test_the_environment_says_the_space() -> None:
    assert ServerSettings.of({ENV_VECTOR_SPACE: OURS}).vector_space == OURS
    assert ServerSettings.of({}).vector_space is ServerSettings.of({ENV_VECTOR_SPACE: ""}).vector_space is None
    with pytest.raises(ValueError, match="expected 16 digits"):
        ServerSettings.of({ENV_VECTOR_SPACE: OURS + "\n"})


def test_our_own_servers_take_the_name_and_no_pod_of_an_earlier_release_changes() -> None:
    assert {item.name for item in SERVERS if item.space_variable == ENV_VECTOR_SPACE} == {"onnx", "torch"}
    assert all(item.space_variable is None for item in SERVERS if item.name.startswith("nim"))
    assert all(ENV_VECTOR_SPACE not in item.variables for item in SERVERS)
    assert ENV_VECTOR_SPACE.startswith("EFT_"), "names that start so belong to the operator, so it need not be reserved"
