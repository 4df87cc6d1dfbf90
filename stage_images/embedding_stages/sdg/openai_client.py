"""A client of an OpenAI-compatible chat endpoint: JSON answers, what they cost, and what each refusal means.

The key is only ever in the Authorization header: not in messages, not in logs, not sent to another host.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from embedding_stages.contract import INTERRUPTED
from embedding_stages.errors import BadInput, StageError, Transient
from embedding_stages.http_client import Answer, HttpClient, NoAnswerError, Retries, make_opener, may_pass

FIELD: Final = "spec.stages.sdg.provider.openAI"
REJECTED: Final = "LLMRequestRejected"  # what was sent, not the endpoint, is at fault: another section may be fine
_TIMEOUT_S: Final = 300.0  # of one call: long answers of slow models
_TRIES: Final = 6
_FIRST_WAIT_S: Final = 1.0
_LONGEST_WAIT_S: Final = 60.0
_MAX_ANSWER_BYTES: Final = 4 << 20
_NO_CREDIT: Final = "insufficient_quota"  # OpenAI says so with status 429, and waiting does not help


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


@dataclass(slots=True)
class ChatClient:
    """Thread-safe. `stopping` ends waits at once."""

    base_url: str
    model: str
    key: str | None
    stopping: threading.Event = field(default_factory=threading.Event)
    first_wait_s: float = _FIRST_WAIT_S
    timeout_s: float = _TIMEOUT_S
    _json_mode: bool = True
    _http: HttpClient = field(init=False)

    def __post_init__(self) -> None:
        self._http = HttpClient(
            base_url=self.base_url,
            timeout_s=self.timeout_s,
            most_bytes=_MAX_ANSWER_BYTES,
            wait=self._wait,
            key=self.key,
            opener=make_opener(proxies=True),
        )

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
        json_mode = self._json_mode
        answer = self._request({**body, "response_format": {"type": "json_object"}} if json_mode else body)
        if json_mode and answer.status in (400, 422) and "response_format" in answer.text:
            self._json_mode = False  # this server does not know it
            answer = self._request(body)
        if not 200 <= answer.status < 300:
            raise self._failure(answer.status, answer.text)
        try:
            found = answer.json
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise self._not_an_endpoint("it answers with something else than JSON")
        return found

    def _request(self, body: Mapping[str, Any]) -> Answer:
        self._wait(0.0)
        retries = Retries(tries=_TRIES, first_wait_s=self.first_wait_s, longest_wait_s=_LONGEST_WAIT_S)
        try:
            return self._http.request("POST", "/chat/completions", body, retries=retries, again=_may_pass)
        except NoAnswerError as error:
            raise self._unreachable(error.cause) from None

    def _wait(self, seconds: float) -> None:
        if self.stopping.wait(seconds):
            raise Transient(INTERRUPTED, "the pod was asked to stop; the next attempt resumes here")

    def _failure(self, status: int, text: str) -> StageError:
        said = f" ({text[:200]!a})" if text.strip() else ""
        if status in (401, 403):
            message = f"the LLM endpoint refuses the key (HTTP {status}); put a valid key into the Secret"
            if not self.key:
                message = f"the LLM endpoint wants a key (HTTP {status}); name a Secret that holds one"
            return BadInput("LLMUnauthorized", message, field=f"{FIELD}.apiKeySecretRef")
        if status == 402 or _NO_CREDIT in text:
            return BadInput(
                "LLMQuotaExhausted", f"the LLM account has no credit left{said}", field=f"{FIELD}.apiKeySecretRef"
            )
        if status == 404 and "model" in text.lower():
            return BadInput(
                "LLMModelNotFound",
                f"the endpoint has no model {self.model!r}{said}; correct it",
                field=f"{FIELD}.model",
            )
        if may_pass(status):
            return Transient(
                "LLMUnavailable", f"the LLM endpoint answers HTTP {status}{said}", field=f"{FIELD}.baseURL"
            )
        if status == 404 or 300 <= status < 400 or status == 405:
            return self._not_an_endpoint(f"it answers HTTP {status} to /chat/completions")
        return BadInput(REJECTED, f"the LLM endpoint rejects the request (HTTP {status}){said}", field=FIELD)

    def _unreachable(self, error: Exception) -> Transient:
        return Transient(
            "LLMUnreachable",
            f"no connection to the LLM endpoint ({type(error).__name__}); is {self._quote_url()} right and reachable "
            "from the pod?",
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


def _may_pass(answer: Answer) -> bool:
    return may_pass(answer.status) and _NO_CREDIT not in answer.text


def _count(usage: Mapping[str, Any], key: str) -> int:
    value = usage.get(key)
    return value if isinstance(value, int) and value >= 0 else 0
