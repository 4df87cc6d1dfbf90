"""A client of an OpenAI-compatible chat endpoint: what it was asked for, what that cost, and what each refusal means.

The key is only ever in the header: not in messages, not in logs, not sent to another host.
"""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from embedding_stages.contract import INTERRUPTED, canonical_json
from embedding_stages.errors import BadInput, StageError, Transient
from embedding_stages.http_client import Answer, HttpClient, NoAnswerError, Retries, make_opener
from embedding_stages.sdg import failures
from embedding_stages.sdg.answers import (
    ERRORED,
    INVALID,
    Completion,
    OddAnswerError,
    Usage,
    odd_kind,
    or_estimated,
    read_completion,
    read_usage,
    read_vectors,
)
from embedding_stages.sdg.dialect import REFUSALS, Dialect
from embedding_stages.sdg.ledger import WRITER, Keeper, Ledger
from embedding_stages.sdg.sending import Sender, completion_in, is_taken, json_of, status_of
from embedding_stages.sdg.tolerant import find_items
from embedding_stages.trust import reading_bundle

_TIMEOUT_S: Final = 300.0  # of one call: long answers of slow models
_TRIES: Final = 6
_FIRST_WAIT_S: Final = 1.0
_LONGEST_WAIT_S: Final = 60.0
_MAX_ANSWER_BYTES: Final = 4 << 20
_HOPELESS: Final = 8  # answers, the first of all, none of which is a chat completion: the others would not be
_CHAT: Final = "/chat/completions"
_EMBEDDINGS: Final = "/embeddings"
_SMALL: Final = 'Answer with the JSON {"ok": true} and nothing else.'  # what any endpoint answers that is not down
_SMALL_TRIES: Final = 2
_JSON_MODE: Final = {"response_format": {"type": "json_object"}}


@dataclass(frozen=True, slots=True)
class Reply:
    """The items that the model was asked for, and what they cost."""

    items: list[Any]
    usage: Usage
    is_cut: bool = False  # more of them were under way when the endpoint's limit came
    is_old: bool = False  # an earlier attempt has paid for it


@dataclass(frozen=True, slots=True)
class Said:
    """One chat completion, what it cost, and whether an earlier attempt has paid for it."""

    completion: Completion
    usage: Usage
    is_old: bool


class _DoubtError(Exception):
    """No answer, for a reason that may be the endpoint's (`failure`) or this request's alone (`of_one`)."""

    def __init__(self, failure: StageError, of_one: OddAnswerError) -> None:
        super().__init__(failure.message)
        self.failure, self.of_one = failure, of_one


