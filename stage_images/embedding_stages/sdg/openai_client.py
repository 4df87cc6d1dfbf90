"""A client of an OpenAI-compatible chat endpoint, on urllib alone: retries, budgets of time, no redirects.

The key is only ever in the Authorization header: not in messages, not in logs, not sent to another host.
"""

from __future__ import annotations

import email.utils
import http.client
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from embedding_stages.contract import INTERRUPTED
from embedding_stages.errors import BadInput, StageError, Transient

FIELD: Final = "spec.stages.sdg.provider.openAI"
REJECTED: Final = "LLMRequestRejected"  # what was sent, not the endpoint, is at fault: another section may be fine
_TIMEOUT_S: Final = 300.0  # of one call: long answers of slow models
_ATTEMPTS: Final = 6
_FIRST_WAIT_S: Final = 1.0
_LONGEST_WAIT_S: Final = 60.0
_MAX_ANSWER_BYTES: Final = 4 << 20
_RETRIED: Final = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529})


class AnswerInvalidError(Exception):
    """The model's text is not the JSON that was asked for; another try may be. It cost `usage` all the same."""

    def __init__(self, message: str, usage: Usage | None = None) -> None:
        super().__init__(message)
        self.usage = usage or Usage()


@dataclass(slots=True)
class Usage:
    """Tokens as the endpoint counts them, and calls that were answered."""

    calls: int = 0
    prompt: int = 0
    completion: int = 0

    def add(self, other: Usage) -> None:
        self.calls += other.calls
        self.prompt += other.prompt
        self.completion += other.completion

    def to_json(self) -> dict[str, int]:
        return {"calls": self.calls, "prompt": self.prompt, "completion": self.completion}


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to another address."""

    def redirect_request(self, *_args: Any, **_kwargs: Any) -> None:
        return None


@dataclass(slots=True)
class ChatClient:
    """Thread-safe. `stopping` ends waits at once."""

    base_url: str
    model: str
    key: str | None
    stopping: threading.Event = field(default_factory=threading.Event)
    first_wait_s: float = _FIRST_WAIT_S
    timeout_s: float = _TIMEOUT_S
    now: Callable[[], float] = time.time
    _json_mode: bool = True
    _opener: urllib.request.OpenerDirector = field(default_factory=lambda: urllib.request.build_opener(_NoRedirects()))

    def ask(
        self, messages: Sequence[Mapping[str, str]], *, seed: int, temperature: float
    ) -> tuple[dict[str, Any], Usage]:
        """The JSON object that the model answered, and what it cost.

        Raises AnswerInvalidError; BadInput `LLMUnauthorized`, `LLMModelNotFound`, `LLMEndpointInvalid`,
        `LLMQuotaExhausted`, `LLMRequestRejected`; Transient `LLMUnreachable`, `LLMUnavailable`, `Interrupted`.
        """
        answer = self._call({"model": self.model, "messages": list(messages), "temperature": temperature, "seed": seed})
        try:
            text = answer["choices"][0]["message"]["content"]
        except (KeyError, IndexError, TypeError) as error:
            raise self._not_an_endpoint("its answer is no chat completion") from error
        used = answer.get("usage")
        used = used if isinstance(used, dict) else {}
        usage = Usage(1, _count(used, "prompt_tokens"), _count(used, "completion_tokens"))
        try:
            return parse_object(text if isinstance(text, str) else ""), usage
        except AnswerInvalidError as error:
            raise AnswerInvalidError(str(error), usage) from error

    def _call(self, body: dict[str, Any]) -> dict[str, Any]:
        for attempt in range(_ATTEMPTS):
            if self.stopping.is_set():
                raise Transient(INTERRUPTED, "the pod was asked to stop; the next attempt resumes here")
            last = attempt == _ATTEMPTS - 1
            json_mode = self._json_mode
            try:
                return self._send({**body, "response_format": {"type": "json_object"}} if json_mode else body)
            except urllib.error.HTTPError as error:
                text = _read(error)
                if error.code in (400, 422) and json_mode and "response_format" in text:
                    self._json_mode = False  # this server does not know it
                    continue
                if error.code not in _RETRIED or "insufficient_quota" in text or last:
                    raise self._failure(error.code, text) from None
                wait = _retry_after(error.headers.get("Retry-After"), self.now())
            except (OSError, http.client.HTTPException) as error:  # URLError is an OSError
                if last:
                    raise self._unreachable(error) from None
                wait = None
            self._wait(attempt, wait)
        raise self._failure(0, "")  # only when response_format was refused again and again

    def _send(self, body: Mapping[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(  # noqa: S310 - the operator lets http and https through only
            self.base_url.rstrip("/") + "/chat/completions",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "Accept": "application/json"},
        )
        if self.key:
            request.add_unredirected_header("Authorization", f"Bearer {self.key}")
        with self._opener.open(request, timeout=self.timeout_s) as response:
            content = response.read(_MAX_ANSWER_BYTES + 1)
        try:
            answer = json.loads(content) if len(content) <= _MAX_ANSWER_BYTES else None
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise self._not_an_endpoint("it answers with something else than JSON")
        return answer

    def _wait(self, attempt: int, told: float | None) -> None:
        wait = self.first_wait_s * 2**attempt if told is None else told
        if self.stopping.wait(min(wait, _LONGEST_WAIT_S)):
            raise Transient(INTERRUPTED, "the pod was asked to stop; the next attempt resumes here")

    def _failure(self, status: int, text: str) -> StageError:
        said = self._quote(text)
        if status in (401, 403):
            message = f"the LLM endpoint refuses the key (HTTP {status}); put a valid key into the Secret"
            if not self.key:
                message = f"the LLM endpoint wants a key (HTTP {status}); name a Secret that holds one"
            return BadInput("LLMUnauthorized", message, field=f"{FIELD}.apiKeySecretRef")
        if status == 402 or "insufficient_quota" in text:
            return BadInput(
                "LLMQuotaExhausted", f"the LLM account has no credit left{said}", field=f"{FIELD}.apiKeySecretRef"
            )
        if status == 404 and "model" in text.lower():
            return BadInput(
                "LLMModelNotFound",
                f"the endpoint has no model {self.model!r}{said}; correct it",
                field=f"{FIELD}.model",
            )
        if status in _RETRIED:
            return Transient(
                "LLMUnavailable", f"the LLM endpoint answers HTTP {status}{said}", field=f"{FIELD}.baseURL"
            )
        if status == 404 or 300 <= status < 400 or status == 405:
            return self._not_an_endpoint(f"it answers HTTP {status} to /chat/completions")
        return BadInput(REJECTED, f"the LLM endpoint rejects the request (HTTP {status}){said}", field=FIELD)

    def _unreachable(self, error: Exception) -> Transient:
        cause = getattr(error, "reason", error)
        name = type(cause).__name__ if isinstance(cause, Exception) else "network error"
        return Transient(
            "LLMUnreachable",
            f"no connection to the LLM endpoint ({name}); is {self._quote_url()} right and reachable from the pod?",
            field=f"{FIELD}.baseURL",
        )

    def _not_an_endpoint(self, what: str) -> BadInput:
        return BadInput(
            "LLMEndpointInvalid",
            f"{self._quote_url()} is no OpenAI-compatible endpoint: {what}; the URL usually ends in /v1",
            field=f"{FIELD}.baseURL",
        )

    def _quote_url(self) -> str:
        """Without user and password, which a URL may hold."""
        scheme, _, rest = self.base_url.partition("://")
        host, slash, path = rest.partition("/")
        return ascii(f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"[:200])

    def _quote(self, text: str) -> str:
        """What the server said, for a message: the key masked, escaped, shortened."""
        if self.key:
            text = text.replace(self.key, "***")
        return f" ({text[:200]!a})" if text.strip() else ""


def parse_object(text: str) -> dict[str, Any]:
    """The first JSON object in a model's text, after its thoughts and inside a fence if need be.

    Raises AnswerInvalidError.
    """
    text = text.rpartition("</think>")[2]
    start = text.find("{")
    if start < 0:
        raise AnswerInvalidError("no JSON object")
    try:
        value, _ = json.JSONDecoder().raw_decode(text, start)
    except (ValueError, RecursionError) as error:
        raise AnswerInvalidError(f"no valid JSON: {str(error)[:100]}") from error
    return dict(value)


def _read(error: urllib.error.HTTPError) -> str:
    try:
        return error.read(65536).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        return ""


def _retry_after(value: str | None, now: float) -> float | None:
    """Seconds to wait: the header holds seconds or a date."""
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, TypeError):
        return None


def _count(usage: Mapping[str, Any], key: str) -> int:
    value = usage.get(key)
    return value if isinstance(value, int) and value >= 0 else 0
