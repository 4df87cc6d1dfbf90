"""The server's life, and the check that runs before it."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from unit.stages.tiny_serving import call, make_serving_folder, serving

from embedding_stages import contract
from embedding_stages.artefacts import digest_of_folder
from embedding_stages.serve import check
from embedding_stages.serve.app import Endpoint, Loaded
from embedding_stages.serve.server import load_model, serve
from embedding_stages.serve.settings import ServerSettings

GOOD = {"input": "topic1", "model": "tiny", "input_type": "query"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def settings(folder: Path, drain_seconds: float = 0.6) -> ServerSettings:
    return ServerSettings(
        folder=folder,
        model="tiny",
        host="127.0.0.1",
        port=free_port(),
        termination_log=folder.parent / "termination-log",
        drain_seconds=drain_seconds,
        finish_seconds=10.0,
    )


def wait_for(status: int, url: str, limit: float = 120.0) -> None:
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        try:
            if call(url)[0] == status:
                return
        except OSError:
            pass
        time.sleep(0.02)
    raise AssertionError(f"{url} did not answer {status} within {limit} s")


class SlowModel:
    """A loaded model whose vectors take a while; `entered` is set when the first batch is under way."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self._loaded = load_model(folder)
        self._seconds = seconds
        self.entered = threading.Event()
        self.batches: list[int] = []
        self.description = self._loaded.model.description
        self.reader = self._loaded.model.reader
        self.runtime = self._loaded.model.runtime
        self.limits = self._loaded.model.limits
        self.query_map = self._loaded.model.query_map

    def vectors(self, rows: Sequence[Sequence[int]], dimensions: int) -> np.ndarray:
        self.entered.set()
        self.batches.append(len(rows))
        time.sleep(self._seconds)
        return self._loaded.model.vectors(rows, dimensions)


def test_after_sigterm_readiness_fails_and_answers_under_way_finish(tmp_path: Path) -> None:
    folder = make_serving_folder(tmp_path / "tiny")
    chosen = settings(folder)
    url = f"http://127.0.0.1:{chosen.port}"
    model = SlowModel(folder, seconds=1.5)
    seen: dict[str, Any] = {}

    def client() -> None:
        wait_for(200, f"{url}/v1/health/ready")
        asking = threading.Thread(target=lambda: seen.update(answer=call(f"{url}/v1/embeddings", GOOD)))
        asking.start()
        assert model.entered.wait(10)
        os.kill(os.getpid(), signal.SIGTERM)
        wait_for(503, f"{url}/v1/health/ready", limit=0.5)  # still reachable, so that clients leave in peace
        seen["live while draining"] = call(f"{url}/v1/health/live")[0]
        asking.join()
        seen["finished"] = time.monotonic()

    async def go() -> int:
        talking = asyncio.create_task(asyncio.to_thread(client))
        code = await serve(chosen, load=lambda _: Loaded(model, "sha256:0"))
        await talking
        return code

    assert asyncio.run(go()) == 0
    assert seen["answer"][0] == 200
    assert seen["live while draining"] == 200
    with pytest.raises(OSError, match="refused"):
        call(f"{url}/v1/health/live")


def test_sigterm_while_loading_ends_at_once(tmp_path: Path) -> None:
    folder = make_serving_folder(tmp_path / "tiny")
    chosen = settings(folder, drain_seconds=60)
    release = threading.Event()
    waited: list[bool] = []

    def slow_load(_: Path) -> Loaded:
        os.kill(os.getpid(), signal.SIGTERM)
        waited.append(release.wait(30))
        return load_model(folder)

    assert asyncio.run(serve(chosen, load=slow_load)) == 0
    assert not waited, "the loading had ended before the server did"
    release.set()


def test_the_module_runs_with_nims_environment(tmp_path: Path) -> None:
    folder = make_serving_folder(tmp_path / "tiny")
    port = free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(Path(contract.__file__).parents[2]),
        "NIM_CUSTOM_MODEL": str(folder),
        "NIM_HTTP_API_PORT": str(port),
        "NGC_API_KEY": "unused",
        "EFT_DRAIN_SECONDS": "0.1",
    }
    command = [sys.executable, "-W", "error", "-m", "embedding_stages.serve"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            wait_for(200, f"http://127.0.0.1:{port}/v1/health/ready")
            assert call(f"http://127.0.0.1:{port}/v1/embeddings", GOOD)[0] == 200
        finally:
            process.send_signal(signal.SIGTERM)
            output, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    lines = [json.loads(line) for line in output.splitlines()]
    assert [line["message"] for line in lines] == ["listening", "ready", "draining", "stopped"]
    assert lines[1]["artefactDigest"] == digest_of_folder(folder)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: (folder / "model.onnx").write_bytes(b"x"), "ServingModelInvalid"),
        (lambda folder: (folder / "encoder.json").unlink(), "EncoderDescriptionInvalid"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "ModelDamaged"),
        (lambda folder: folder.rename(folder.parent / "elsewhere"), "ArtefactMissing"),
    ],
)
def test_a_folder_that_cannot_be_served_ends_the_server(tmp_path: Path, damage: Any, reason: str) -> None:
    folder = make_serving_folder(tmp_path / "tiny")
    damage(folder)
    chosen = settings(folder)
    assert asyncio.run(serve(chosen)) == contract.ExitCode.BAD_INPUT
    assert json.loads(chosen.termination_log.read_text())["reason"] == reason


