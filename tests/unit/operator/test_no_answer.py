"""The operator's client when nobody answers."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta, tzinfo
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from kubernetes import client

from embedding_operator.cluster import client as client_module
from embedding_operator.cluster import requests as requests_module
from embedding_operator.cluster.client import KubeCluster
from embedding_operator.cluster.errors import (
    ClusterError,
    Forbidden,
    ForeignObject,
    NotTried,
    QuotaExceeded,
    Rejected,
    Unavailable,
)


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


def test_a_log_that_does_not_come_is_given_up_before_other_requests_are(
    silent: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert client_module._LOG_TIMEOUT_S < requests_module._TIMEOUT_S
    monkeypatch.setattr(client_module, "_LOG_TIMEOUT_S", 0.2)
    monkeypatch.setattr(requests_module, "_TIMEOUT_S", 3600.0)  # the test would not end
    with connected(port_of(silent), tmp_path, monkeypatch) as cluster:
        assert cluster.log_tail("n", "pod", lines=5) is None


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
        monkeypatch.setattr(cluster._http, "send", send)
        assert cluster.log_tail("n", "pod", lines=5) == "line"
    assert sent[0]["container"] == "stage"


def test_a_log_from_nobody_is_none(deaf: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with connected(deaf, tmp_path, monkeypatch) as cluster:
        assert cluster.log_tail("n", "pod", lines=5) is None


@pytest.mark.parametrize(("status", "text"), [(401, None), (429, None), (503, None), (403, ""), (404, "")])
def test_a_log_that_could_not_be_asked_for_now_is_asked_for_again(
    status: int, text: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None: nobody answered, so what a pod said last is not taken for nothing."""
    with answering(status, {}) as (port, _), connected(port, tmp_path, monkeypatch) as cluster:
        assert cluster.log_tail("n", "pod", lines=5) == text


def test_a_request_that_was_sent_is_not_sent_again_behind_the_queues_back(
    silent: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests_module, "_TIMEOUT_S", 0.3)
    with connected(port_of(silent), tmp_path, monkeypatch) as cluster:
        connections_to(silent)  # of the client's own making
        with pytest.raises(Unavailable):
            cluster.get("Job", "n", "x")
        assert connections_to(silent) == 1


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


def test_the_servers_time_follows_no_jump_of_this_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that woke an hour late is told the right time a moment later: no stage has run for an hour."""
    late = timedelta(hours=-1)

    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + late

    monkeypatch.setattr(requests_module, "datetime", Clock)
    with answering(200, {}) as (port, _), connected(port, tmp_path, monkeypatch) as cluster:
        cluster.get("Job", "n", "x")
        late = timedelta(0)
        assert abs(cluster.now() - datetime.now(UTC)) < timedelta(minutes=1)


STATUS = b'{"kind": "Status", "reason": "NotFound", "message": "no"}'


@pytest.mark.parametrize(
    ("status", "body", "believed"),
    [
        (502, b"<html>502 Bad Gateway</html>", False),
        (503, b'{"error": "upstream is away"}', False),
        (404, b"404 page not found", False),
        (200, b"<html>", False),
        (200, b'"ok"', False),
        (200, b"{}", True),
        (404, STATUS, True),
        (503, STATUS, True),
    ],
)
def test_the_time_is_not_that_of_a_proxy(
    status: int, body: bytes, *, believed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(hours=2), usegmt=True)
    with (
        answering(status, {"Date": date}, body) as (port, _),
        connected(port, tmp_path, monkeypatch) as cluster,
    ):
        before = cluster.now()
        with suppress(ClusterError):
            cluster.get("Job", "n", "x")
        assert (cluster.now() - before > timedelta(hours=1)) is believed


def test_one_answer_with_another_time_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of one of several API servers whose clock is wrong; tests/unit/operator/test_server_clock.py has the rows."""
    headers: dict[str, str] = {}
    with answering(200, headers) as (port, _), connected(port, tmp_path, monkeypatch) as cluster:
        cluster.get("Job", "n", "x")
        headers["Date"] = format_datetime(datetime.now(UTC) + timedelta(hours=2), usegmt=True)
        cluster.get("Job", "n", "x")
        assert abs(cluster.now() - datetime.now(UTC)) < timedelta(minutes=1)


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


BUSY = b'{"kind": "Status", "message": "too many requests, please try again later"}'


