"""A reverse proxy on loopback between one process of the operator and the real API server, which does as its plans say.

Plans are by namespace, so that many scenarios share one process of the operator and none sees the faults of another,
but for a kill.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self

import aiohttp
from aiohttp import web
from faults.plans import (
    Cut,
    Drop,
    Gone,
    Kill,
    Later,
    Lose,
    Mutate,
    Plan,
    Refuse,
    Request,
    Silent,
    Slow,
    Stale,
    Twice,
    request_of,
)

Raw = dict[str, Any]
_HOP = {"host", "transfer-encoding", "connection", "content-length", "content-encoding", "accept-encoding"}


@dataclass
class Proxy:
    """Used as `async with`; `kill` ends the operator's process at once."""

    upstream: str
    session: aiohttp.ClientSession  # that trusts the API server
    kill: Callable[[], None] = lambda: None
    plans: dict[str, Plan] = field(default_factory=lambda: defaultdict(Plan))
    port: int = 0
    answers: dict[str, list[bytes]] = field(default_factory=dict)  # of reads: URL -> what was answered, oldest first

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def _handle(self, web_request: web.Request) -> web.StreamResponse:
        body = await web_request.read()
        request = request_of(web_request.method, str(web_request.rel_url), body)
        plan = self.plans[request.namespace]
        if request.verb == "watch":
            return await self._watch(web_request, request, plan)
        plan.asked.append(request)
        if request.writes:
            plan.writes.append(request)
        url = str(web_request.rel_url)
        match plan.fault(request.label):
            case Refuse(code, retry_after, message):
                return _refusal(code, retry_after, message)
            case Slow(seconds):
                await asyncio.sleep(seconds)
            case Kill("before"):
                self.kill()
                return _cut(web_request)
            case Mutate(change):
                raw = json.loads(body)
                change(raw)
                body = json.dumps(raw).encode()
            case Stale() if url in self.answers:
                return web.Response(body=self.answers[url][0], content_type="application/json")
            case Lose():
                await self._forward(web_request, body)
                return _cut(web_request)
            case Kill("after"):
                await self._forward(web_request, body)
                self.kill()
                return _cut(web_request)
        status, headers, data = await self._forward(web_request, body)
        if request.verb in ("get", "list") and status == 200:
            known = self.answers.setdefault(url, [])
            if not known or known[-1] != data:
                known.append(data)
                del known[:-3]
        return web.Response(status=status, headers=headers, body=data)

    async def _forward(self, web_request: web.Request, body: bytes) -> tuple[int, dict[str, str], bytes]:
        url, headers = f"{self.upstream}{web_request.rel_url}", _kept(web_request.headers)
        async with self.session.request(web_request.method, url, data=body or None, headers=headers) as answer:
            return answer.status, _kept(answer.headers), await answer.read()

    async def _watch(self, web_request: web.Request, request: Request, plan: Plan) -> web.StreamResponse:
        fault = plan.fault(request.label)
        if isinstance(fault, Refuse):
            return _refusal(fault.code, fault.retry_after, fault.message)
        url, headers = f"{self.upstream}{web_request.rel_url}", _kept(web_request.headers)
        async with self.session.get(url, headers=headers) as answer:
            sent = web.StreamResponse(status=answer.status, headers=_kept(answer.headers))
            await sent.prepare(web_request)
            with suppress(ConnectionError):
                await self._stream(answer.content, sent, request)
        return sent

    async def _stream(self, lines: aiohttp.StreamReader, sent: web.StreamResponse, request: Request) -> None:
        stream = _Stream(sent)
        loop = asyncio.get_running_loop()
        silent_until = 0.0
        async for line in lines_of(lines):
            event = json.loads(line)
            kind, raw = event["type"], event["object"]
            if loop.time() < silent_until:
                continue
            if kind == "BOOKMARK":
                await stream.send(line)
                continue
            plan = self.plans[request.namespace or raw.get("metadata", {}).get("namespace", "")]
            match plan.fault(f"event {request.resource} {kind}"):
                case Drop():
                    continue
                case Twice():
                    await stream.send(line)
                    await stream.send(line)
                case Later(seconds):
                    stream.hold(line, seconds)
                case Silent(seconds):
                    silent_until = loop.time() + seconds
                case Cut():
                    raise ConnectionResetError
                case Gone():
                    await stream.send(json.dumps(_GONE).encode() + b"\n")
                    return
                case _:
                    await stream.send(line)


class _Stream:
    """What goes to the operator, with what is held back."""

    def __init__(self, sent: web.StreamResponse) -> None:
        self._sent, self._held = sent, list[bytes]()

    async def send(self, line: bytes) -> None:
        await self._sent.write(line)
        while self._held:
            await self._sent.write(self._held.pop(0))

    def hold(self, line: bytes, seconds: float) -> None:
        self._held.append(line)
        asyncio.get_running_loop().call_later(seconds, lambda: asyncio.ensure_future(self._flush()))

    async def _flush(self) -> None:
        with suppress(ConnectionError):
            while self._held:
                await self._sent.write(self._held.pop(0))


_GONE = {
    "type": "ERROR",
    "object": {
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 410, "reason": "Expired",
        "message": "too old resource version",
    },
}  # fmt: skip


async def lines_of(content: aiohttp.StreamReader) -> Any:
    """Lines of any length."""
    rest = b""
    async for chunk in content.iter_any():
        rest += chunk
        *whole, rest = rest.split(b"\n")
        for line in whole:
            yield line + b"\n"


def _kept(headers: Any) -> dict[str, str]:
    return {key: value for key, value in headers.items() if key.lower() not in _HOP}


def _refusal(code: int, retry_after: int, message: str) -> web.Response:
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message}
    headers = {"Retry-After": str(retry_after)} if retry_after else {}
    return web.json_response(body, status=code, headers=headers)


def _cut(web_request: web.Request) -> web.Response:
    """No answer: the connection is reset."""
    if web_request.transport is not None:
        web_request.transport.abort()
    return web.Response()
