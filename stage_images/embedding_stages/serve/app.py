"""HTTP: routes, answers and errors of the embedding endpoint."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np
import orjson
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from embedding_stages.contract.servers import (
    EMBEDDINGS_PATH,
    MAX_BODY_BYTES,
    TOKEN_IDS_HEADER,
    VECTOR_SPACE_HEADER,
)
from embedding_stages.serve.batching import Batcher
from embedding_stages.serve.bodies import SMALL_BODY, Bodies
from embedding_stages.serve.instruments import Instruments
from embedding_stages.serve.model import Model, valid
from embedding_stages.serve.requests import (
    EmbeddingRequest,
    Encoding,
    RequestError,
    names_of,
    parse_request,
    sends_own_ids,
)
from embedding_stages.serve.texts import Rows
from embedding_stages.serve.vector_space import check_vector_space
from embedding_stages.vectors import Vectors

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
# Written in the event loop, where small bodies are read too: sooner done than handed to a thread.
_SMALL_ANSWER = 4  # vectors
_SMALL_MAP = 1 << 20  # multiplications of a query map
_READERS = 4  # large bodies tokenized at once, each of them with all CPUs


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model that passed its self-test."""

    model: Model
    digest: str  # of the folder's files, read before the model was


@dataclass(slots=True)
class Endpoint:
    """The server's state; the process fills `loaded` and sets `draining`."""

    name: str
    vector_space: str | None = None  # its name; None: nobody said
    instruments: Instruments = field(default_factory=Instruments)
    loaded: Loaded | None = None
    batcher: Batcher | None = None
    draining: bool = False
    bodies: Bodies = field(default_factory=Bodies)
    _readers: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(_READERS, "reader"))
    started: int = field(default_factory=lambda: int(time.time()))

    def start(self, loaded: Loaded) -> None:
        """Begin to answer; call it in the event loop."""
        self.batcher = Batcher(loaded.model.vectors, loaded.model.limits, self.instruments.batch_rows.observe)
        self.instruments.waiting_rows.set_function(lambda: self.batcher.waiting_rows if self.batcher else 0)
        self.instruments.model_info.labels(self.name, loaded.digest).set(1)
        self.loaded = loaded

    async def stop(self) -> None:
        if self.batcher is not None:
            await self.batcher.close()
        self._readers.shutdown(wait=False, cancel_futures=True)

    def runner(self, *, finish_seconds: float, front: Sequence[Any] = ()) -> web.AppRunner:
        """Work for a client that went away is dropped. `front` are middlewares around everything."""
        return web.AppRunner(
            self._app(front), access_log=None, handler_cancellation=True, shutdown_timeout=finish_seconds
        )

    def _app(self, front: Sequence[Any]) -> web.Application:
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[*front, self._answer_errors])
        app.add_routes(
            [
                web.post(EMBEDDINGS_PATH, self._embeddings),
                web.get("/v1/models", self._models),
                web.get("/v1/metadata", self._metadata),
                web.get("/v1/metrics", self._metrics),
                web.get("/v1/health/live", self._live),
                web.get("/v1/health/ready", self._ready),
            ]
        )
        return app

    @web.middleware
    async def _answer_errors(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        began = time.perf_counter()
        try:
            response = await handler(request)
        except RequestError as error:
            response = _error(error)
        except web.HTTPException as error:
            response = _error(RequestError(error.status, f"{request.method} {request.path}: {error.reason}"))
        except Exception:  # the one place that may catch all: every client gets an answer in the API's shape
            traceback.print_exc(file=sys.stderr)
            response = _error(RequestError(500, "the server failed; its log has the cause", code="internal"))
        if request.path == EMBEDDINGS_PATH:
            self.instruments.requests.labels(str(response.status)).inc()
            self.instruments.seconds.observe(time.perf_counter() - began)
            if self.vector_space is not None:
                response.headers[VECTOR_SPACE_HEADER] = self.vector_space
        if self.draining:
            response.force_close()
        return response

    async def _embeddings(self, request: web.Request) -> web.Response:
        check_vector_space(request.headers.getall(VECTOR_SPACE_HEADER, ()), self.vector_space)
        own_ids = sends_own_ids(request.headers.getall(TOKEN_IDS_HEADER, ()))
        loaded, batcher = self.loaded, self.batcher
        if loaded is None or batcher is None:
            raise RequestError(503, "the model is still loading", code="not_ready")
        async with self.bodies.read(request) as sent:
            asked, rows = await self._read_in_turn(sent, loaded.model, own_ids=own_ids)
        vectors = await _vectors(batcher, loaded.model, rows, asked)
        invalid = int(np.count_nonzero(~valid(vectors)))
        if invalid:
            self.instruments.invalid_vectors.inc(invalid)
            raise RequestError(
                500, f"{invalid} of {len(rows)} vectors are not finite or not of length 1", code="invalid_vectors"
            )
        tokens = sum(map(len, rows))
        self.instruments.tokens.labels(asked.role).inc(tokens)
        body = await _aside(len(rows) > _SMALL_ANSWER, _answer, self.name, vectors, asked, tokens)
        return web.Response(body=body, content_type="application/json", charset="utf-8")

    async def _read_in_turn(self, body: bytearray, model: Model, *, own_ids: bool) -> tuple[EmbeddingRequest, Rows]:
        """Large bodies a few at a time: a tokenizer's answer takes a hundred times the memory of its text.

        Raises RequestError.
        """
        if len(body) <= SMALL_BODY:
            return self._read(body, model, own_ids=own_ids)
        # Threads of their own and no semaphore: a thread goes on when its client goes away, and still counts.
        read = partial(self._read, body, model, own_ids=own_ids)
        return await asyncio.get_running_loop().run_in_executor(self._readers, read)

    def _read(self, body: bytearray, model: Model, *, own_ids: bool) -> tuple[EmbeddingRequest, Rows]:
        """Raises RequestError."""
        try:
            raw = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise RequestError(400, f"the body is not JSON: {error}", code="invalid_json") from error
        spell = model.reader.spell if own_ids else None
        asked = parse_request(raw, model=self.name, description=model.description, spell=spell)
        return asked, model.reader.read(asked.texts, asked.role, asked.truncate)

    async def _models(self, _request: web.Request) -> web.Response:
        if self.loaded is None:
            return web.json_response({"object": "list", "data": []})
        description = self.loaded.model.description
        common = {"object": "model", "created": self.started, "owned_by": "organization"}
        length = {"max_model_len": description.max_tokens}
        models = [{"id": name, **common, **length} for name in names_of(self.name, description)]
        return web.json_response({"object": "list", "data": models})

    async def _metadata(self, _request: web.Request) -> web.Response:
        if self.loaded is None:
            raise RequestError(503, "the model is still loading", code="not_ready")
        return web.json_response(
            {
                "model": self.name,
                "artefactDigest": self.loaded.digest,
                "vectorSpace": self.vector_space,
                "encoder": asdict(self.loaded.model.description),
                "runtime": asdict(self.loaded.model.runtime),
            }
        )

    async def _metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=self.instruments.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _live(self, _request: web.Request) -> web.Response:
        return web.json_response({"object": "health.response", "message": "live"})

    async def _ready(self, _request: web.Request) -> web.Response:
        message = "draining" if self.draining else "ready" if self.loaded else "loading"
        status = 200 if message == "ready" else 503
        return web.json_response({"object": "health.response", "message": message}, status=status)


async def _vectors(batcher: Batcher, model: Model, rows: Rows, asked: EmbeddingRequest) -> Vectors:
    """float32 (rows, dimensions asked for). Whole vectors of queries are mapped, so that they can be computed together
    with passages' of other requests; then they are cut. Raises RequestError 429.
    """
    if model.query_map is None or asked.role != "query":
        return await batcher.embed(rows, asked.dimensions)
    whole = await batcher.embed(rows, model.description.vector_size)
    large = len(rows) * model.query_map.weight.size > _SMALL_MAP
    mapped: Vectors = await _aside(large, model.query_map.apply, whole, asked.dimensions)
    return mapped


async def _aside(large: bool, function: Callable[..., Any], *arguments: Any) -> Any:
    """The result of `function`, in a thread where it is `large`: work that others should not have to wait for."""
    return await asyncio.to_thread(function, *arguments) if large else function(*arguments)


def _answer(model: str, vectors: Vectors, asked: EmbeddingRequest, tokens: int) -> bytes:
    data = [
        {"object": "embedding", "index": index, "embedding": embedding}
        for index, embedding in enumerate(encode_vectors(vectors, asked.encoding))
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    answer = {"object": "list", "data": data, "model": model, "usage": usage}
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


def encode_vectors(vectors: Vectors, encoding: Encoding) -> Sequence[str | Vectors]:
    """Each row as it is, to be written in the fewest digits that tell a float32, or as base64 of little-endian ones."""
    if encoding == "base64":
        return [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in vectors]
    return list(np.ascontiguousarray(vectors))


def _error(error: RequestError) -> web.Response:
    headers = {"Retry-After": "1"} if error.status in (429, 503) else None
    if error.status == 409:  # OpenAI's client libraries would send it twice more, to the same answer
        headers = {"x-should-retry": "false"}
    return web.json_response(error.body(), status=error.status, headers=headers)