@pytest.mark.parametrize("status", [413, 429, 503])
@pytest.mark.parametrize("verb", ["get", "create", "delete"])
def test_a_server_that_says_when_to_come_back_is_understood(
    status: int, verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = {
        "get": lambda cluster: cluster.get("Job", "n", "x"),
        "create": lambda cluster: cluster.create_job({"metadata": {"namespace": "n", "name": "x"}}),
        "delete": lambda cluster: cluster.delete("Job", "n", "x"),
    }
    with answering(status, {"Retry-After": "7"}, BUSY) as (port, asked), connected(port, tmp_path, monkeypatch) as it:
        with pytest.raises(ClusterError, match="please try again later") as error:
            calls[verb](it)
        assert len(asked) == 1
    if status == 413:
        assert isinstance(error.value, Rejected)
    else:
        assert isinstance(error.value, Unavailable)
        assert error.value.retry_after_s == 7


@pytest.mark.parametrize("status", [301, 303, 307, 308])
def test_a_redirect_is_no_answer_and_the_token_is_not_sent_on(
    status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering(status, {"Location": "/elsewhere"}) as (port, asked), connected(port, tmp_path, monkeypatch) as it:
        with pytest.raises(Unavailable, match=f"{status}.*/elsewhere"):
            it.get("Job", "n", "x")
        assert asked == ["/apis/batch/v1/namespaces/n/jobs/x"]


def test_an_answer_that_is_no_json_is_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy's page with code 200."""
    with (
        answering(200, {}, b"<html>") as (port, _),
        connected(port, tmp_path, monkeypatch) as it,
        pytest.raises(Unavailable, match="no JSON"),
    ):
        it.get("Job", "n", "x")


def test_nobody_is_unavailable(deaf: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with connected(deaf, tmp_path, monkeypatch) as cluster, pytest.raises(Unavailable):
        cluster.get("Job", "n", "x")


@pytest.mark.parametrize(
    ("status", "words", "error"),
    [
        (201, "", None),
        (409, "already exists", None),
        (422, "is invalid", Rejected),
        (403, "is forbidden: no PriorityClass with name high was found", Forbidden),
        (403, "is forbidden: exceeded quota: team", QuotaExceeded),
        (403, 'cannot create resource "pods" in API group "" in the namespace "n"', NotTried),
        (400, 'admission webhook "mesh" does not support dry run', NotTried),
        (500, 'failed calling webhook "mesh": connection refused', NotTried),
    ],
)
@pytest.mark.parametrize("kind", ["Job", "Pod"])
def test_a_dry_run_tells_what_would_be_refused_and_nothing_else(
    kind: str,
    status: int,
    words: str,
    error: type[ClusterError] | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    body = json.dumps({"message": words}).encode()
    with answering(status, {}, body) as (port, asked), connected(port, tmp_path, monkeypatch) as it:
        manifest = {"kind": kind, "metadata": {"namespace": "n", "name": "x"}}
        if error is None:
            it.try_out(manifest, within_s=15)
        else:
            with pytest.raises(error):
                it.try_out(manifest, within_s=15)
        assert asked[0].endswith("s?dryRun=All")


@pytest.mark.parametrize("kind", ["Job", "Service", "Secret"])
def test_a_dry_run_takes_no_longer_than_it_may(
    kind: str, deaf: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connected(deaf, tmp_path, monkeypatch) as it, pytest.raises(NotTried):
        it.try_out({"kind": kind, "metadata": {"namespace": "n", "name": "x"}}, within_s=0.2)


def test_a_dry_run_of_what_is_applied_changes_nothing_and_sees_a_stranger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = {"name": "x", "namespace": "n", "ownerReferences": [{"kind": "K", "name": "a", "uid": "1"}]}
    theirs = {**mine, "ownerReferences": []}
    for existing in (mine, theirs):
        body = json.dumps({"metadata": existing}).encode()
        with answering(200, {}, body) as (port, asked), connected(port, tmp_path, monkeypatch) as it:
            if existing is mine:
                it.try_out({"kind": "Service", "metadata": mine}, within_s=15)
                assert "dryRun=All" in asked[1]
            else:
                with pytest.raises(ForeignObject):
                    it.try_out({"kind": "Service", "metadata": mine}, within_s=15)
                assert len(asked) == 1


_REASONS = {404: "NotFound", 403: "Forbidden"}


@pytest.mark.parametrize(
    ("status", "words", "error"),
    [(200, "", None), (404, "not found", Rejected), (403, 'User "o" cannot get resource "secrets" in', NotTried)],
)
def test_a_secret_is_looked_for_and_never_read(
    status: int,
    words: str,
    error: type[ClusterError] | None,
    deaf: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent: list[str] = []

    def send(method: str, path: str, *_: object, accept: str, **__: object) -> tuple[int, dict[str, str], bytes]:
        sent.append(f"{method} {path} {accept}")
        return status, {}, json.dumps({"kind": "Status", "reason": _REASONS.get(status), "message": words}).encode()

    secret = {"kind": "Secret", "metadata": {"namespace": "n", "name": "x"}}
    with connected(deaf, tmp_path, monkeypatch) as cluster:
        monkeypatch.setattr(cluster._http, "send", send)
        if error is None:
            cluster.try_out(secret, within_s=15)
        else:
            with pytest.raises(error):
                cluster.try_out(secret, within_s=15)
    assert len(sent) == 1
    assert sent[0].startswith("GET /api/v1/namespaces/n/secrets/x application/json;as=PartialObjectMetadata")
