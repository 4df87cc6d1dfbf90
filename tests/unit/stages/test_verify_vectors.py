"""The pace at which an endpoint is asked."""

from __future__ import annotations

from typing import Any

import pytest
from unit.stages.test_verify_client import GOOD, Reply, client, scripted, vectors_for

from embedding_stages.contract.servers import EMBEDDINGS_PATH
from embedding_stages.errors import StageError, Transient
from embedding_stages.verify.client import EndpointClient
from embedding_stages.verify.vectors import Allowance, EndpointVectors, Pace


def test_a_slow_server_gets_one_smaller_request_at_a_time() -> None:
    sizes: list[int] = []
    told: list[Allowance] = []

    def reply(_: str, request: Any, __: int) -> Reply:
        sizes.append(len(request["input"]))
        return (200, vectors_for(request)) if len(request["input"]) <= 2 else None

    with scripted(reply) as url:
        vectors = EndpointVectors(
            client=client(url, timeout_s=0.3), model="m", dimension=2, prefixes={}, pace=Pace(8), between=lambda: None,
            progress=lambda _: None, on_slow=told.append,
        )  # fmt: skip
        assert vectors.embed(["text"] * 19, "query").tolist() == [pytest.approx(GOOD)] * 19
        assert vectors.embed(["text"] * 3, "query").shape == (3, 2)
    assert (vectors.pace.allows, vectors.pace.clients) == (Allowance(2), 1)
    assert sizes.count(8) <= 4
    assert sizes[-2:] == [2, 1], "what is known of the server is kept"
    assert told[-1:] == [Allowance(2)]
    assert vectors.retries == sum(size > 2 for size in sizes)


def test_an_interruption_ends_it() -> None:
    def stop() -> None:
        raise Transient("Interrupted", "asked to stop")

    with scripted(lambda _, request, __: (200, vectors_for(request))) as url, pytest.raises(Transient):
        EndpointVectors(
            client=client(url), model="m", dimension=2, prefixes={}, pace=Pace(8), between=stop,
            progress=lambda _: None, on_slow=lambda _: None,
        ).embed(["text"] * 19, "query")  # fmt: skip


def test_only_what_was_sent_at_this_pace_slows_it_down() -> None:
    pace = Pace(32)
    for _ in range(4):
        pace.slow_down(Allowance(32), texts=32)
    assert (pace.allows, pace.clients) == (Allowance(16), 1)
    for batch in (16, 8, 4, 2):
        pace.slow_down(Allowance(batch), texts=batch)
    assert pace.allows == Allowance(1)


def test_a_single_text_gets_more_time_and_what_follows_too() -> None:
    """Smaller it cannot become, and the server may go on with what nobody waits for any more."""
    told: list[Allowance] = []

    def reply(_: str, request: Any, number: int) -> Reply:
        return None if number in (0, 1, 3) else (200, vectors_for(request))

    with scripted(reply) as url:
        endpoint = an_endpoint(client(url, timeout_s=0.2), pace=Pace(4), on_slow=told.append)
        assert endpoint.embed(["text"], "query").shape == (1, 2)
        assert (endpoint.retries, told) == (2, [Allowance(1, patience=4)])
        assert endpoint.embed(["text"], "query").shape == (1, 2)
    assert (endpoint.retries, told[-1]) == (3, Allowance(1, patience=8))


@pytest.mark.parametrize(("texts", "batch"), [(1, 8), (3, 8), (3, 1)], ids=["one", "some", "some, one by one"])
@pytest.mark.parametrize(
    ("ready", "error", "reason", "field"),
    [
        (200, Transient, "EndpointTooSlow", "spec.stages.deploy.resources"),
        (503, Transient, "EndpointFailing", ""),
    ],
    ids=["slow", "not there"],
)
def test_a_text_that_gets_no_answer_is_told_with_the_cure_where_the_server_is_ready(
    texts: int, batch: int, ready: int, error: type[StageError], reason: str, field: str
) -> None:
    sizes: list[int] = []

    def reply(path: str, request: Any, _: int) -> Reply:
        if path != EMBEDDINGS_PATH:
            return ready, {}
        sizes.append(len(request["input"]))
        return None

    with scripted(reply) as url:
        endpoint = an_endpoint(client(url, timeout_s=0.05), pace=Pace(batch))
        with pytest.raises(error) as caught:
            endpoint.embed(["some words"] * texts, "passage")
    assert (caught.value.reason, caught.value.field) == (reason, field)
    assert "within 0.4 s" in caught.value.message
    assert ("spec.baseModel.maxTokens" in caught.value.message) == (ready == 200)
    assert sizes[-4:] == [1, 1, 1, 1]
    assert len(sizes) <= 7, "none is sent to find the same once more"


def an_endpoint(asked: EndpointClient | None = None, **options: Any) -> EndpointVectors:
    return EndpointVectors(
        client=asked or client("http://127.0.0.1:9"), model="m", dimension=2, between=lambda: None,
        progress=lambda _: None, **{"prefixes": {}, "pace": Pace(8), "on_slow": lambda _: None, **options},
    )  # fmt: skip


def test_the_rate_is_of_passages_and_of_the_tokens_that_the_server_counts() -> None:
    def reply(_: str, request: Any, __: int) -> Reply:
        return 200, vectors_for(request) | {"usage": {"prompt_tokens": 30 * len(request["input"])}}

    with scripted(reply) as url:
        endpoint = an_endpoint(client(url))
        endpoint.embed(["text"] * 20, "passage")
    assert endpoint.rate(3.0) == {"passagesPerSecond": 6.667, "tokensPerPassage": 30.0, "tokensPerSecond": 200.0}


def test_a_server_that_counts_no_tokens_has_a_rate_of_passages_alone() -> None:
    with scripted(lambda _, request, __: (200, vectors_for(request))) as url:
        endpoint = an_endpoint(client(url))
        endpoint.embed(["text"] * 20, "passage")
    assert endpoint.rate(8.0) == {"passagesPerSecond": 2.5}


def test_nothing_embedded_or_no_time_has_no_rate() -> None:
    assert an_endpoint().rate(1.0) == {}
    assert an_endpoint(done=5).rate(0.0) == {}


def test_a_slow_rate_keeps_its_digits() -> None:
    assert an_endpoint(done=1).rate(7000.0) == {"passagesPerSecond": 0.0001429}


def test_a_text_may_be_sent_without_its_prefix() -> None:
    sent: list[str] = []

    def reply(_: str, request: Any, __: int) -> Reply:
        sent.extend(request["input"])
        return 200, vectors_for(request)

    with scripted(reply) as url:
        endpoint = an_endpoint(client(url), prefixes={"query": "q: ", "passage": "p: "})
        endpoint.embed(["a"], "query")
        endpoint.embed(["a"], "query", prefixed=False)
        endpoint.embed(["a"], "passage")
        endpoint.try_dimensions(["a"], "query", 2)
    assert sent == ["q: a", "a", "p: a", "q: a"]
