"""Watches are never given up: the process would end, and come back later and later."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import islice, repeat
from typing import Any

import kopf
import pytest
from aiohttp import web
from kopf._cogs.clients import auth, fetching, watching
from kopf._cogs.clients.errors import APIClientError
from kopf._cogs.structs.credentials import Vault
from kopf._cogs.structs.references import Resource
from kopf._core.engines.activities import authenticator

from embedding_operator import watches
from embedding_operator.cluster.errors import Unavailable
from embedding_operator.resource.api import GROUP, KIND, PLURAL, VERSION
from embedding_operator.watches import Endless, Logins, NoMemories, configure

JOB = {"kind": "Job", "apiVersion": "batch/v1", "metadata": {"name": "a", "namespace": "n", "resourceVersion": "2"}}
JOBS = Resource("batch", "v1", "jobs", kind="Job", namespaced=True, preferred=True, verbs=frozenset({"list", "watch"}))


async def listed_at_1(kind: str, namespace: str | None) -> str:
    return "1"


def test_the_pauses_grow_and_never_end() -> None:
    pauses = Endless()
    assert list(islice(pauses, 11)) == [1, 1, 2, 3, 5, 8, 13, 21, 21, 21, 21]
    assert list(islice(pauses, 3)) == [1, 1, 2]  # each request begins anew


def test_kopf_is_told_so() -> None:
    settings = kopf.OperatorSettings()
    configure(settings, listed_at_1)
    assert isinstance(settings.networking.error_backoffs, Endless)
    assert settings.networking.request_timeout == 60, "a question on a dead connection ends"


def test_kopf_keeps_and_compares_nothing() -> None:
    settings = kopf.OperatorSettings()
    configure(settings, listed_at_1)
    body = kopf.Body({"metadata": {"labels": {"a": "b"}}, "spec": {"many": "words"}})
    essence = settings.persistence.diffbase_storage.build(body=body, extra_fields=())
    assert settings.persistence.progress_storage.clear(essence=essence) == {}
    assert settings.persistence.diffbase_storage.fetch(body=body) is None


def test_kopf_remembers_no_object() -> None:
    """One whose deletion no watch told of, as while the API server was away, would never be forgotten."""
    memories = NoMemories()
    body = kopf.Body({"metadata": {"uid": "u1"}})
    first = asyncio.run(memories.recall(body, noticed_by_listing=True, memobase=kopf.Memo()))
    assert first.noticed_by_listing
    assert list(memories.iter_all_memories()) == []
    asyncio.run(memories.forget(body))


@pytest.mark.parametrize(
    "error",
    [
        APIClientError({"message": "the continue token has expired"}, status=410, headers={}),
        watching.WatchingError("Error in the watch-stream: 500"),
        json.JSONDecodeError("Expecting value", "<html>", 0),
        kopf.LoginError("Ran out of valid credentials"),
    ],
    ids=["a page that has expired", "an error in the stream", "no JSON", "credentials that were refused"],
)
def test_a_watch_that_kopf_would_end_the_process_for_begins_anew(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    async def fails(**_: Any) -> AsyncIterator[str]:
        yield "one"
        raise error

    monkeypatch.setattr(watches, "_one_watch", fails)
    monkeypatch.setattr(watches, "_BEGIN_AGAIN_S", 0.0)

    async def all_of_it() -> list[Any]:
        return [event async for event in watches.begun_again(resource="jobs")]

    assert asyncio.run(all_of_it()) == ["one"]
    assert "the watch of jobs begins anew" in caplog.text


def _refused() -> web.Response:
    return web.json_response({"kind": "Status", "code": 401}, status=401)


def _of_a_proxy() -> web.Response:
    return web.Response(text="<html>", content_type="text/html")


@pytest.mark.parametrize("bad", [_refused, _of_a_proxy])
def test_a_watch_lives_through_answers_that_are_not_the_api_servers_last_word(
    monkeypatch: pytest.MonkeyPatch, bad: Callable[[], web.Response]
) -> None:
    """Three in a row; the token on disk stays the same."""
    monkeypatch.setattr(watches, "_BEGIN_AGAIN_S", 0.05)
    asked = 0

    async def jobs(_: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        if asked <= 3:
            return bad()
        return web.Response(text=json.dumps({"type": "ADDED", "object": JOB}) + "\n", content_type="application/json")

    assert asyncio.run(_first_event(monkeypatch, jobs))["object"]["metadata"]["name"] == "a"


def test_a_login_waits_for_credentials_that_are_gone_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kopf would ask no more. At the start it ends the process, which says so."""
    info = kopf.ConnectionInfo(server="https://here", token="t")
    monkeypatch.setattr(watches, "_BEGIN_AGAIN_S", 0.0)
    monkeypatch.setattr(kopf, "login_with_kubeconfig", lambda **_: None)
    answers = [None, info, None, None, info]
    monkeypatch.setattr(kopf, "login_with_service_account", lambda **_: answers.pop(0))

    async def ask() -> list[kopf.ConnectionInfo | None]:
        logins = Logins()
        return [await logins.again() for _ in range(3)]

    found = asyncio.run(ask())
    assert found[0] is None
    assert [(item.token, item.priority) for item in found[1:] if item is not None] == [("t", 1), ("t", 2)]


