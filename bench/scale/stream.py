"""The simulator's HTTP: requests that go on trying, and watches that never end. An API server that is away is part of
the game."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp

from bench.scale.api import MERGE, Api, Raw

Seen = Callable[[str, Raw], None]  # (LISTED, ADDED, MODIFIED or DELETED; object)
_AGAIN_S = 0.5
_BUSY = frozenset({429, 500, 502, 503, 504})
_TROUBLE = (aiohttp.ClientError, asyncio.TimeoutError, OSError, ValueError)


class Client:
    def __init__(self, api: Api) -> None:
        self.url = api.url
        connector = aiohttp.TCPConnector(limit=64, ssl=api.identity.context())
        forever = aiohttp.ClientTimeout(total=None, sock_connect=10)
        self.session = aiohttp.ClientSession(connector=connector, timeout=forever, read_bufsize=2**20)

    async def call(self, method: str, path: str, body: object = None) -> tuple[int, Raw]:
        kind = MERGE if method == "PATCH" else "application/json"
        while True:
            try:
                async with self.session.request(
                    method,
                    self.url + path,
                    data=None if body is None else json.dumps(body),
                    headers={"Content-Type": kind, "Accept": "application/json"},
                    timeout=aiohttp.ClientTimeout(total=30),
                ) as answer:
                    found = await answer.json(content_type=None)
                    if answer.status not in _BUSY:
                        return answer.status, found
            except _TROUBLE:
                pass
            await asyncio.sleep(_AGAIN_S)

    async def watch(self, path: str, selector: str, seen: Seen) -> None:
        """List, watch, and list again where a watch cannot go on. What a list lacks was deleted meanwhile."""
        known: dict[str, Raw] = {}

        def noted(event: str, item: Raw) -> None:
            meta = item["metadata"]
            if event == "DELETED":
                known.pop(meta["uid"], None)
            else:
                place = {name: meta[name] for name in ("namespace", "name", "uid")}
                known[meta["uid"]] = {"metadata": place, "spec": {}}
            seen(event, item)

        while True:
            status, answer = await self.call("GET", f"{path}?labelSelector={selector}")
            if status == 200:
                there = {item["metadata"]["uid"] for item in answer["items"]}
                for uid in known.keys() - there:
                    seen("DELETED", known.pop(uid))
                for item in answer["items"]:
                    noted("LISTED", item)
                await self._follow(path, selector, answer["metadata"]["resourceVersion"], noted)
            await asyncio.sleep(_AGAIN_S)

    async def _follow(self, path: str, selector: str, version: str, seen: Seen) -> None:
        """Until the API server no longer knows the version."""
        while True:
            query = f"labelSelector={selector}&watch=1&allowWatchBookmarks=true&timeoutSeconds=900"
            try:
                address = f"{self.url}{path}?{query}&resourceVersion={version}"
                async with self.session.get(address, headers={"Accept": "application/json"}) as stream:
                    if stream.status != 200:
                        return
                    async for event in _events(stream):
                        if event["type"] == "ERROR":
                            return
                        version = event["object"]["metadata"]["resourceVersion"]
                        if event["type"] != "BOOKMARK":
                            seen(event["type"], event["object"])
            except _TROUBLE:
                await asyncio.sleep(_AGAIN_S)


async def _events(stream: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    rest = b""
    async for piece in stream.content.iter_any():
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield json.loads(line)
