"""What pods would answer: the kubelet's log endpoint, and model servers."""

from __future__ import annotations

import json
import ssl
import time

from aiohttp import web

from bench.scale.api import LOOPBACK, Identity

_LINE_S = 2  # a stage prints its progress this often
_WIDTH = 384


async def _logs(_: web.Request) -> web.Response:
    percent = int(time.time() / _LINE_S) % 100
    progress = {"percent": percent, "step": percent, "totalSteps": 100, "etaSeconds": 60}
    return web.Response(text=json.dumps({"progress": progress}) + "\n")


async def _embeddings(request: web.Request) -> web.Response:
    """A vector for each text, always the same one for the same text."""
    asked = await request.json()
    data = [
        {"index": index, "object": "embedding", "embedding": [float(len(text)), *[1.0] * (_WIDTH - 1)]}
        for index, text in enumerate(asked["input"])
    ]
    return web.json_response({"object": "list", "model": asked["model"], "data": data})


async def serve(identity: Identity, kubelet_port: int, endpoint_port: int) -> None:
    kubelet = web.Application()
    kubelet.router.add_get("/containerLogs/{namespace}/{pod}/{container}", _logs)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(identity.certificate, identity.key)
    await _listen(kubelet, kubelet_port, context)
    models = web.Application()
    models.router.add_post("/v1/embeddings", _embeddings)
    await _listen(models, endpoint_port, None)


async def _listen(application: web.Application, port: int, context: ssl.SSLContext | None) -> None:
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, LOOPBACK, port, ssl_context=context).start()
