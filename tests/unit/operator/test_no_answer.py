"""The operator's client when nobody answers."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml
from kubernetes import client

from embedding_operator.cluster import client as cluster_module
from embedding_operator.cluster.client import KubeCluster
from embedding_operator.cluster.errors import Unavailable


@contextmanager
def connected(port: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubeCluster]:
    """As in production, but for the address."""
    server = {"name": "here", "cluster": {"server": f"http://127.0.0.1:{port}"}}
    context = {"name": "here", "context": {"cluster": "here", "user": "nobody"}}
    path = folder / "kubeconfig"
    users = [{"name": "nobody", "user": {}}]
    path.write_text(
        yaml.safe_dump({"current-context": "here", "clusters": [server], "contexts": [context], "users": users})
    )
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(path))
    monkeypatch.setattr(client.Configuration, "_default", None)
    found = KubeCluster.connect(connections=1)
    yield found
    found._api.close()


@pytest.fixture
def silent() -> Iterator[int]:
    """A port where connections are taken and nothing is ever said."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        yield int(listener.getsockname()[1])


@pytest.fixture
def deaf() -> Iterator[int]:
    """A port where nobody listens."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield int(holder.getsockname()[1])


def test_a_log_that_does_not_come_is_empty_and_soon_given_up(
    silent: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_module, "_LOG_TIMEOUT_S", 0.2)
    with connected(silent, tmp_path, monkeypatch) as cluster:
        started = time.monotonic()
        assert cluster.log_tail("n", "pod", lines=5) == ""
        assert time.monotonic() - started < 2


def test_a_log_is_that_of_the_stage_whatever_runs_beside_it(
    deaf: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The API server refuses to choose among several containers."""
    sent: list[dict[str, str]] = []

    def send(
        method: str, path: str, query: dict[str, str], *_: object, **__: object
    ) -> tuple[int, dict[str, str], bytes]:
        sent.append(query)
        return 200, {}, b"line"

    with connected(deaf, tmp_path, monkeypatch) as cluster:
        monkeypatch.setattr(cluster, "_send", send)
        assert cluster.log_tail("n", "pod", lines=5) == "line"
    assert sent[0]["container"] == "stage"


def test_a_log_from_nobody_is_empty(deaf: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with connected(deaf, tmp_path, monkeypatch) as cluster:
        assert cluster.log_tail("n", "pod", lines=5) == ""


def test_a_request_that_was_sent_is_not_sent_again_behind_the_queues_back(
    silent: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_module, "_TIMEOUT_S", 0.3)
    with connected(silent, tmp_path, monkeypatch) as cluster:
        started = time.monotonic()
        with pytest.raises(Unavailable):
            cluster.get("Job", "n", "x")
        assert time.monotonic() - started < 0.9


def test_the_clock_follows_the_date_of_the_last_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Late(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def date_time_string(self, timestamp: float | None = None) -> str:
            return super().date_time_string(int(time.time()) + 3600)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with HTTPServer(("127.0.0.1", 0), Late) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        with connected(server.server_port, tmp_path, monkeypatch) as cluster:
            before = cluster.now()
            cluster.get("Job", "n", "x")
            assert 3590 < (cluster.now() - before).total_seconds() < 3610
        thread.join()


def test_nobody_is_unavailable(deaf: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with connected(deaf, tmp_path, monkeypatch) as cluster, pytest.raises(Unavailable):
        cluster.get("Job", "n", "x")
