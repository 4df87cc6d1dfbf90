"""What the kubelet asks of this process, over HTTP: whether it is to go on, and whether it could lead."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable

from aiohttp import web

log = logging.getLogger(__name__)
ALIVE = "/healthz"
READY = "/readyz"


class Probes:
    """Both functions return what is wrong, in words; nothing: all is well. They are called on the loop."""

    def __init__(self, *, port: int, alive: Callable[[], str], ready: Callable[[], str]) -> None:
        self.port = port  # 0: any that is free, known after `start`
        self._alive, self._ready = alive, ready
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Raises OSError when the port is taken."""
        app = web.Application()
        app.add_routes([web.get(ALIVE, self._tell_alive), web.get(READY, self._tell_ready)])
        self._runner = web.AppRunner(app, handle_signals=False, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        listener = await asyncio.to_thread(_listen, self.port)  # which may fail once Kopf has begun its other tasks
        await web.SockSite(self._runner, listener).start()
        self.port = int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _tell_alive(self, _: web.Request) -> web.Response:
        wrong = self._alive()
        if wrong:  # the kubelet ends the process for this, so the log has to say why
            log.error("not alive: %s", wrong)
        return _answer(wrong)

    async def _tell_ready(self, _: web.Request) -> web.Response:
        return _answer(self._ready())


def any_address() -> str:
    """To listen at, of both families where the machine has both: a cluster may have one alone, or either first."""
    return "::" if socket.has_dualstack_ipv6() else "0.0.0.0"  # noqa: S104


def _listen(port: int) -> socket.socket:
    """One socket for both families, since asyncio would open two, at two ports where any will do."""
    address = (any_address(), port)
    if address[0] == "::":
        return socket.create_server(address, family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(address)


def _answer(wrong: str) -> web.Response:
    return web.Response(status=503 if wrong else 200, text=wrong or "ok")
