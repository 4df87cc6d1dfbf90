"""HTTP to an embedding endpoint, with the standard library: no redirects, no proxies, bounded answers."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from embedding_stages.encoder.description import Role
from embedding_stages.errors import BadInput, Stopped, Transient
from embedding_stages.vectors import Vectors
from embedding_stages.verify.answers import has_invalid_vectors, read_vectors

MAX_ANSWER_BYTES = 64 << 20
TRIES = 4  # the first and three more
_FIRST_PAUSE_S = 0.5
_POLL_S = 1.0
_BUSY = 429
_EXCERPT = 300  # characters of an error body that a message quotes


class TooSlowError(Exception):
    """Several texts were not embedded in time."""


@dataclass(frozen=True, slots=True)
class Embedded:
    """The vectors of one batch and what it took to get them."""

    vectors: list[Vectors]
    invalid: int  # vectors that came back unfit, the ones that a retry mended included; at least
    retries: int  # requests sent again, for whatever cause


class EndpointClient:
    """One endpoint; safe to use from several threads, because every request has its own connection."""

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises BadInput `SettingInvalid` for anything but http(s)://host[:port]."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/"):
            raise BadInput("SettingInvalid", f"url is {url!r}, expected http://host:port")
        self._parts = parts
        self._timeout_s = timeout_s
        self._sleep = sleep
        self._clock = clock

    def wait_ready(self, limit_s: float, check: Callable[[], None]) -> None:
        """Poll until the server is ready. `check` may raise to give up. Raises Transient `EndpointNotReady`."""
        deadline = self._clock() + limit_s
        while True:
            check()
            try:
                status, body = self._request("GET", "/v1/health/ready", None)
                last = f"HTTP {status} {body[:_EXCERPT].decode('utf-8', 'replace')}"
            except (OSError, http.client.HTTPException) as error:
                status, last = 0, f"{type(error).__name__}: {error}"
            if status == 200:
                return
            if self._clock() >= deadline:
                raise Transient("EndpointNotReady", f"{self._name} was not ready within {limit_s:g} s; last: {last}")
            self._sleep(_POLL_S)

    def artefact_digest(self) -> str | None:
        """What the server says that it serves, or None: NIM, for one, does not say."""
        status, body, _ = self._retried("GET", "/v1/metadata", None, refused_is_an_answer=True)
        digest = body.get("artefactDigest") if status == 200 and isinstance(body, dict) else None
        return digest if isinstance(digest, str) else None

    def embed(self, texts: list[str], *, model: str, role: Role, dimension: int) -> Embedded:
        """Raises Stopped `InvalidVectors` or `EndpointRefused`, Transient `EndpointFailing`, and TooSlowError when
        several texts took longer than the time-out: fewer may not.
        """
        vectors: list[Vectors | None] = [None] * len(texts)
        missing = list(range(len(texts)))
        invalid = retries = 0
        for attempt in range(TRIES):
            if not missing:
                break
            if attempt:
                retries += 1
                self._sleep(_FIRST_PAUSE_S * 2 ** (attempt - 1))
            body = {
                "input": [texts[at] for at in missing],
                "model": model,
                "input_type": role,
                "encoding_format": "float",
                "truncate": "END",
            }
            status, answer, again = self._retried("POST", "/v1/embeddings", body, patient=len(missing) == 1)
            retries += again
            if status != 200:  # refused for its own unfit vectors, of which there is at least one
                invalid += 1
                continue
            for at, vector in zip(missing, read_vectors(answer, texts=len(missing), dimension=dimension), strict=True):
                vectors[at] = vector
            missing = [at for at in missing if vectors[at] is None]
            invalid += len(missing)
        fit = [vector for vector in vectors if vector is not None]
        if len(fit) != len(texts):
            raise Stopped(
                "InvalidVectors",
                f"{self._name} answered {len(missing)} of {len(texts)} {role} texts {TRIES} times without a finite "
                f"vector of {dimension} numbers and length 1",
            )
        return Embedded(fit, invalid, retries)

    @property
    def _name(self) -> str:
        return f"{self._parts.scheme}://{self._parts.netloc}"

    def _retried(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None,
        *,
        refused_is_an_answer: bool = False,
        patient: bool = True,
    ) -> tuple[int, Any, int]:
        """(status, JSON body, requests sent again). Server errors, time-outs and broken answers are sent again; a
        time-out is not when not `patient`, and a server's own word that its vectors are unfit is an answer.
        """
        problem = ""
        for attempt in range(TRIES):
            if attempt:
                self._sleep(_FIRST_PAUSE_S * 2 ** (attempt - 1))
            try:
                status, raw = self._request(method, path, body)
                if status == 200 or (refused_is_an_answer and status < 500 and status != _BUSY):
                    return status, json.loads(raw) if status == 200 else None, attempt
                if status == 500 and has_invalid_vectors(raw):
                    return status, None, attempt
            except TimeoutError as error:
                if not patient:
                    raise TooSlowError from error
                problem = f"TimeoutError: no answer within {self._timeout_s:g} s"
                continue
            except (OSError, http.client.HTTPException, ValueError) as error:
                problem = f"{type(error).__name__}: {error}"
                continue
            problem = f"HTTP {status} {raw[:_EXCERPT].decode('utf-8', 'replace')}"
            if status < 500 and status != _BUSY:
                raise Stopped("EndpointRefused", f"{method} {self._name}{path}: {problem}")
        raise Transient("EndpointFailing", f"{method} {self._name}{path} failed {TRIES} times; last: {problem}")

    def _request(self, method: str, path: str, body: dict[str, Any] | None) -> tuple[int, bytes]:
        secure = self._parts.scheme == "https"
        connect = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        connection = connect(str(self._parts.hostname), self._parts.port, timeout=self._timeout_s)
        try:
            data = None if body is None else json.dumps(body).encode()
            connection.request(method, path, data, {"Content-Type": "application/json", "Connection": "close"})
            with connection.getresponse() as response:
                raw = response.read(MAX_ANSWER_BYTES + 1)
            if len(raw) > MAX_ANSWER_BYTES:
                raise ValueError(f"the answer is longer than {MAX_ANSWER_BYTES} bytes")
            return response.status, raw
        finally:
            connection.close()
