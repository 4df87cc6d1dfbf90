"""HTTP to one server, with retries: bounded answers, no redirects, and nothing in a message that a header carried.

On urllib alone. urllib3's Retry cannot look into an answer ("no credit left" is final, also with status 429), its
waits do not end when the pod is asked to stop, and httpx would be one more dependency of two images.
"""

from __future__ import annotations

import email.utils
import http.client
import ipaddress
import json
import os
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from embedding_stages.trust import trusting

_TIMEOUT, _TOO_EARLY, _CONFLICT, _TOO_MANY = 408, 425, 409, 429
_SERVER_ERRORS: Final = 500
_NEVER_BETTER: Final = frozenset({501, 505})  # not implemented, and the version of HTTP
_SHORTEST_KEY: Final = 16  # characters: "token" and "test" stand for no key, and are words of many answers
_EXCERPT: Final = 300  # characters of an answer that a message quotes

Wait = Callable[[float], None]  # seconds; may raise to give up
Received = Callable[["Answer"], None]


def may_pass(status: int) -> bool:
    """Whether the same request may be answered when it is sent again."""
    if status in (_TIMEOUT, _CONFLICT, _TOO_EARLY, _TOO_MANY):
        return True
    return status >= _SERVER_ERRORS and status not in _NEVER_BETTER


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the server said, whatever its status."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    is_cut: bool = False  # longer than the client reads
    sent_again: int = 0  # requests before this one that were in vain
    key: str | None = field(default=None, repr=False)  # what `text` masks

    @property
    def text(self) -> str:
        """For messages. The body itself is left as it is: a key such as "token" may be a word of the answer."""
        said = self.body.decode("utf-8", "replace")
        return said.replace(self.key, "***") if self.key else said

    @property
    def lasting(self) -> str:
        """For a file that others may read: without a key that is long enough to be one and no word of the answer."""
        said = self.body.decode("utf-8", "replace")
        return said.replace(self.key, "***") if self.key and len(self.key) >= _SHORTEST_KEY else said

    @cached_property
    def json(self) -> Any:
        """Parsed once. Raises ValueError, also for an answer that was cut."""
        if self.is_cut:
            raise ValueError(f"the answer is longer than {len(self.body)} bytes")
        try:
            return json.loads(self.body)
        except RecursionError as error:
            raise ValueError("the answer is nested too deeply") from error

    def retry_after_s(self, now: float) -> float:
        """Seconds that the server asks to wait, 0 where it does not. `now`: seconds since 1970."""
        return _retry_after(self.headers.get("Retry-After"), now)

    def __str__(self) -> str:
        return f"HTTP {self.status} {self.text[:_EXCERPT]}"


