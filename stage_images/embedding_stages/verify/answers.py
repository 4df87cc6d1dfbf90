"""A response of POST /v1/embeddings to vectors. Pure: whatever the server sends, no exception leaves here."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from embedding_stages.vectors import THEIR_LENGTH_ERROR, Vectors, are_fit


def read_vectors(body: Any, *, texts: int, dimension: int) -> list[Vectors | None]:
    """One entry a text, in their order; None where the vector is missing or not fit to use."""
    found: list[Vectors | None] = [None] * texts
    items = body.get("data") if isinstance(body, dict) else None
    for item in items if isinstance(items, list) else []:
        index = item.get("index") if isinstance(item, dict) else None
        if isinstance(index, int) and not isinstance(index, bool) and 0 <= index < texts:
            found[index] = read_vector(item.get("embedding"), dimension)
    return found


def read_tokens(body: Any) -> int | None:
    """How many tokens the texts of an answer had, prefixes included; None where the server does not say."""
    usage = body.get("usage") if isinstance(body, dict) else None
    tokens = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return tokens if isinstance(tokens, int) and not isinstance(tokens, bool) and tokens > 0 else None


def has_invalid_vectors(body: bytes) -> bool:
    """Whether an error says that the server itself found vectors that are not fit to use (see serve.app)."""
    try:
        return bool(json.loads(body)["error"]["code"] == "invalid_vectors")
    except (ValueError, TypeError, KeyError, RecursionError):
        return False


def read_vector(value: Any, dimension: int) -> Vectors | None:
    """float32 (dimension,), or None unless it is that many finite numbers of length 1."""
    if not isinstance(value, list) or len(value) != dimension:
        return None
    if not all(isinstance(number, float | int) and not isinstance(number, bool) for number in value):
        return None
    try:
        with np.errstate(over="ignore"):
            vector: Vectors = np.array(value, dtype=np.float32)
    except (OverflowError, ValueError):
        return None
    return vector if are_fit(vector[np.newaxis], THEIR_LENGTH_ERROR).all() else None
