"""Which time the operator's client takes from answers: the API server's own, and no jump of a clock."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta, tzinfo
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from unit.operator.connections import answering, connected

from embedding_operator.cluster import requests as requests_module
from embedding_operator.cluster.errors import ClusterError


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
