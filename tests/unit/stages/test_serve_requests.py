"""Every bad request has its status and names the field at fault; good ones become values."""

from __future__ import annotations

from typing import Any

import pytest

from embedding_stages.contract.servers import MAX_TEXTS
from embedding_stages.encoder.description import EncoderDescription
from embedding_stages.serve.requests import EmbeddingRequest, RequestError, parse_request, sends_own_ids
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
    "token ids beside a text": (GOOD | {"input": ["a", [1, 2]]}, 422, "input"),
    "a number among texts": (GOOD | {"input": ["a", 1]}, 400, "input"),
    "numbers that are no ids": (GOOD | {"input": [1.5, 2.5]}, 400, "input"),
    "truths": (GOOD | {"input": [True, False]}, 400, "input"),
    "a list of lists of texts": (GOOD | {"input": [["a"]]}, 400, "input"),
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
        (GOOD | {"input": [1, 2, 3]}, "check_embedding_ctx_length=False.*X-Token-Ids: own"),
        ({"input": "a", "model": "tiny"}, "input_type query or passage, or .* tiny-query or tiny-passage"),
    ],
)
def test_a_refusal_names_the_clients_own_switch(raw: Any, cure: str) -> None:
    with pytest.raises(RequestError, match=cure):
        parse(raw)


def spell(ids: list[int]) -> str:
    if 99 in ids:
        raise ValueError("no token 99")
    return " ".join(f"w{number}" for number in ids)


SPELLED = {
    "a list of ids": ([1, 2], ("w1 w2",)),
    "lists of ids": ([[1, 2], [3]], ("w1 w2", "w3")),
    "as many ids as no request has texts": ([1] * (MAX_TEXTS + 1), (" ".join(["w1"] * (MAX_TEXTS + 1)),)),
    "texts as ever": (["a", "b"], ("a", "b")),
    "texts and ids": (["a", [7]], ("a", "w7")),
}


@pytest.mark.parametrize(("value", "texts"), SPELLED.values(), ids=SPELLED.keys())
def test_ids_of_the_model_s_own_vocabulary_are_texts(value: Any, texts: tuple[str, ...]) -> None:
    found = parse_request(GOOD | {"input": value}, model="tiny", description=description(), spell=spell)
    assert found.texts == texts


@pytest.mark.parametrize(
    ("value", "word"),
    [([1, 99], "input 0: no token 99"), ([[1], [99]], "input 1: no token 99"), ([[1], []], "input 1 is empty"),
     ([[1.5]], "input 0 is a list"), ([1, "a"], "input 0 is not a text")],
)  # fmt: skip
def test_ids_that_the_model_does_not_have_are_refused(value: Any, word: str) -> None:
    with pytest.raises(RequestError, match=word) as caught:
        parse_request(GOOD | {"input": value}, model="tiny", description=description(), spell=spell)
    assert (caught.value.status, caught.value.param) == (400, "input")


@pytest.mark.parametrize("values", [["cl100k_base"], [""], ["own", "own"], ["Own"]])
def test_a_vocabulary_that_is_not_the_model_s_is_refused(values: list[str]) -> None:
    with pytest.raises(RequestError, match=r"X-Token-Ids is .* expected own") as caught:
        sends_own_ids(values)
    assert (caught.value.status, caught.value.param) == (400, "X-Token-Ids")
    assert sends_own_ids([" own "])
    assert not sends_own_ids([])


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
