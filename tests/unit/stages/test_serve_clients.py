"""The clients that people have: OpenAI's own, LangChain's and LlamaIndex's, as they come.

Where one fails at its defaults, the server's answer names the client's own switch, and with it the client works.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import openai
import pytest
import tiktoken
from langchain_openai import OpenAIEmbeddings
from llama_index.embeddings.openai import OpenAIEmbedding
from tokenizers import Tokenizer
from unit.stages.tiny_serving import call, make_serving_folder, serving

TEXTS = [f"topic{number % 20}" for number in range(2048)]
Embed = Callable[[str, str], Sequence[float]]  # URL and the name of the model: the vector of TEXTS[3]


@pytest.fixture(scope="module")
def with_roles(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(make_serving_folder(tmp_path_factory.mktemp("roles") / "tiny")) as url:
        yield url


@pytest.fixture(scope="module")
def without_roles(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = make_serving_folder(tmp_path_factory.mktemp("plain") / "tiny", prefixes={"query": "", "passage": ""})
    with serving(folder) as url:
        yield url


@pytest.fixture(scope="module")
def own_ids(tmp_path_factory: pytest.TempPathFactory) -> list[list[int]]:
    """Of TEXTS, with the special tokens, as the model's tokenizer gives them to any client."""
    folder = make_serving_folder(tmp_path_factory.mktemp("ids") / "tiny")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return [encoding.ids for encoding in tokenizer.encode_batch(TEXTS)]


@pytest.fixture(autouse=True)
def own_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    """LangChain's client counts tokens by OpenAI's vocabulary, which it fetches: one of single bytes does as well."""
    encoding = tiktoken.Encoding(
        name="bytes", pat_str=".", mergeable_ranks={bytes([byte]): byte for byte in range(256)}, special_tokens={}
    )
    monkeypatch.setattr(tiktoken, "get_encoding", lambda _name: encoding)
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_BASE"):
        monkeypatch.delenv(name, raising=False)


def by_openai(url: str, model: str, **more: Any) -> Sequence[float]:
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none")
    return client.embeddings.create(model=model, input=TEXTS, **more).data[3].embedding


def by_langchain(url: str, model: str, **more: Any) -> Sequence[float]:
    client = OpenAIEmbeddings(model=model, base_url=f"{url}/v1", api_key="none", max_retries=0, **more)  # type: ignore[arg-type]
    return client.embed_documents(TEXTS)[3]


def by_llama_index(url: str, model: str, **more: Any) -> Sequence[float]:
    client = OpenAIEmbedding(model_name=model, api_base=f"{url}/v1", api_key="none", max_retries=0, **more)
    return client.get_text_embedding_batch(TEXTS)[3]


def without_token_ids(url: str, model: str) -> Sequence[float]:
    return by_langchain(url, model, check_embedding_ctx_length=False)


def a_whole_batch(url: str, model: str) -> Sequence[float]:
    return by_llama_index(url, model, embed_batch_size=2048)


CLIENTS: list[Embed] = [by_openai, without_token_ids, by_llama_index, a_whole_batch]


def expected(url: str, model: str) -> Sequence[float]:
    status, body = call(f"{url}/v1/embeddings", {"model": model, "input": TEXTS[3]})
    assert status == 200
    vector: Sequence[float] = body["data"][0]["embedding"]
    return vector


@pytest.mark.parametrize("embed", CLIENTS)
def test_a_model_without_roles_serves_every_client(without_roles: str, embed: Embed) -> None:
    np.testing.assert_allclose(embed(without_roles, "tiny"), expected(without_roles, "tiny"), atol=1e-6)


@pytest.mark.parametrize("role", ["query", "passage"])
@pytest.mark.parametrize("embed", CLIENTS)
def test_a_model_with_roles_serves_every_client_by_the_role_s_name(with_roles: str, embed: Embed, role: str) -> None:
    np.testing.assert_allclose(embed(with_roles, f"tiny-{role}"), expected(with_roles, f"tiny-{role}"), atol=1e-6)


@pytest.mark.parametrize("embed", CLIENTS)
def test_a_client_that_names_no_role_is_told_how(with_roles: str, embed: Embed) -> None:
    with pytest.raises(openai.BadRequestError, match="tiny-query or tiny-passage"):
        embed(with_roles, "tiny")


def test_langchain_s_token_ids_are_refused_with_its_own_switch(without_roles: str) -> None:
    with pytest.raises(openai.UnprocessableEntityError, match="check_embedding_ctx_length=False"):
        by_langchain(without_roles, "tiny")


def test_langchain_s_default_answer_says_what_the_ids_are_of(with_roles: str) -> None:
    """Its ids are in the range of any vocabulary, so nothing but the client can say whose they are."""
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        by_langchain(with_roles, "tiny-passage")
    assert caught.value.code == "token_ids"
    for word in ("OpenAIEmbeddings", "check_embedding_ctx_length=False", "model's own tokenizer", "X-Token-Ids: own"):
        assert word in caught.value.message


def test_ids_of_the_model_s_own_vocabulary_are_its_texts(with_roles: str, own_ids: list[list[int]]) -> None:
    client = openai.OpenAI(base_url=f"{with_roles}/v1", api_key="none", default_headers={"X-Token-Ids": "own"})

    found = client.embeddings.create(model="tiny-query", input=own_ids).data

    assert len(found) == len(TEXTS)
    np.testing.assert_allclose(found[3].embedding, expected(with_roles, "tiny-query"), atol=1e-6)
    with pytest.raises(openai.BadRequestError, match="input 1: this model's vocabulary has no token 100000"):
        client.embeddings.create(model="tiny-query", input=[[7], [100_000]])


def test_openai_s_client_is_told_how_to_cut(without_roles: str) -> None:
    client = openai.OpenAI(base_url=f"{without_roles}/v1", api_key="none")
    long = " ".join(TEXTS)

    with pytest.raises(openai.BadRequestError, match=r"extra_body=.*truncate") as caught:
        client.embeddings.create(model="tiny", input=long)
    assert caught.value.code == "context_length_exceeded"
    cut = client.embeddings.create(model="tiny", input=long, extra_body={"truncate": "END"})
    assert len(cut.data[0].embedding) == 8


def test_openai_s_client_lists_the_names(with_roles: str) -> None:
    client = openai.OpenAI(base_url=f"{with_roles}/v1", api_key="none")

    assert [model.id for model in client.models.list()] == ["tiny", "tiny-query", "tiny-passage"]


def test_a_role_in_the_request_s_own_field(with_roles: str) -> None:
    found = by_openai(with_roles, "tiny", extra_body={"input_type": "query"})

    np.testing.assert_allclose(found, expected(with_roles, "tiny-query"), atol=1e-6)
