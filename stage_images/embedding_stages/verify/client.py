"""An embedding endpoint: readiness, identity, vectors. It is inside the cluster: proxies are for addresses outside."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import urlsplit

from embedding_stages.contract.servers import EMBEDDINGS_PATH, ONNX, ServerProfile
from embedding_stages.encoder.description import Role
from embedding_stages.errors import BadInput, StageError, Stopped, Transient
from embedding_stages.http_client import Answer, HttpClient, NoAnswerError, Retries, make_opener, may_pass
from embedding_stages.vectors import Vectors
from embedding_stages.verify.answers import fault_of, has_invalid_vectors, read_tokens, read_vectors

MAX_ANSWER_BYTES = 64 << 20
TRIES = 4  # the first and three more
_FIRST_PAUSE_S = 0.5
_POLL_S = 1.0
_OK: Final = 200
_IMAGE: Final = "spec.stages.deploy.image"
_LOOK: Final = "the server's log says why"


class TooSlowError(Exception):
    """Texts were not embedded in time: fewer may be, or one in more time."""


@dataclass(frozen=True, slots=True)
class Embedded:
    """The vectors of one batch and what it took to get them."""

    vectors: list[Vectors]
    invalid: int  # vectors that came back unfit, the ones that a retry mended included; at least
    retries: int  # requests sent again, for whatever cause
    tokens: int = 0  # as the server counts them
    counted: int = 0  # texts that these tokens are of; one that was asked for twice counts twice


class EndpointClient:
    """One endpoint; safe to use from several threads, because every request has its own connection."""

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float,
        profile: ServerProfile = ONNX,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises BadInput `SettingInvalid` for anything but http(s)://host[:port]."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/"):
            raise BadInput("SettingInvalid", f"url is {url!r}, expected http://host:port")
        self._name = f"{parts.scheme}://{parts.netloc}"
        self._http = HttpClient(
            base_url=self._name,
            timeout_s=timeout_s,
            most_bytes=MAX_ANSWER_BYTES,
            wait=sleep,
            opener=make_opener(proxies=False),
        )
        self._profile = profile
        self._sleep = sleep
        self._clock = clock

    def wait_ready(self, limit_s: float, check: Callable[[], None]) -> None:
        """Poll until the server is ready. `check` may raise to give up. Raises Transient `EndpointNotReady`."""
        deadline = self._clock() + limit_s
        while True:
            check()
            try:
                answer = self._http.send("GET", self._profile.ready_path)
                if answer.status == _OK:
                    return
                last = str(answer)
            except (OSError, http.client.HTTPException) as error:
                last = f"{type(error).__name__}: {error}"
            if self._clock() >= deadline:
                message = f"{self._name} was not ready within {limit_s:g} s; last: {last}; {_LOOK}"
                raise Transient("EndpointNotReady", message)
            self._sleep(_POLL_S)

    def artefact_digest(self) -> str | None:
        """What the server says that it serves, or None: NIM, for one, does not say."""
        if self._profile.metadata_path is None:
            return None
        answer = self._request("GET", self._profile.metadata_path)
        body = answer.json if answer.status == _OK else None
        digest = body.get("artefactDigest") if isinstance(body, dict) else None
        return digest if isinstance(digest, str) else None

    def announced(self) -> tuple[str, ...]:
        """The names of models that the server says it answers to; none where it does not say."""
        if self._profile.models_path is None:
            return ()
        answer = self._request("GET", self._profile.models_path)
        body = answer.json if answer.status == _OK else None
        listed = body.get("data") if isinstance(body, dict) else None
        found = [item.get("id") for item in listed if isinstance(item, dict)] if isinstance(listed, list) else []
        return tuple(name for name in found if isinstance(name, str))

    def embed(self, texts: list[str], *, model: str, role: Role, dimension: int, patience: int = 1) -> Embedded:
        """Raises Stopped `InvalidVectors` or `EndpointRefused`, Transient `EndpointFailing`, and TooSlowError when
        they took longer than `patience` times the time-out.
        """
        vectors: list[Vectors | None] = [None] * len(texts)
        missing = list(range(len(texts)))
        invalid = retries = tokens = counted = 0
        fault = ""
        for attempt in range(TRIES):
            if not missing:
                break
            if attempt:
                retries += 1
                self._sleep(_FIRST_PAUSE_S * 2 ** (attempt - 1))
            body = self._body([texts[at] for at in missing], model, role)
            answer = self._request("POST", EMBEDDINGS_PATH, body, patience=patience)
            retries += answer.sent_again
            if _has_unfit_vectors(answer):  # the server's own word: at least one
                invalid += 1
                fault = f"the server's own word, {answer}"
                continue
            if answer.status != _OK:
                raise self._refused(answer)
            said = read_tokens(answer.json)
            if said is not None:
                tokens += said
                counted += len(missing)
            found = read_vectors(answer.json, texts=len(missing), dimension=dimension)
            for at, vector in zip(missing, found, strict=True):
                vectors[at] = vector
            missing = [at for at in missing if vectors[at] is None]
            invalid += len(missing)
            fault = fault_of(answer.json, texts=len(found), dimension=dimension) if missing else ""
        fit = [vector for vector in vectors if vector is not None]
        if len(fit) != len(texts):
            raise Stopped(
                "InvalidVectors",
                f"{self._name} answered {len(missing)} of {len(texts)} {role} texts {TRIES} times without a finite "
                f"vector of {dimension} numbers and length 1; what came last: {fault}; {_LOOK}, or name an image whose "
                "server answers so for the model that it is given",
                field=_IMAGE,
            )
        return Embedded(fit, invalid, retries, tokens, counted)

    def try_dimensions(
        self, texts: list[str], *, model: str, role: Role, dimensions: int, patience: int = 1
    ) -> tuple[int, list[Vectors | None]]:
        """(HTTP status, for each text its vector of that many numbers and length 1, or None).

        Whatever the server says is an answer here. Raises Transient `EndpointFailing` when it says nothing.
        """
        body = self._body(texts, model, role) | {"dimensions": dimensions}
        retries = Retries(tries=TRIES, first_wait_s=_FIRST_PAUSE_S)
        try:
            answer = self._within(patience).request("POST", EMBEDDINGS_PATH, body, retries=retries)
        except NoAnswerError as error:
            raise self._failing("POST", EMBEDDINGS_PATH, str(error)) from error
        readable = answer.status == _OK and not _no_json(answer)
        return answer.status, read_vectors(answer.json if readable else None, texts=len(texts), dimension=dimensions)

    def too_slow(self, text: str, patience: int) -> StageError:
        """What to raise for a text that got no answer in `patience` times the time-out: Transient, `EndpointTooSlow` of
        a server that is ready, else `EndpointFailing`. It may still be at what was given up before: the next attempt
        finds it idle.
        """
        limit_s = self._within(patience).timeout_s
        try:
            ready = self._http.send("GET", self._profile.ready_path).status == _OK
        except (OSError, http.client.HTTPException):
            ready = False
        if not ready:
            return self._failing("POST", EMBEDDINGS_PATH, f"no answer within {limit_s:g} s")
        return Transient(
            "EndpointTooSlow",
            f"{self._name} is ready, and does not embed a single text of {len(text)} characters within {limit_s:g} s: "
            "give the server more CPU or a GPU, lower spec.baseModel.maxTokens, or evaluate shorter passages",
            field="spec.stages.deploy.resources",
        )

    def _body(self, texts: list[str], model: str, role: Role) -> dict[str, Any]:
        said = {"input": texts, "model": model, "encoding_format": "float"}
        return said | self._profile.request_body(role)

    def _within(self, patience: int) -> HttpClient:
        return replace(self._http, timeout_s=self._http.timeout_s * patience)

    def _request(self, method: str, path: str, body: Any = None, *, patience: int | None = None) -> Answer:
        """An answer that would be the same another time: JSON, a refusal, or the server's own word that its vectors
        are unfit. Raises Transient `EndpointFailing`. With `patience`, the request may take as many times the time-out,
        and is not sent again after it: raises TooSlowError.
        """
        retries, patient = Retries(tries=TRIES, first_wait_s=_FIRST_PAUSE_S), patience is None
        try:
            answer = self._within(patience or 1).request(
                method, path, body, retries=retries, again=_may_pass, patient=patient
            )
        except NoAnswerError as error:
            if isinstance(error.cause, TimeoutError) and not patient:
                raise TooSlowError from error
            raise self._failing(method, path, str(error)) from error
        if _may_pass(answer):
            raise self._failing(method, path, _no_json(answer) or str(answer))
        return answer

    def _failing(self, method: str, path: str, last: str) -> Transient:
        message = f"{method} {self._name}{path} failed {TRIES} times; last: {last}; {_LOOK}"
        return Transient("EndpointFailing", message)

    def _refused(self, answer: Answer) -> Stopped:
        """Clients would be refused as well: they send what is sent here."""
        message = (
            f"POST {self._name}{EMBEDDINGS_PATH}: {answer}; {_LOOK}, or name an image of spec.stages.deploy.backend, "
            "which takes such requests without a key"
        )
        return Stopped("EndpointRefused", message, field=_IMAGE)


def _may_pass(answer: Answer) -> bool:
    if answer.status == _OK:
        return bool(_no_json(answer))
    return may_pass(answer.status) and not _has_unfit_vectors(answer)


def _no_json(answer: Answer) -> str:
    """What is wrong with the body of a good answer; empty when nothing is."""
    if answer.status != _OK:
        return ""
    try:
        answer.json  # noqa: B018 - parsed, and kept
    except ValueError as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _has_unfit_vectors(answer: Answer) -> bool:
    return answer.status == 500 and has_invalid_vectors(answer.body)
