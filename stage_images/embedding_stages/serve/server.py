"""The life of the server process: listen at once, load, answer, drain, end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from embedding_stages.artefacts import digest_of_folder
from embedding_stages.contract import ExitCode, canonical_json
from embedding_stages.errors import BadInput, StageError
from embedding_stages.serve.app import Endpoint, Loaded
from embedding_stages.serve.model import self_test
from embedding_stages.serve.open_model import open_model
from embedding_stages.serve.settings import ServerSettings


async def serve(settings: ServerSettings, *, load: Callable[[Path], Loaded] | None = None) -> int:
    """Run until SIGTERM or SIGINT; returns the exit code: 0, 10 for a folder that cannot be served, 1 for a bug.

    After the signal readiness fails while requests are still answered for `drain_seconds`, because the
    cluster needs that long to send clients elsewhere; then the socket closes and answers under way finish.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    endpoint = Endpoint(settings.model, vector_space=settings.vector_space)
    runner = endpoint.runner(finish_seconds=settings.finish_seconds)
    await runner.setup()
    await web.TCPSite(runner, settings.host, settings.port).start()
    said = {"port": settings.port, "model": settings.model, "vectorSpace": settings.vector_space}
    log("listening", folder=str(settings.folder), **said)
    try:
        loading = _in_daemon_thread(load or load_model, settings.folder)
        stopping = loop.create_task(stop.wait())
        either: set[asyncio.Future[Any]] = {loading, stopping}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if loading.done():
            loaded = loading.result()
            endpoint.start(loaded)
            log("ready", artefactDigest=loaded.digest, providers=loaded.model.runtime.providers)
            await stopping
        endpoint.draining = True
        log("draining", seconds=settings.drain_seconds)
        await asyncio.sleep(settings.drain_seconds if loading.done() else 0.0)
    except StageError as error:
        log(error.message, reason=error.reason)
        with contextlib.suppress(OSError):  # not in a container
            settings.termination_log.write_text(canonical_json({"reason": error.reason, "message": error.message}))
        return error.exit_code
    finally:
        await runner.cleanup()
        await endpoint.stop()
    log("stopped")
    return ExitCode.DONE


def load_model(folder: Path) -> Loaded:
    """Digest first, so that it is never of files newer than the loaded ones. Raises BadInput or StageError."""
    if not folder.is_dir():
        raise BadInput("ArtefactMissing", f"there is no model folder at {folder}: mount it there")
    digest = digest_of_folder(folder)
    model = open_model(folder, log)
    self_test(model)
    return Loaded(model, digest)


def _in_daemon_thread(function: Callable[[Path], Loaded], folder: Path) -> asyncio.Future[Loaded]:
    """Unlike the executor's, this thread does not hold up the end of the process."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Loaded] = loop.create_future()

    def settle(loaded: Loaded | None, error: Exception | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        elif loaded is not None:
            future.set_result(loaded)

    def work() -> None:
        try:
            loaded, problem = function(folder), None
        except Exception as error:  # handed to the event loop, which raises it
            loaded, problem = None, error
        with contextlib.suppress(RuntimeError):  # the process has ended meanwhile
            loop.call_soon_threadsafe(settle, loaded, problem)

    threading.Thread(target=work, name="load", daemon=True).start()
    return future


def log(message: str, **fields: object) -> None:
    """One JSON line on standard output."""
    print(json.dumps({"stage": "serve", "message": message, **fields}, ensure_ascii=False, default=str), flush=True)
