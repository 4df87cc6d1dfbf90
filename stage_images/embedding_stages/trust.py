"""Which authorities a TLS connection trusts, and what it means that a certificate is refused.

A manifest names a bundle of certificates in a field `caBundle`, beside the address of what is reached with it.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from embedding_stages.errors import BadInput, is_absent

_NO_TRUST: Final = frozenset({18, 19, 20, 21})  # OpenSSL's numbers for: no authority that is known signed it
_OTHER_TIME: Final = frozenset({9, 10})  # ... not valid yet, not valid any more
_OTHER_NAME: Final = frozenset({62, 64})  # ... made for another host, or another address


def trusting(authorities: Path) -> ssl.SSLContext:
    """For clients: the certificates of a PEM file are trusted beside the system's.

    Raises OSError, of which SSLError is one, where it holds none.
    """
    trust = ssl.create_default_context()
    trust.load_verify_locations(cafile=authorities)
    # Certificates of private authorities often lack what the strict mode of newer Pythons asks for, and a bundle
    # may hold the lower authority alone.
    trust.verify_flags = (trust.verify_flags & ~ssl.VERIFY_X509_STRICT) | ssl.VERIFY_X509_PARTIAL_CHAIN
    return trust


@contextmanager
def reading_bundle(field: str) -> Iterator[None]:
    """Around what reads the bundle of the section `field`. Raises BadInput `CABundleInvalid` where it holds none."""
    try:
        yield
    except OSError as error:
        if not (isinstance(error, ssl.SSLError) or is_absent(error)):
            raise
        raise BadInput(
            "CABundleInvalid",
            f"the ConfigMap's key holds no certificates that can be read ({type(error).__name__}): it must be PEM, one "
            "or more blocks that begin with -----BEGIN CERTIFICATE-----",
            field=f"{field}.caBundle",
        ) from None


def certificate_fault(error: BaseException) -> ssl.SSLCertVerificationError | None:
    """The refused certificate that `error` came of: libraries wrap it in errors of their own.

    What tries again while it handles an error hangs the tries before at the last one: they were of other requests.
    """
    cause: BaseException | None = error
    asked: Any = None
    while cause is not None and not isinstance(cause, ssl.SSLCertVerificationError):
        request = request_of(cause)
        if request is not None and asked is not None and request is not asked:
            return None
        asked = request or asked
        cause = cause.__cause__ or cause.__context__
    return cause


def request_of(error: BaseException) -> Any:
    """What an error of httpx came of; None where it tells none."""
    with suppress(RuntimeError):  # of an error that is of no request
        return getattr(error, "request", None)
    return None


def is_out_of_date(fault: ssl.SSLCertVerificationError) -> bool:
    """Such a certificate is renewed, or a clock set right: the next try may find it so."""
    return fault.verify_code in _OTHER_TIME


def untrusted(fault: ssl.SSLCertVerificationError, reason: str, *, whose: str, field: str, address: str) -> BadInput:
    """What no further try makes better. `field` is the section with the `caBundle`, `address` the field that says
    where `whose` certificate was met.
    """
    said = f"the certificate of {whose} is not trusted ({fault.verify_message})"
    if fault.verify_code in _NO_TRUST:
        cure = (
            "put the certificate of the authority that signed it into a ConfigMap, and name that in "
            f"{field}.caBundle: {{name: NAME, key: ca.crt}}"
        )
        return BadInput(reason, f"{said}; {cure}", field=f"{field}.caBundle")
    if fault.verify_code in _OTHER_NAME:
        cure = f"correct {address} to a name that the certificate has, or the certificate ({field}.caBundle names "
        return BadInput(reason, f"{said}; {cure}authorities)", field=address)
    cure = f"replace it, or that of its authority, which {field}.caBundle may name"
    return BadInput(reason, f"{said}; {cure}", field=f"{field}.caBundle")
