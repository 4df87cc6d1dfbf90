"""What it means that an endpoint refuses or does not answer: the reason, the manifest's field and the cure. Pure."""

from __future__ import annotations

import http.client
import socket
from typing import Final

from embedding_stages import trust
from embedding_stages.errors import BadInput, StageError, Transient
from embedding_stages.http_client import NoAnswerError, may_pass
from embedding_stages.sdg.answers import MISSING, OddAnswerError, shortened

FIELD: Final = "spec.stages.sdg.provider.openAI"
REJECTED: Final = "LLMRequestRejected"  # what was sent, not the endpoint, is at fault: another section may be fine
UNAVAILABLE: Final = "LLMUnavailable"
_FORBIDDEN, _TOO_MANY = 403, 429
_QUOTED: Final = 60  # characters of an answer
_BOUND: Final = "max_tokens in {field}.parameters"
_EMBEDDING: Final = ".embedding"  # the manifest's section of a model that writes nothing
_NO_CREDIT: Final = "insufficient_quota"  # OpenAI says so with status 429, and waiting does not help


def has_no_credit(said: str) -> bool:
    return _NO_CREDIT in said


def is_no_chat(status: int, said: str) -> bool:
    """Whether there is no chat endpoint at the address, as far as one answer tells."""
    return 300 <= status < 400 or status == 405 or (status == 404 and "model" not in said.lower())


def may_be_of_one(status: int) -> bool:
    """Whether a status may be of one request alone, of a text on which the server or what stands before it fails.

    A limit of requests is not: what it lets through may be smaller, and more is let through later.
    """
    return status == _FORBIDDEN or (may_pass(status) and status != _TOO_MANY)


def of_one(status: int, text: str, field: str) -> OddAnswerError:
    """What such a status means while the endpoint answers others."""
    is_refused = status == _FORBIDDEN
    hint = "; what stands before the endpoint, such as a firewall, may refuse the text" if is_refused else ""
    return OddAnswerError(MISSING, f"HTTP {status} {text[:_QUOTED]}{hint}", is_refused=is_refused, field=field)


def unanswered(error: NoAnswerError, field: str) -> OddAnswerError:
    """What no answer means while the endpoint answers others."""
    return OddAnswerError(MISSING, shortened(str(error)), field=field)


def too_many_missing(last: OddAnswerError, documents: str, *, is_final: bool) -> StageError:
    """More `documents` got no answer, while the endpoint answers others, than the stage does without."""
    said = (
        f"the LLM endpoint answers other requests, but none about the documents {documents} in all tries "
        f"({shortened(last.example)!a})"
    )
    if is_final:
        cure = "have what stands before it let these texts through, or leave the documents out of spec.corpus"
        return BadInput(REJECTED, f"{said}: {cure}", field=last.field)
    bound = "" if last.field.endswith(_EMBEDDING) else f", or bound answers with {_BOUND.format(field=last.field)}"
    cure = f"it may be overloaded; if not, leave these documents out of spec.corpus{bound}"
    return Transient(UNAVAILABLE, f"{said}: {cure}", field=f"{last.field}.baseURL")


def is_time_out(error: Exception) -> bool:
    """Whether it was connected, and no answer came. A connection that is not made in time has a number."""
    return isinstance(error, TimeoutError) and error.errno is None


def of_status(status: int, text: str, *, model: str, has_key: bool, field: str = FIELD) -> StageError:
    """The failure that a status means, unless it `is_no_chat`."""
    said = f" ({text[:200]!a})" if text.strip() else ""
    if status in (401, 403):
        message = f"the LLM endpoint refuses the key (HTTP {status}); put a valid key into the Secret"
        if not has_key:
            message = f"the LLM endpoint wants a key (HTTP {status}); name a Secret that holds one"
        return BadInput("LLMUnauthorized", message, field=f"{field}.apiKeySecretRef")
    if status == 402 or has_no_credit(text):
        return BadInput(
            "LLMQuotaExhausted", f"the LLM account has no credit left{said}", field=f"{field}.apiKeySecretRef"
        )
    if status == 404:
        return BadInput(
            "LLMModelNotFound", f"the endpoint has no model {model!r}{said}; correct it", field=f"{field}.model"
        )
    if may_pass(status):
        return Transient(UNAVAILABLE, f"the LLM endpoint answers HTTP {status}{said}", field=f"{field}.baseURL")
    cure = f"; a parameter that it does not take is left out by {field}.omitParameters"
    return BadInput(REJECTED, f"the LLM endpoint rejects the request (HTTP {status}){said}{cure}", field=field)


def no_endpoint(url: str, what: str, field: str = FIELD) -> BadInput:
    return BadInput(
        "LLMEndpointInvalid",
        f"{url} is no OpenAI-compatible endpoint: {what}; the URL usually ends in /v1",
        field=f"{field}.baseURL",
    )


def has_a_password(field: str = FIELD) -> BadInput:
    return BadInput(
        "LLMEndpointInvalid",
        "the URL must not hold a user or a password, which statuses and logs would show; remove them, and put a key "
        f"into the Secret of {field}.apiKeySecretRef",
        field=f"{field}.baseURL",
    )


def unreachable(no_answer: NoAnswerError, url: str, field: str = FIELD) -> StageError:
    """No answer at all came from `url`."""
    error = no_answer.cause
    fault = trust.certificate_fault(error)
    if fault is not None and not trust.is_out_of_date(fault):
        return trust.untrusted(fault, "LLMCertificateUntrusted", whose=url, field=field, address=f"{field}.baseURL")
    if is_time_out(error):
        bound = f" A model that writes without an end is bounded by {_BOUND.format(field=field)}"
        bound = "" if field.endswith(_EMBEDDING) else bound
        return Transient(
            "LLMUnreachable",
            f"{no_answer} from {url}: is it right, and does something answer there?{bound}",
            field=f"{field}.baseURL",
        )
    detail = f": {fault.verify_message}" if fault is not None else ""
    if isinstance(error, socket.gaierror):
        detail = ": the name does not resolve"
    elif isinstance(error, http.client.IncompleteRead):
        detail = ": it was lost in the middle of an answer"
    return Transient(
        "LLMUnreachable",
        f"no connection to the LLM endpoint ({type(error).__name__}{detail}); is {url} right and reachable from the "
        "pod?",
        field=f"{field}.baseURL",
    )