async def _first_event(monkeypatch: pytest.MonkeyPatch, jobs: Callable[[web.Request], Awaitable[web.Response]]) -> Any:
    """What Kopf's watch tells first, with its own credentials and session."""
    app = web.Application()
    app.router.add_get("/apis/batch/v1/jobs", jobs)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    info = kopf.ConnectionInfo(server=f"http://127.0.0.1:{runner.addresses[0][1]}", token="the same")
    monkeypatch.setattr(kopf, "login_with_service_account", lambda **_: info)
    registry, settings, vault, logins = kopf.OperatorRegistry(), kopf.OperatorSettings(), Vault(), Logins()

    @kopf.on.login(registry=registry)
    async def login(**named: Any) -> kopf.ConnectionInfo | None:
        return await logins.again(**named)

    configure(settings, listed_at_1)
    auth.vault_var.set(vault)
    asks = authenticator(registry=registry, settings=settings, indices={}, vault=vault, memo=kopf.Memo())
    asking = asyncio.create_task(asks)
    try:
        async with asyncio.timeout(60):
            async for event in watching.infinite_watch(settings=settings, resource=JOBS, namespace=None):
                if event is not watching.Bookmark.LISTED:
                    return event
    finally:
        asking.cancel()
        await vault.close()
        await runner.cleanup()


def test_kopf_watches_with_that() -> None:
    configure(kopf.OperatorSettings(), listed_at_1)
    assert watching.infinite_watch.__globals__["continuous_watch"] is watches.begun_again


@pytest.mark.parametrize(
    ("resource", "kind"), [(Resource("batch", "v1", "jobs"), "Job"), (Resource(GROUP, VERSION, PLURAL), KIND)]
)
def test_kopf_lists_nothing_and_watches_from_where_the_operators_list_ends(
    monkeypatch: pytest.MonkeyPatch, resource: Resource, kind: str
) -> None:
    """The API server may be away at first."""
    monkeypatch.setattr(watches, "Endless", lambda: repeat(0.0))
    asked = list[tuple[str, str | None]]()

    async def listed(kind: str, namespace: str | None) -> str:
        asked.append((kind, namespace))
        if len(asked) < 3:
            raise Unavailable("list", kind, "", "", "503")
        return "7"

    configure(kopf.OperatorSettings(), listed)

    async def all_of_it() -> list[Any]:
        pages = watching.fetching.fetch_objs
        return [page async for page in pages(resource=resource, namespace="team-a")]

    assert asyncio.run(all_of_it()) == [([], "7")]
    assert asked == [(kind, "team-a")] * 3
    assert watching.fetching is fetching
