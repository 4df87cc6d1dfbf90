"""One text for one value of JSON, and the digest that names work and contents by it."""

from __future__ import annotations

import hashlib
import json
from typing import Final

_CANONICAL: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical_json(value: object) -> str:
    """One text for one value: sorted keys, no spaces. Digests and fingerprints are taken of this."""
    return _CANONICAL.encode(value)


def encodable(text: str) -> str:
    """Halves of character pairs spelled out (`\\ud83d`), as JSON may spell them too: UTF-8 has no bytes for them."""
    return text.encode("utf-8", "backslashreplace").decode()


def fingerprint_of(value: object) -> str:
    """sha256 (64 hex digits) of a JSON value."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()