class NoAnswerError(Exception):
    """The last try got no answer either. `cause` is the fault of the connection."""

    def __init__(self, cause: Exception, timeout_s: float) -> None:
        # A connection that is not made in time has a number.
        is_answer_late = isinstance(cause, TimeoutError) and cause.errno is None
        said = f"no answer within {timeout_s:g} s" if is_answer_late else str(cause)
        super().__init__(f"{type(cause).__name__}: {said}")
        self.cause = cause


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """How often a request is sent, and how long is waited in between, in seconds."""

    tries: int
    first_wait_s: float  # doubled after each try
    longest_wait_s: float = 60.0  # also when the server asks for more with Retry-After

    def wait_s(self, attempt: int, answer: Answer | None, now: float) -> float:
        """After try `attempt`, from 0. `now`: seconds since 1970, for a Retry-After that is a date."""
        told = answer.retry_after_s(now) if answer else 0.0
        return min(max(self.first_wait_s * 2.0**attempt, told), self.longest_wait_s)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the request, and its key, to another address."""

    def http_error_302(self, *_args: Any, **_kwargs: Any) -> None:
        """Nothing reads the new address, which may be no address at all."""

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


class _Proxies(urllib.request.ProxyHandler):
    """NO_PROXY as other programs read it too: urllib knows names and suffixes, no networks and no `*.suffix`."""

    def proxy_open(self, req: urllib.request.Request, proxy: str, type: str) -> Any:  # noqa: A002 - urllib's name
        no_proxy = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
        return None if needs_no_proxy(req.host or "", no_proxy) else super().proxy_open(req, proxy, type)


def needs_no_proxy(host: str, no_proxy: str) -> bool:
    """Whether one of the networks, or of the `*` patterns, holds the host (with or without a port)."""
    name = urllib.parse.urlsplit(f"//{host}").hostname or ""
    for entry in no_proxy.replace(",", " ").split():
        if entry == "*" or (entry.startswith("*.") and name.endswith(entry[1:].lower())):
            return True
        try:
            if ipaddress.ip_address(name) in ipaddress.ip_network(entry.strip("[]"), strict=False):
                return True
        except ValueError:  # one of the two is a name
            continue
    return False


def make_opener(*, proxies: bool, authorities: Path | None = None) -> urllib.request.OpenerDirector:
    """With `proxies`, those of the environment (HTTPS_PROXY, NO_PROXY), as an endpoint outside the cluster needs.

    `authorities`: a PEM file of certificates that are trusted beside the system's. Raises OSError, of which SSLError
    is one, where it holds none.
    """
    handlers: list[urllib.request.BaseHandler] = [_NoRedirects(), _Proxies(None if proxies else {})]
    if authorities is not None:
        handlers.append(urllib.request.HTTPSHandler(context=trusting(authorities)))
    return urllib.request.build_opener(*handlers)


def joined(base_url: str, path: str) -> str:
    """The address of a path below a base, whose own query stays behind it; a fragment is nothing that is sent."""
    base = urllib.parse.urlsplit(base_url)
    below = base.path.rstrip("/")
    return base._replace(path=below if path and below.endswith(path) else below + path, fragment="").geturl()


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpClient:
    """Thread-safe: every request has its own connection."""

    base_url: str  # http or https
    timeout_s: float
    most_bytes: int  # of an answer
    wait: Wait
    key: str | None = None  # sent as a bearer token, and masked in what the server says
    key_header: str = "Authorization"  # another header carries the bare key
    now: Callable[[], float] = time.time
    opener: urllib.request.OpenerDirector

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        retries: Retries,
        again: Callable[[Answer], bool] = lambda answer: may_pass(answer.status),
        patient: bool = True,
    ) -> Answer:
        """The first answer that is not to be sent `again`, or the last one. `body` is sent as JSON.

        A time-out is sent again only when `patient`, a certificate that is not trusted never.
        Raises NoAnswerError, and what `wait` raises.
        """
        for attempt in range(retries.tries):
            answer = None
            last = attempt == retries.tries - 1
            try:
                answer = self.send(method, path, body, sent_again=attempt)
                if last or not again(answer):
                    return answer
            except (OSError, http.client.HTTPException) as error:
                hopeless = isinstance(error, ssl.SSLCertVerificationError)
                if last or hopeless or (isinstance(error, TimeoutError) and not patient):
                    raise NoAnswerError(error, self.timeout_s) from None
            self.wait(retries.wait_s(attempt, answer, self.now()))
        raise ValueError("tries must be 1 or more")

    def send(
        self, method: str, path: str, body: Any = None, *, sent_again: int = 0, received: Received | None = None
    ) -> Answer:
        """One request. Raises OSError (TimeoutError is one) or http.client.HTTPException.

        `received` gets an answer of status 2xx as soon as its last byte was read, before anything else is done.
        """
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        request = urllib.request.Request(  # noqa: S310 - http and https alone, which the callers check
            joined(self.base_url, path), data=data, headers=headers, method=method
        )
        if self.key:
            bearer = self.key_header == "Authorization"
            request.add_unredirected_header(self.key_header, f"Bearer {self.key}" if bearer else self.key)
        try:
            with self.opener.open(request, timeout=self.timeout_s) as response:
                answer = self._answer(response.status, response, _whole(response, self.most_bytes + 1), sent_again)
                if received is not None:
                    received(answer)
                return answer
        except urllib.error.HTTPError as error:
            with error:
                return self._answer(error.code, error, _read(error, self.most_bytes + 1), sent_again)
        except urllib.error.URLError as error:  # around a fault of the connection
            if isinstance(error.reason, Exception):
                raise error.reason from None
            raise

    def _answer(self, status: int, response: Any, body: bytes, sent_again: int) -> Answer:
        return Answer(
            status=status,
            body=body[: self.most_bytes],
            headers=response.headers,
            is_cut=len(body) > self.most_bytes,
            sent_again=sent_again,
            key=self.key,
        )


def _whole(response: http.client.HTTPResponse, most: int) -> bytes:
    """The body, or its first `most` bytes. Raises OSError or HTTPException where the connection is lost before.

    Read to a limit, the library says nothing of a connection that ends before the length which was told.
    """
    body = response.read(most)
    if len(body) < most and response.length:
        raise http.client.IncompleteRead(body, response.length)
    return body


def _read(error: urllib.error.HTTPError, most: int) -> bytes:
    try:
        return error.read(most)
    except (OSError, http.client.HTTPException):
        return b""


def _retry_after(value: str | None, now: float) -> float:
    """Seconds to wait at least: the header holds seconds or a date. 0 for anything else."""
    if not value:
        return 0.0
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - now
        except (ValueError, TypeError, OverflowError):
            return 0.0
    return max(0.0, seconds)
