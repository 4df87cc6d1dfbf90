"""Every bad request has its status and names the field at fault; good ones become values."""

from __future__ import annotations

from typing import Any

import pytest

from embedding_stages.contract.servers import MAX_TEXTS
from embedding_stages.encoder.description import EncoderDescription
from embedding_stages.serve.requests import EmbeddingRequest, RequestError, parse_request
from embedding_stages.serve.settings import ServerSettings


def description(query: str = "query: ", passage: str = "passage: ") -> EncoderDescription:
    return EncoderDescription(
        architecture="bert",
        prefixes={"query": query, "passage": passage},
        max_tokens=12,
        hidden_size=8,
        dimensions=(8, 4),
    )


GOOD = {"input": "hello", "model": "tiny", "input_type": "query"}


def parse(raw: Any, **prefixes: str) -> EmbeddingRequest:
    return parse_request(raw, model="tiny", description=description(**prefixes))


def test_defaults_are_nims() -> None:
    assert parse(GOOD) == EmbeddingRequest(
        texts=("hello",), role="query", dimensions=8, truncate="NONE", encoding="float"
    )


def test_everything_given() -> None:
    options = {"dimensions": 4, "truncate": "START", "encoding_format": "base64", "user": "someone", "other": 1}
    assert parse({**GOOD, "input": ["a", "b"], **options}) == EmbeddingRequest(
        texts=("a", "b"), role="query", dimensions=4, truncate="START", encoding="base64"
    )


def test_texts_are_cleaned_as_those_that_trained() -> None:
    assert parse({**GOOD, "input": ["\ufeffe\u0301\u00ad", "می\u200cخواهم\u200f"]}).texts == ("é", "می\u200cخواهم")


def test_the_role_may_follow_the_models_name() -> None:
    assert parse({"input": "x", "model": "tiny-passage"}).role == "passage"
    assert parse({"input": "x", "model": "tiny-query"}).role == "query"


def test_a_model_without_prefixes_needs_no_role() -> None:
    assert parse({"input": "x", "model": "tiny"}, query="", passage="").role == "passage"
    assert parse({"input": "x", "model": "tiny"}, query="text: ", passage="text: ").role == "passage"


BAD = {
    "not an object": ([], 400, None),
    "no input": ({"model": "tiny"}, 400, "input"),
    "input null": (GOOD | {"input": None}, 400, "input"),
    "an empty list": (GOOD | {"input": []}, 400, "input"),
    "an empty text": (GOOD | {"input": ""}, 400, "input"),
    "an empty text in a list": (GOOD | {"input": ["a", ""]}, 400, "input"),
    "a number": (GOOD | {"input": 5}, 400, "input"),
    "an object": (GOOD | {"input": {"text": "a"}}, 400, "input"),
    "a null in a list": (GOOD | {"input": ["a", None]}, 400, "input"),
    "half a surrogate pair": (GOOD | {"input": "\ud800"}, 400, "input"),
    "token ids": (GOOD | {"input": [1, 2, 3]}, 422, "input"),
    "lists of token ids": (GOOD | {"input": [[1, 2], [3]]}, 422, "input"),
    "too many texts": (GOOD | {"input": ["a"] * (MAX_TEXTS + 1)}, 422, "input"),
    "no model": ({"input": "a", "input_type": "query"}, 400, "model"),
    "another model": (GOOD | {"model": "other"}, 404, "model"),
    "a model that is a list": (GOOD | {"model": ["tiny"]}, 404, "model"),
    "no role": ({"input": "a", "model": "tiny"}, 400, "input_type"),
    "an unknown role": (GOOD | {"input_type": "document"}, 400, "input_type"),
    "a role that is a list": (GOOD | {"input_type": ["query"]}, 400, "input_type"),
    "a size that the model lacks": (GOOD | {"dimensions": 5}, 400, "dimensions"),
    "a size of zero": (GOOD | {"dimensions": 0}, 400, "dimensions"),
    "a size that is a text": (GOOD | {"dimensions": "4"}, 400, "dimensions"),
    "a size that is a list": (GOOD | {"dimensions": [4]}, 400, "dimensions"),
    "a size that is true": (GOOD | {"dimensions": True}, 400, "dimensions"),
    "an unknown encoding": (GOOD | {"encoding_format": "int8"}, 400, "encoding_format"),
    "an encoding that is a list": (GOOD | {"encoding_format": ["float"]}, 400, "encoding_format"),
    "an unknown truncation": (GOOD | {"truncate": "MIDDLE"}, 400, "truncate"),
}


@pytest.mark.parametrize(("raw", "status", "param"), BAD.values(), ids=BAD.keys())
def test_refused(raw: Any, status: int, param: str | None) -> None:
    with pytest.raises(RequestError) as caught:
        parse(raw)
    body = caught.value.body()["error"]
    assert caught.value.status == status
    assert body["param"] == param
    assert body["type"] == "invalid_request_error"
    assert body["message"]
    assert body.keys() == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    ("raw", "cure"),
    [
        (GOOD | {"input": [1, 2, 3]}, "check_embedding_ctx_length=False"),
        ({"input": "a", "model": "tiny"}, "input_type query or passage, or .* tiny-query or tiny-passage"),
    ],
)
def test_a_refusal_names_the_clients_own_switch(raw: Any, cure: str) -> None:
    with pytest.raises(RequestError, match=cure):
        parse(raw)


def test_a_refused_size_names_those_that_are_offered() -> None:
    with pytest.raises(RequestError, match="4, 8"):
        parse(GOOD | {"dimensions": 5})


@pytest.mark.parametrize(
    ("env", "folder", "model", "port"),
    [
        ({}, "/opt/nim/custom_model", "custom_model", 8000),
        ({"NIM_CUSTOM_MODEL": "/m/one", "NGC_API_KEY": "ignored"}, "/m/one", "one", 8000),
        ({"NIM_MODEL_PATH": "/m/two", "NIM_HTTP_API_PORT": "9000"}, "/m/two", "two", 9000),
        ({"NIM_SERVED_MODEL_NAME": "named"}, "/opt/nim/custom_model", "named", 8000),
    ],
)
def test_nims_own_variables_are_honoured(env: dict[str, str], folder: str, model: str, port: int) -> None:
    found = ServerSettings.of(env)
    assert (str(found.folder), found.model, found.port) == (folder, model, port)
