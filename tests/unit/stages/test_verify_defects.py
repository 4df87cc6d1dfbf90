"""A server with defects, and one that is slow, under the real frame."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from unit.stages.test_verify_stage import prepared, verify
from unit.stages.tiny_serving import HIDDEN, serving

from embedding_stages.contract import ExitCode
from embedding_stages.verify import client as client_module


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    return prepared(tmp_path)


def faulty(change: Callable[[list[dict[str, Any]]], int]) -> Callable[[web.Request, Any], Any]:
    """Let `change` edit the data of an answer; it returns the status to send."""

    async def front(request: web.Request, handler: Callable[[web.Request], Any]) -> Any:
        response = await handler(request)
        if request.path != "/v1/embeddings":
            return response
        body = json.loads(response.body)
        status = change(body["data"])
        return web.Response(text=json.dumps(body), status=status, content_type="application/json")

    return front


def once(fault: Callable[[list[dict[str, Any]]], int]) -> Callable[[list[dict[str, Any]]], int]:
    done = threading.Event()

    def change(data: list[dict[str, Any]]) -> int:
        if done.is_set():
            return 200
        done.set()
        return fault(data)

    return change


def null_vector(data: list[dict[str, Any]]) -> int:
    data[0]["embedding"] = None
    return 200


def nan_vector(data: list[dict[str, Any]]) -> int:
    data[0]["embedding"] = [float("nan")] * HIDDEN
    return 200


def failure(_: list[dict[str, Any]]) -> int:
    return 500


@pytest.mark.parametrize(
    ("fault", "invalid"), [(null_vector, 1), (nan_vector, 1), (failure, 0)], ids=["null", "NaN", "500"]
)
def test_a_passing_defect_is_mended_and_counted(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, fault: Callable[[list[dict[str, Any]]], int], invalid: int
) -> None:
    monkeypatch.setattr(client_module, "_FIRST_PAUSE_S", 0.01)
    with serving(workspace / "model", front=faulty(once(fault))) as url:
        code, result = verify(workspace, url)
    assert code == ExitCode.DONE, result.message
    assert (result.counts["invalidVectors"], result.counts["retries"]) == (invalid, 1)
    assert result.counts["changedQueries"] == 0


@pytest.mark.parametrize(
    ("fault", "code", "reason"),
    [
        (null_vector, ExitCode.STOPPED, "InvalidVectors"),
        (nan_vector, ExitCode.STOPPED, "InvalidVectors"),
        (failure, ExitCode.TRANSIENT, "EndpointFailing"),
    ],
    ids=["null", "NaN", "500"],
)
def test_a_lasting_defect_ends_the_stage(
    workspace: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: Callable[[list[dict[str, Any]]], int],
    code: int,
    reason: str,
) -> None:
    monkeypatch.setattr(client_module, "_FIRST_PAUSE_S", 0.01)
    with serving(workspace / "model", front=faulty(fault)) as url:
        found, result = verify(workspace, url)
    assert (found, result.reason) == (code, reason)


def test_another_model_name_is_refused_with_the_servers_words(workspace: Path) -> None:
    """Also of a server that announces nothing."""

    async def front(request: web.Request, handler: Callable[[web.Request], Any]) -> Any:
        return web.json_response({}, status=404) if request.path == "/v1/models" else await handler(request)

    with serving(workspace / "model", name="renamed", front=front) as url:
        code, result = verify(workspace, url)
    assert (code, result.reason) == (ExitCode.STOPPED, "EndpointRefused")
    assert "renamed" in result.message


def test_a_slow_start_is_waited_for(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "_POLL_S", 0.05)
    began = time.monotonic()

    async def late(request: web.Request, handler: Callable[[web.Request], Any]) -> Any:
        if request.path == "/v1/health/ready" and time.monotonic() - began < 0.5:
            raise web.HTTPServiceUnavailable
        return await handler(request)

    with serving(workspace / "model", front=late) as url:
        assert verify(workspace, url)[0] == ExitCode.DONE


def test_a_server_that_never_becomes_ready_is_transient(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "_POLL_S", 0.05)
    monkeypatch.setattr("embedding_stages.verify.stage.READY_S", 1)
    with serving(None) as url:
        code, result = verify(workspace, url)
    assert (code, result.reason) == (ExitCode.TRANSIENT, "EndpointNotReady")


def test_sigterm_ends_it_between_batches(workspace: Path) -> None:
    seen: list[str] = []

    async def stopped(request: web.Request, handler: Callable[[web.Request], Any]) -> Any:
        if request.path == "/v1/embeddings":
            seen.append(request.path)
            os.kill(os.getpid(), signal.SIGTERM)
        return await handler(request)

    with serving(workspace / "model", front=stopped) as url:
        code, result = verify(workspace, url, batchSize=1)
    assert (code, result.reason) == (ExitCode.TRANSIENT, "Interrupted")
    assert len(seen) < 80


@pytest.mark.parametrize(
    "changes",
    [
        {"url": ""},
        {"url": "svc"},
        {"server": "x"},
        {"model": None},
        {"expectedDigest": 5},
        {"batchSize": 0},
        {"requestTimeoutSeconds": "60"},
    ],
    ids=str,
)
def test_settings_that_are_none(workspace: Path, changes: dict[str, Any]) -> None:
    code, result = verify(workspace, **({"url": "http://127.0.0.1:9"} | changes))
    assert (code, result.reason) == (ExitCode.BAD_INPUT, "SettingInvalid")
