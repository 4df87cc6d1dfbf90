"""Requests to a language model's endpoint, in its pace, sent again where that helps."""

from __future__ import annotations

import http.client
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from embedding_stages.http_client import Answer, HttpClient, NoAnswerError, Received, Retries, may_pass
from embedding_stages.sdg.answers import Completion, read_completion, status_within
from embedding_stages.sdg.failures import has_no_credit
from embedding_stages.sdg.pace import Pace

_TOO_MANY: Final = 429


@dataclass(slots=True)
class Sender:
    """Thread-safe. Raises what the `wait` of its client raises."""

    http: HttpClient
    retries: Callable[[], Retries]
    most_at_once: int
    pace: Pace = field(default_factory=Pace)
    _places: threading.BoundedSemaphore = field(init=False)
    _passed: int = 0  # requests that were let through
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._places = threading.BoundedSemaphore(self.most_at_once)

    def post(self, path: str, body: Mapping[str, Any], received: Received, most: int | None = None) -> Answer:
        """The first answer that is not worth another try, or the last one. Raises NoAnswerError, and what `received`
        raises, which gets every answer of status 2xx while it is still in the hands of the thread that read it.

        A limit of requests is no fault of this one: it is sent until it is let through, for as long as others are.
        `most`: tries, where a limit of requests is not the reason.
        """
        retries = self.retries()
        most = most or retries.tries
        tries, passed = 0, self._passed
        while True:
            answer = self._try(path, body, received, tries, last=tries >= most - 1)
            if answer is not None and not again(answer):
                return answer
            limited = answer is not None and status_of(answer) == _TOO_MANY
            if limited and self._passed > passed:
                tries, passed = 0, self._passed
            if answer is not None and tries >= (retries.tries if limited else most) - 1:
                return answer
            told = _told_s(answer, retries, self.http.now()) if answer is not None and limited else 0.0
            self.http.wait(told or retries.wait_s(tries, answer, self.http.now()))
            tries += 1

    def _try(
        self, path: str, body: Mapping[str, Any], received: Received, sent_again: int, *, last: bool
    ) -> Answer | None:
        """None for a fault of the connection that may pass."""
        self._wait_for_a_place()
        try:
            sent = self.pace.turn(self.http.wait)
            answer = self._send(path, body, received, sent_again)
        except (OSError, http.client.HTTPException) as error:
            if last or isinstance(error, ssl.SSLCertVerificationError):
                raise NoAnswerError(error, self.http.timeout_s) from None
            return None
        finally:
            self._places.release()
        if status_of(answer) == _TOO_MANY:
            self.pace.refused(sent, _told_s(answer, self.retries(), self.http.now()))
        else:
            with self._lock:
                self._passed += 1
        return answer

    def _wait_for_a_place(self) -> None:
        while not self._places.acquire(timeout=0.5):
            self.http.wait(0.0)

    def _send(self, path: str, body: Mapping[str, Any], received: Received, sent_again: int) -> Answer:
        answer = self.http.send("POST", path, body, sent_again=sent_again, received=received)
        if answer.status == 401 and self.http.key and self._is_azure() and self.http.key_header == "Authorization":
            self.http = replace(self.http, key_header="api-key")
            answer = self.http.send("POST", path, body, sent_again=sent_again, received=received)
        return answer

    def _is_azure(self) -> bool:
        """Azure's endpoints of one deployment take a key in a header of their own."""
        return "api-version" in parse_qs(urlsplit(self.http.base_url).query)


def _told_s(answer: Answer, retries: Retries, now: float) -> float:
    return min(answer.retry_after_s(now), retries.longest_wait_s)


def json_of(answer: Answer) -> Any:
    try:
        return answer.json
    except ValueError:
        return None


def status_of(answer: Answer) -> int:
    """As HTTP or the answer itself has it: gateways put errors of what is behind them into answers of status 200.

    0 for such an error without a status.
    """
    within = status_within(json_of(answer)) if 200 <= answer.status < 300 else None
    return answer.status if within is None else within


def is_taken(answer: Answer) -> bool:
    return 200 <= status_of(answer) < 300


def completion_in(answer: Answer) -> Completion | None:
    return read_completion(json_of(answer)) if is_taken(answer) else None


def again(answer: Answer) -> bool:
    return may_pass(status_of(answer)) and not has_no_credit(answer.text)
