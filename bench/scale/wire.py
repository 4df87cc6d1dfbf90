"""The wire between the operator and the API server: passes bytes on, and can be cut or go silent."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress

from bench.scale.api import LOOPBACK
from bench.scale.process import free_port

_PIECE = 1 << 16
_GONE = (OSError, asyncio.IncompleteReadError)


class Wire:
    """Runs in a thread of its own. TLS goes through: the API server's certificate is for this address, too."""

    def __init__(self, target: int) -> None:
        self.target, self.port = target, free_port()
        self.loop = asyncio.new_event_loop()
        self.open = asyncio.Event()
        self.open.set()
        self.writers: set[asyncio.StreamWriter] = set()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(asyncio.start_server(self._connection, LOOPBACK, self.port))
        self.loop.run_forever()

    def cut(self) -> None:
        """Every connection ends."""

        def all_of_them() -> None:
            for writer in list(self.writers):
                writer.transport.abort()

        self._do(all_of_them)

    def silence(self, silent: bool) -> None:
        """Connections stay open, and nothing comes through."""
        self._do(self.open.clear if silent else self.open.set)

    def _do(self, what: Callable[[], None]) -> None:
        self.loop.call_soon_threadsafe(what)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there_reader, there = await asyncio.open_connection(LOOPBACK, self.target)
        except OSError:
            writer.close()
            return
        self.writers |= {writer, there}
        try:
            await asyncio.gather(self._pass_on(reader, there), self._pass_on(there_reader, writer))
        finally:
            self.writers -= {writer, there}
            for side in (writer, there):
                with suppress(*_GONE):
                    side.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(*_GONE):
            while piece := await reader.read(_PIECE):
                await self.open.wait()
                writer.write(piece)
                await writer.drain()
        # A half that ends ends the whole: HTTP needs no half-open connections.
        writer.transport.abort()