@dataclass(slots=True)
class ChatClient:
    """Thread-safe. `stopping` ends waits at once. What is answered is in the ledger before it is used."""

    base_url: str
    model: str
    key: str | None
    ledger: Ledger
    at: str = failures.FIELD  # the manifest's section
    role: str = WRITER
    most_at_once: int = 8  # requests
    parameters: Mapping[str, Any] = field(default_factory=dict)  # of the request, beside those that it has or for them
    omitted: frozenset[str] = frozenset()  # parameters that are not sent
    authorities: Path | None = None  # a PEM file, trusted beside the system's
    dialect: Dialect = field(default_factory=Dialect)
    stopping: threading.Event = field(default_factory=threading.Event)
    first_wait_s: float = _FIRST_WAIT_S
    timeout_s: float = _TIMEOUT_S
    _sender: Sender = field(init=False)
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _foreign: int = 0  # answers that are no chat completions, before the first one that is; -1 after it
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        """Raises BadInput `LLMEndpointInvalid`, `CABundleInvalid`."""
        if "@" in urlsplit(self.base_url).netloc:
            raise failures.has_a_password(self.at)
        with reading_bundle(self.at):
            opener = make_opener(proxies=True, authorities=self.authorities)
        http = HttpClient(
            base_url=self.base_url,
            timeout_s=self.timeout_s,
            most_bytes=_MAX_ANSWER_BYTES,
            wait=self._wait,
            key=self.key,
            opener=opener,
        )
        self._sender = Sender(http=http, retries=self._retries, most_at_once=self.most_at_once)

    def ask(self, messages: Sequence[Mapping[str, str]], *, wanted: str, seed: int, temperature: float) -> Reply:
        """The list named `wanted` that the model wrote.

        Raises OddAnswerError; BadInput `LLMUnauthorized`, `LLMModelNotFound`, `LLMEndpointInvalid`,
        `LLMQuotaExhausted`, `LLMRequestRejected`, `LLMCertificateUntrusted`; Transient `LLMUnreachable`,
        `LLMUnavailable`, `Interrupted`; BudgetSpentError.
        """
        own = {"temperature": temperature, "seed": seed, **_JSON_MODE}
        said = self.complete(messages, own)
        completion = said.completion
        items = find_items(completion.said, wanted, cut=completion.is_cut)
        if items is None:
            raise OddAnswerError(
                odd_kind(completion), self._masked(str(completion.said)), said.usage, is_old=said.is_old
            )
        return Reply(items, said.usage, is_cut=completion.is_cut, is_old=said.is_old)

    def complete(self, messages: Sequence[Mapping[str, Any]], own: Mapping[str, Any]) -> Said:
        """The answer to a conversation; `own` are parameters that nobody asked for. Raises as `ask` does."""
        asked = {key: value for key, value in {**own, **self.parameters}.items() if key not in self.omitted}
        body = {"model": self.model, "messages": list(messages), **asked}
        length = len(canonical_json(body))

        def usage_of(completion: Completion) -> Usage:
            return or_estimated(completion.usage, length, len(str(completion.said)))

        def cost(answer: Answer) -> Usage | None:
            found = completion_in(answer)
            return None if found is None else usage_of(found)

        entry = self.ledger.of(self.role, body)
        kept = entry.take()
        if kept is not None:
            known = read_completion(json_of(Answer(status=200, body=kept.text.encode())))
            if known is not None:
                return Said(known, usage_of(known), is_old=True)
        answer = self._call(_CHAT, body, frozenset(own) - self.parameters.keys(), Keeper(entry, cost))
        completion = completion_in(answer)
        if completion is None:
            raise self._not_chat("its answer is no chat completion", answer)
        with self._lock:
            self._foreign = -1
        return Said(completion, usage_of(completion), is_old=False)

    def vectors(self, texts: Sequence[str]) -> list[list[float]]:
        """One vector a text, by a model of embeddings. Raises as `ask` does."""
        asked = {key: value for key, value in self.parameters.items() if key not in self.omitted}
        body = {"model": self.model, "input": list(texts), **asked}
        length = sum(map(len, texts))

        def cost(answer: Answer) -> Usage | None:
            is_of_use = is_taken(answer) and read_vectors(json_of(answer), len(texts)) is not None
            return or_estimated(read_usage(json_of(answer)), length, 0) if is_of_use else None

        entry = self.ledger.of(self.role, body)
        kept = entry.take()
        known = None if kept is None else read_vectors(json.loads(kept.text), len(texts))
        if known is not None:
            return known
        answer = self._call(_EMBEDDINGS, body, frozenset(), Keeper(entry, cost))
        found = read_vectors(json_of(answer), len(texts))
        if found is None:
            raise self._not_chat(f"its answer holds no {len(texts)} embeddings", answer)
        with self._lock:
            self._foreign = -1
        return found

    def pause(self, attempt: int) -> None:
        """Before an answer of no use is asked for again: what is behind the endpoint may be about to come back."""
        self._wait(self._retries().wait_s(attempt, None, 0.0))

    def check_it_chats(self) -> None:
        """Raises BadInput `LLMEndpointInvalid` when it has answered, and not once as a chat endpoint does."""
        if self._foreign > 0:
            raise self._invalid("none of its answers is a chat completion")

    def _call(self, path: str, body: Mapping[str, Any], own: frozenset[str], keeper: Keeper) -> Answer:
        """The answer, kept where it is of use. Raises when it stays a refusal.

        Where the request alone may be at fault, something small is asked: an endpoint that answers that is not down,
        and takes the key. It may have come back just now, so the request is sent a last time.
        """
        self.ledger.check_budget()
        try:
            return self._answer(path, body, own, keeper)
        except _DoubtError as doubt:
            self.ledger.check_budget()
            if not self._answers_something(path, body, own):
                raise doubt.failure from None
        self.ledger.check_budget()
        try:
            return self._answer(path, body, own, keeper, most=1)
        except _DoubtError as doubt:
            raise doubt.of_one from None

    def _answers_something(self, path: str, body: Mapping[str, Any], own: frozenset[str]) -> bool:
        """Asked now, whatever it has answered before, with the parameters of `body`. Raises what is a fault of the
        endpoint for sure.
        """
        # Another text each time: a gateway that keeps answers would give this one also where nothing is behind it.
        small = f"{_SMALL} (Request {self.ledger.spent().calls}.{next(self._numbers)}.)"
        content = {"input": [small]} if path == _EMBEDDINGS else {"messages": [{"role": "user", "content": small}]}
        body = {**body, **content}

        def cost(answer: Answer) -> Usage | None:
            return or_estimated(read_usage(json_of(answer)), len(_SMALL), 0) if is_taken(answer) else None

        keeper = Keeper(self.ledger.of(self.role, body), cost)
        try:
            answer = self._answer(path, body, own, keeper, most=_SMALL_TRIES)
        except _DoubtError as doubt:
            if isinstance(doubt.failure, Transient):  # it is away just now, whatever it said before
                raise doubt.failure from None
            return False
        except OddAnswerError:
            return False
        except BadInput as error:
            if error.reason != failures.REJECTED:
                raise
            return False  # by what stands before it, perhaps, with nothing behind
        vectors = read_vectors(json_of(answer), 1) if path == _EMBEDDINGS else None
        is_answer = vectors is not None or (path == _CHAT and completion_in(answer) is not None)
        if is_answer:
            with self._lock:
                self._foreign = -1
        return is_answer

    def _answer(
        self, path: str, body: Mapping[str, Any], own: frozenset[str], keeper: Keeper, *, most: int | None = None
    ) -> Answer:
        """The answer, after parameters that the endpoint refuses are left out. `most`: tries of each request."""
        with self.dialect.one_at_a_time():
            changes = self.dialect.known()
            answer = self._request(path, changes.applied_to(body), keeper, most)
            while status_of(answer) in REFUSALS:
                further = self.dialect.after_refusal(answer.text, body, changes, own)
                if further is None:
                    break
                changes = further
                answer = self._request(path, changes.applied_to(body), keeper, most)
            if status_of(answer) == 200 and (path == _EMBEDDINGS or read_completion(json_of(answer)) is not None):
                self.dialect.accepted(changes)
        status = status_of(answer)
        if status == 0:
            raise OddAnswerError(ERRORED, answer.text)
        if not 200 <= status < 300:
            raise self._failure(status, answer)
        keeper.settle()
        return answer

    def _request(self, path: str, body: Mapping[str, Any], keeper: Keeper, most: int | None) -> Answer:
        self._wait(0.0)
        try:
            return self._sender.post(path, body, keeper, most)
        except NoAnswerError as error:
            failure = failures.unreachable(error, self._quote_url(), self.at)
            if isinstance(failure, Transient):
                raise _DoubtError(failure, failures.unanswered(error, self.at)) from None
            raise failure from None

    def _retries(self) -> Retries:
        return Retries(tries=_TRIES, first_wait_s=self.first_wait_s, longest_wait_s=_LONGEST_WAIT_S)

    def _wait(self, seconds: float) -> None:
        if self.stopping.wait(seconds):
            raise Transient(INTERRUPTED, "the pod was asked to stop; the next attempt resumes here")

    def _failure(self, status: int, answer: Answer) -> Exception:
        if failures.is_no_chat(status, answer.text):
            return self._not_chat(f"it answers HTTP {status}", answer)
        failure = failures.of_status(status, answer.text, model=self.model, has_key=bool(self.key), field=self.at)
        if failures.may_be_of_one(status):
            return _DoubtError(failure, failures.of_one(status, answer.text, self.at))
        return failure

    def _not_chat(self, what: str, answer: Answer) -> Exception:
        """One such answer may be of a gateway's bad moment; the first several one and all are another service's."""
        with self._lock:
            if self._foreign >= 0:
                self._foreign += 1
            never = self._foreign >= _HOPELESS
        said = f" ({answer.text[:100]!a})" if answer.text.strip() else ""
        return self._invalid(what + said) if never else OddAnswerError(INVALID, f"HTTP {answer.status} {answer.text}")

    def _invalid(self, what: str) -> StageError:
        return failures.no_endpoint(self._quote_url(), what, self.at)

    def _masked(self, text: str) -> str:
        return text.replace(self.key, "***") if self.key else text

    def _quote_url(self) -> str:
        """Without its query, which may hold a key."""
        return ascii(urlsplit(self.base_url)._replace(query="", fragment="").geturl()[:200])
