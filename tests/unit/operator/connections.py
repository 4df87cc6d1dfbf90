"""The operator's client, and who answers it: the same each time, nothing, or nobody at all."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from kubernetes import client

from embedding_operator.cluster.client import KubeCluster


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
    found.close()


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """Where connections are taken and nothing is ever said."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        yield listener


def port_of(listener: socket.socket) -> int:
    return int(listener.getsockname()[1])


def connections_to(listener: socket.socket) -> int:
    """How many were made and not yet counted."""
    listener.setblocking(False)
    found = 0
    with suppress(BlockingIOError):
        while True:
            listener.accept()[0].close()
            found += 1
    return found


@pytest.fixture
def deaf() -> Iterator[int]:
    """A port where nobody listens."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield int(holder.getsockname()[1])


@contextmanager
def answering(status: int, headers: dict[str, str], body: bytes = b"{}") -> Iterator[tuple[int, list[str]]]:
    """A server that always answers the same; (port, paths that were asked for)."""
    asked: list[str] = []

    class Same(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked.append(self.path)
            self.send_response_only(status)
            for name, value in {"Date": self.date_time_string(), **headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            self.answer()

        def do_POST(self) -> None:
            self.answer()

        def do_PATCH(self) -> None:
            self.answer()

        def do_DELETE(self) -> None:
            self.answer()

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Same) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port, asked
        server.shutdown()
        thread.join()