def test_work_for_a_client_that_went_away_is_dropped(tmp_path: Path) -> None:
    model = SlowModel(make_serving_folder(tmp_path / "tiny"), seconds=0.3)
    endpoint = Endpoint("tiny")

    async def front(request: web.Request, handler: Any) -> Any:
        if endpoint.loaded is None:
            endpoint.start(Loaded(model, "sha256:0"))
        return await handler(request)

    with serving(None, endpoint=endpoint, front=front) as url:
        host, port = url.removeprefix("http://").split(":")
        leaving = http.client.HTTPConnection(host, int(port), timeout=10)
        leaving.request("POST", "/v1/embeddings", json.dumps(GOOD | {"input": ["topic1"] * 100}))
        assert model.entered.wait(10)
        leaving.close()
        assert call(f"{url}/v1/embeddings", GOOD)[0] == 200
        time.sleep(0.4)
    assert sum(model.batches) <= 32 + 32  # of the hundred, what was under way, and then the other client's


class TestCheck:
    def run(self, folder: Path, digest: str) -> tuple[int, dict[str, str] | None]:
        log = folder.parent / "log"
        code = check.main([str(folder), digest], {contract.ENV_TERMINATION_LOG: str(log)})
        return code, json.loads(log.read_text()) if log.exists() else None

    def test_the_evaluated_artefact_may_start(self, tmp_path: Path) -> None:
        folder = make_serving_folder(tmp_path / "tiny")
        assert self.run(folder, digest_of_folder(folder)) == (0, None)

    def test_one_changed_byte_may_not(self, tmp_path: Path) -> None:
        folder = make_serving_folder(tmp_path / "tiny")
        digest = digest_of_folder(folder)
        content = bytearray((folder / "model.onnx").read_bytes())
        content[-1] ^= 1
        (folder / "model.onnx").write_bytes(content)
        code, written = self.run(folder, digest)
        assert code == contract.ExitCode.BAD_INPUT
        assert written is not None
        assert written["reason"] == "ArtefactMismatch"
        assert digest in written["message"]
        assert digest_of_folder(folder) in written["message"]

    def test_an_added_file_may_not(self, tmp_path: Path) -> None:
        folder = make_serving_folder(tmp_path / "tiny")
        digest = digest_of_folder(folder)
        (folder / "extra.py").write_text("")
        assert self.run(folder, digest)[0] == contract.ExitCode.BAD_INPUT

    def test_a_missing_folder_may_not(self, tmp_path: Path) -> None:
        code, written = self.run(tmp_path / "none", "sha256:" + "0" * 64)
        assert code == contract.ExitCode.BAD_INPUT
        assert written is not None
        assert written["reason"] == "ArtefactMissing"

    def test_a_link_may_not(self, tmp_path: Path) -> None:
        folder = make_serving_folder(tmp_path / "tiny")
        digest = digest_of_folder(folder)
        (folder / "model.onnx").rename(tmp_path / "model.onnx")
        (folder / "model.onnx").symlink_to(tmp_path / "model.onnx")
        code, written = self.run(folder, digest)
        assert code == contract.ExitCode.BAD_INPUT
        assert written is not None
        assert written["reason"] == "ArtefactUnsafe"

    @pytest.mark.parametrize("arguments", [[], ["folder"], ["folder", "sha256:short"], ["folder", "a", "b"]])
    def test_wrong_arguments(self, arguments: list[str]) -> None:
        assert check.main(arguments, {}) == 2

    def test_it_needs_the_standard_library_alone(self) -> None:
        program = (
            "import sys; import embedding_stages.serve.check\n"
            "assert not {'numpy', 'aiohttp', 'onnxruntime', 'tokenizers'} & sys.modules.keys()"
        )
        environment = {"PYTHONPATH": str(Path(contract.__file__).parents[2])}
        subprocess.run([sys.executable, "-c", program], check=True, env=environment)
