"""What it means that an endpoint refuses or does not answer: the reason, the manifest's field and the cure. Pure."""

from __future__ import annotations

import socket
import ssl
from typing import Final

from embedding_stages.errors import BadInput, StageError, Transient
from embedding_stages.http_client import may_pass

FIELD: Final = "spec.stages.sdg.provider.openAI"
REJECTED: Final = "LLMRequestRejected"  # what was sent, not the endpoint, is at fault: another section may be fine
UNAVAILABLE: Final = "LLMUnavailable"
_NO_CREDIT: Final = "insufficient_quota"  # OpenAI says so with status 429, and waiting does not help
_NO_TRUST: Final = frozenset({18, 19, 20, 21})  # OpenSSL's numbers for: no authority that is known signed it
_OTHER_TIME: Final = frozenset({9, 10})  # ... not valid yet, not valid any more


def has_no_credit(said: str) -> bool:
    return _NO_CREDIT in said


def is_no_chat(status: int, said: str) -> bool:
    """Whether there is no chat endpoint at the address, as far as one answer tells."""
    return 300 <= status < 400 or status == 405 or (status == 404 and "model" not in said.lower())


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


def bundle_invalid(error: OSError, field: str = FIELD) -> BadInput:
    return BadInput(
        "CABundleInvalid",
        f"the ConfigMap's key holds no certificates that can be read ({type(error).__name__}): it must be PEM, one or "
        "more blocks that begin with -----BEGIN CERTIFICATE-----",
        field=f"{field}.caBundle",
    )


def unreachable(error: Exception, url: str, field: str = FIELD) -> StageError:
    """No answer at all came from `url`."""
    if isinstance(error, ssl.SSLCertVerificationError) and error.verify_code not in _OTHER_TIME:
        return _untrusted(error, url, field)
    detail = f": {error.verify_message}" if isinstance(error, ssl.SSLCertVerificationError) else ""
    if isinstance(error, socket.gaierror):
        detail = ": the name does not resolve"
    return Transient(
        "LLMUnreachable",
        f"no connection to the LLM endpoint ({type(error).__name__}{detail}); is {url} right and reachable from the "
        "pod?",
        field=f"{field}.baseURL",
    )


def _untrusted(error: ssl.SSLCertVerificationError, url: str, field: str) -> BadInput:
    said = f"the certificate of {url} is not trusted ({error.verify_message})"
    if error.verify_code in _NO_TRUST:
        cure = (
            "put the certificate of the authority that signed it into a ConfigMap, and name that in "
            f"{field}.caBundle: {{name: NAME, key: ca.crt}}"
        )
        return BadInput("LLMCertificateUntrusted", f"{said}; {cure}", field=f"{field}.caBundle")
    cure = f"correct {field}.baseURL to a name that the certificate has, or the certificate ({field}.caBundle names "
    return BadInput("LLMCertificateUntrusted", f"{said}; {cure}authorities)", field=f"{field}.baseURL")
