"""The front of a stand-in: the routes, answers and refusals of the server that it stands in for.

Vectors come from the project's own server behind it, which is asked without a prefix where the real server puts none.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiohttp import ClientSession, web
from stand_ins.started import Started

from embedding_stages.encoder.description import EncoderDescription
from embedding_stages.serve.app import Endpoint
from embedding_stages.serve.server import load_model

_BEHIND = "behind"
_NIM_KEYS = {"input", "model", "input_type", "encoding_format", "truncate", "dimensions", "user", "modality"}


class Front:
    """One stand-in; `start` and `stop` run in the event loop."""

    def __init__(self, started: Started) -> None:
        self.started = started
        self.port = 0
        self._behind = Endpoint(_BEHIND)
        self._runners: list[web.AppRunner] = []
        self._scratch = tempfile.TemporaryDirectory(prefix="stand-in-")
        self._session: ClientSession | None = None
        self._url = ""

    async def start(self, host: str | None, port: int) -> None:
        """Raises StageError for a model that cannot be loaded."""
        folder = self.started.folder
        if not self.started.needs_input_type:
            folder = _without_prefixes(folder, Path(self._scratch.name) / "model")
        behind = self._behind.runner(finish_seconds=5)
        self._url = f"http://127.0.0.1:{await _listen(behind, '127.0.0.1', 0, self._runners)}"
        self._behind.start(load_model(folder))
        self._session = ClientSession()
        app = web.Application(client_max_size=64 << 20)
        app.add_routes([web.post("/v1/embeddings", self._embeddings), web.get("/v1/models", self._models)])
        app.add_routes([web.get(path, self._healthy) for path in self.started.health])
        if self.started.metadata is not None:
            app.add_routes([web.get("/v1/metadata", self._metadata)])
        self.port = await _listen(web.AppRunner(app, access_log=None), host, port, self._runners)

    async def stop(self) -> None:
        if self._session is not None:
            await self._session.close()
        for runner in reversed(self._runners):
            await runner.cleanup()
        await self._behind.stop()
        self._scratch.cleanup()

    async def _healthy(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "health.response", "message": "Service is ready."})

    async def _metadata(self, _: web.Request) -> web.Response:
        return web.json_response(self.started.metadata)

    async def _models(self, _: web.Request) -> web.Response:
        models = [{"id": name, "object": "model", "created": 0, "owned_by": "system"} for name in self.started.names]
        return web.json_response({"object": "list", "data": models})

    async def _embeddings(self, request: web.Request) -> web.Response:
        try:
            asked: Mapping[str, Any] = await request.json()
        except ValueError:
            return _error(400, "the body is not JSON")
        if asked.get("model") not in self.started.names:
            return _error(404, f"The model `{asked.get('model')}` does not exist.")
        body = self._as_nim(asked) if self.started.needs_input_type else self._as_vllm(asked)
        if isinstance(body, web.Response):
            return body
        assert self._session is not None
        async with self._session.post(f"{self._url}/v1/embeddings", json={**body, "model": _BEHIND}) as answer:
            said = json.loads(await answer.read())
        if answer.status == 200:
            said["model"] = asked["model"]
        return web.json_response(said, status=answer.status)

    def _as_nim(self, asked: Mapping[str, Any]) -> Mapping[str, Any] | web.Response:
        if asked.get("input_type") not in ("query", "passage"):
            return _error(400, "'input_type' parameter is required: query or passage")
        if more := sorted(asked.keys() - _NIM_KEYS):
            return _error(422, f"extra fields not permitted: {', '.join(more)}")
        return asked

    def _as_vllm(self, asked: Mapping[str, Any]) -> Mapping[str, Any] | web.Response:
        """It puts no prefix, and what it does not know (input_type, truncate) it passes over."""
        cut = asked.get("truncate_prompt_tokens")
        if cut not in (None, -1):
            return _error(400, "this stand-in cuts where the model ends, by -1")
        known = {key: asked[key] for key in ("input", "encoding_format", "dimensions") if key in asked}
        return {**known, "input_type": "passage", "truncate": "NONE" if cut is None else "END"}


async def _listen(runner: web.AppRunner, host: str | None, port: int, runners: list[web.AppRunner]) -> int:
    await runner.setup()
    runners.append(runner)
    await web.TCPSite(runner, host, port).start()
    found: int = runner.addresses[0][1]
    return found


def _without_prefixes(folder: Path, copy: Path) -> Path:
    from dataclasses import replace

    shutil.copytree(folder, copy)
    replace(EncoderDescription.load(folder), prefixes={"query": "", "passage": ""}).save(copy)
    return copy


def _error(status: int, message: str) -> web.Response:
    return web.json_response({"error": {"message": message, "type": "BadRequestError", "code": status}}, status=status)
