"""Request bodies, within a budget: their bytes are counted before they are read, and until they are tokenized."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from embedding_stages.contract.servers import MAX_BODY_BYTES
from embedding_stages.serve.requests import RequestError

SMALL_BODY = 4096  # bytes; what aiohttp holds of a connection anyway, so it is not counted
READ_SECONDS = 60.0  # a full body at 0.6 MB/s


@dataclass(slots=True)
class Bodies:
    """The bodies in memory. Their clients may be slow, so a body counts from its first byte on."""

    budget: int = 4 * MAX_BODY_BYTES  # bytes
    seconds: float = READ_SECONDS  # that a body may take to arrive
    held: int = 0  # bytes

    @asynccontextmanager
    async def read(self, request: web.Request) -> AsyncIterator[bytearray]:
        """The body, which counts until the context ends.

        Raises RequestError: 413 for a body that is too large, 429 when those of others leave no room, 408 when it does
        not arrive in time, 400 when it is not in the coding that it states. Nothing is read of a body whose stated
        length is refused.
        """
        body = bytearray()
        taken = 0

        def take(size: int) -> None:
            """Count a body of `size` bytes, of which a part may be counted already."""
            nonlocal taken
            if size > MAX_BODY_BYTES:
                raise RequestError(
                    413, f"the body is larger than {MAX_BODY_BYTES} bytes: send fewer texts", code="too_large"
                )
            more = size - taken if size > SMALL_BODY else 0
            if more > 0 and self.held + more > self.budget:
                raise RequestError(429, "too many large requests are waiting, try again in a second", code="overloaded")
            if more > 0:
                taken += more
                self.held += more

        try:
            take(request.content_length or 0)
            try:
                async with asyncio.timeout(self.seconds):
                    async for piece in request.content.iter_any():
                        take(len(body) + len(piece))  # without a stated length a body counts as it comes
                        body += piece
            except TimeoutError as error:
                raise RequestError(
                    408, f"the body did not arrive within {self.seconds:.0f} s: send fewer texts", code="timeout"
                ) from error
            except web.RequestPayloadError as error:  # such as a damaged gzip stream
                raise RequestError(400, f"the body cannot be read: {error}", code="invalid_body") from error
            yield body
        finally:
            self.held -= taken
