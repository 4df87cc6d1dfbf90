"""Asks an embedding endpoint for vectors: the only traffic of the operator that does not go to the API server."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from threading import Timer
from typing import Any, Final
from urllib.parse import urlsplit

from embedding_stages.contract.canaries import CANARIES, texts_of

Vectors = Sequence[Sequence[float]]
Ask = Callable[[str, Mapping[str, Any]], Vectors | None]  # (address, contract with the model's name) -> vectors
_TIMEOUT_S: Final = 5.0
_MOST_BYTES: Final = 16 << 20
_FLOAT32_MAX: Final = (2 - 2**-23) * 2.0**127  # vectors are kept in float32
_ROLES: Final = ("query", "passage")
# What a server may answer is anybody's: no answer of it ends a pass.
_NO_ANSWER: Final = (OSError, HTTPException, ValueError, KeyError, TypeError, OverflowError, RecursionError)
_FIRST_PAUSE_S: Final = 30.0
_LONGEST_PAUSE_S: Final = 300.0


@dataclass(kw_only=True)
class Patient:
    """An `Ask` that leaves an endpoint alone for a while when it has not answered: each question may take seconds of a
    worker, and an endpoint that the operator cannot reach would cost them in every pass.
    """

    ask: Ask
    clock: Callable[[], float]  # seconds
    pauses: dict[str, tuple[float, float]] = field(default_factory=dict)  # address -> (until, how long it was)
    _lock: threading.Lock = field(default_factory=threading.Lock)  # passes ask at the same time

    def __call__(self, url: str, contract: Mapping[str, Any]) -> Vectors | None:
        now = self.clock()
        until, pause = self.pauses.get(url, (now, 0.0))
        if now < until:
            return None
        vectors = self.ask(url, contract)
        with self._lock:
            # What nobody asks any more is forgotten.
            self.pauses = {key: known for key, known in self.pauses.items() if key != url and known[0] > now - 3600}
            if vectors is None:
                pause = min(2 * pause, _LONGEST_PAUSE_S) or _FIRST_PAUSE_S
                self.pauses[url] = (self.clock() + pause, pause)
        return vectors


def ask_canaries(url: str, contract: Mapping[str, Any]) -> Vectors | None:
    """The vectors of the canaries, in their order; None when the endpoint does not answer them all in time.

    `url` is that of /v1/embeddings; `contract` is `status.served.contract` with the model's name as `model`.
    """
    found: dict[str, list[Sequence[float]]] = {}
    for role in _ROLES:
        texts = texts_of(role)
        vectors = _embed(url, contract, role, texts)
        if vectors is None or len(vectors) != len(texts):
            return None
        found[role] = vectors
    return [found[role].pop(0) for role, _ in CANARIES]


def _embed(url: str, contract: Mapping[str, Any], role: str, texts: list[str]) -> list[Sequence[float]] | None:
    told = role in (contract.get("inputTypes") or ())
    prefix = "" if told else str((contract.get("prefixes") or {}).get(role, ""))
    body = {
        "model": contract["model"],
        "input": [prefix + text for text in texts],
        "encoding_format": "float",
        **({"input_type": role} if told else {}),
        **(contract.get("requestFields") or {}),
    }
    try:
        raw = json.loads(_post(url, json.dumps(body).encode()))
        by_index = {item["index"]: [float(x) for x in item["embedding"]] for item in raw["data"]}
    except _NO_ANSWER:
        return None
    vectors = [by_index.get(index) for index in range(len(texts))]
    if any(not vector or not all(abs(x) <= _FLOAT32_MAX for x in vector) for vector in vectors):
        return None
    return [vector for vector in vectors if vector]


def _post(url: str, body: bytes) -> bytes:
    """The body of the answer. It follows no redirect and asks no proxy: endpoints are inside of the cluster.

    Raises OSError or HTTPException, also when it is not whole in time, however slowly it comes.
    """
    where = urlsplit(url)
    connection = HTTPConnection(where.hostname or "", where.port, timeout=_TIMEOUT_S)
    connection.connect()
    timer = Timer(_TIMEOUT_S, _cut, [connection.sock])
    timer.start()
    try:
        connection.request("POST", where.path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        if answer.status != 200:
            raise HTTPException(f"status {answer.status}")
        return answer.read(_MOST_BYTES)
    finally:
        timer.cancel()
        connection.close()


def _cut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
