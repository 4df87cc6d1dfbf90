"""Whatever an endpoint answers, the pass that asks it goes on."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from embedding_operator.cluster import endpoint
from embedding_operator.cluster.endpoint import Patient, ask_canaries
from embedding_stages.contract.canaries import CANARIES

OK = b"HTTP/1.1 200 OK\r\n\r\n"
CONTRACT = {"model": "m"}


def vectors(count: int, number: str = "0.5") -> bytes:
    return b'{"data":[%s]}' % b",".join(b'{"index":%d,"embedding":[%s]}' % (i, number.encode()) for i in range(count))


def read_request(client: socket.socket) -> None:
    """All of it: closing a connection with something unread resets it, and the answer may be lost on the way."""
    with client.makefile("rb") as stream:
        headers = dict(line.split(b": ", 1) for line in iter(stream.readline, b"\r\n") if b": " in line)
        stream.read(int(headers[b"Content-Length"]))


@pytest.fixture
def serve() -> Iterator[Callable[[bytes], str]]:
    """Serve the same bytes to whoever connects."""
    listening: list[socket.socket] = []

    def start(answer: bytes) -> str:
        server = socket.create_server(("127.0.0.1", 0))
        listening.append(server)

        def run() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                with client:
                    try:
                        read_request(client)
                        client.sendall(answer)
                    except OSError:
                        continue

        threading.Thread(target=run, daemon=True).start()
        return f"http://127.0.0.1:{server.getsockname()[1]}/v1/embeddings"

    yield start
    for server in listening:
        server.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"\x00\x01 no HTTP\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\na: " + b"x" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 500 Internal Server Error\r\n\r\n",
        OK + b"not JSON",
        OK + b"[" * 200_000,
        OK + b"[]",
        OK + vectors(3),
        OK + vectors(len(CANARIES), number="1" + "0" * 400),
        OK + vectors(len(CANARIES), number="1e999"),
        OK + vectors(len(CANARIES), number="null"),
        OK + vectors(len(CANARIES), number="1e200"),
    ],
    ids=range(13),
)
def test_what_is_no_answer_is_none(serve: Callable[[bytes], str], answer: bytes) -> None:
    assert ask_canaries(serve(answer), CONTRACT) is None


def test_an_answer_has_the_vectors_in_the_canaries_order(serve: Callable[[bytes], str]) -> None:
    many = max(sum(role == asked for role, _ in CANARIES) for asked in ("query", "passage"))
    assert ask_canaries(serve(OK + vectors(many)), CONTRACT) == [[0.5]] * len(CANARIES)


def test_a_redirect_is_not_followed(serve: Callable[[bytes], str]) -> None:
    elsewhere = serve(OK + vectors(8))
    assert ask_canaries(serve(b"HTTP/1.1 302 Found\r\nLocation: %s\r\n\r\n" % elsewhere.encode()), CONTRACT) is None


def test_nobody_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert ask_canaries(f"http://127.0.0.1:{port}/v1/embeddings", CONTRACT) is None


def test_an_answer_that_never_ends_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "_TIMEOUT_S", 0.3)
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            client, _ = server.accept()
            with client:
                try:
                    client.sendall(OK)
                    while not stop.wait(0.05):  # each byte comes well before a read gives up
                        client.sendall(b" ")
                except OSError:
                    return

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        assert ask_canaries(f"http://127.0.0.1:{server.getsockname()[1]}/v1/embeddings", CONTRACT) is None
        stop.set()
        thread.join()


def test_an_endpoint_that_does_not_answer_is_left_alone_longer_and_longer() -> None:
    now, asked, answer = [0.0], list[float](), [None, None, None, [[1.0]], None, [[1.0]]]

    def ask(url: str, contract: object) -> list[list[float]] | None:
        asked.append(now[0])
        return answer[len(asked) - 1]

    patient = Patient(ask=ask, clock=lambda: now[0])
    for second in range(400):
        now[0] = float(second)
        if len(asked) < len(answer):
            patient("http://a", CONTRACT)
    assert asked == [0, 30, 90, 210, 211, 241]


def test_endpoints_that_do_not_answer_are_remembered_by_passes_at_the_same_time() -> None:
    patient = Patient(ask=lambda url, contract: None, clock=lambda: 0.0)
    threads = [
        threading.Thread(target=lambda first=first: [patient(f"http://{first}-{n}", {}) for n in range(300)])
        for first in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(patient.pauses) == 1200, "none is lost"
