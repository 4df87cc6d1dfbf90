"""A response of POST /v1/embeddings to vectors. Pure: whatever the server sends, no exception leaves here."""

from __future__ import annotations

import json
from typing import Any, Final

import numpy as np

from embedding_stages.vectors import THEIR_LENGTH_ERROR, Vectors, are_fit

_NOT_FINITE: Final = "numbers that are not finite"


def read_vectors(body: Any, *, texts: int, dimension: int) -> list[Vectors | None]:
    """One entry a text, in their order; None where the vector is missing or not fit to use."""
    return [read_vector(value, dimension) for value in _embeddings(body, texts)]


def fault_of(body: Any, *, texts: int, dimension: int) -> str:
    """What came for the first text whose vector is missing or not fit to use, in words; empty where all are."""
    read = (_read(value, dimension) for value in _embeddings(body, texts))
    return next((found for found in read if isinstance(found, str)), "")


def _embeddings(body: Any, texts: int) -> list[Any]:
    """What an answer has for each text, in their order; None where it has nothing."""
    found: list[Any] = [None] * texts
    items = body.get("data") if isinstance(body, dict) else None
    for item in items if isinstance(items, list) else []:
        index = item.get("index") if isinstance(item, dict) else None
        if isinstance(index, int) and not isinstance(index, bool) and 0 <= index < texts:
            found[index] = item.get("embedding")
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
    found = _read(value, dimension)
    return None if isinstance(found, str) else found


def _read(value: Any, dimension: int) -> Vectors | str:
    """The vector, or what else it is, in words."""
    if not isinstance(value, list):
        return "no vector"
    if not all(isinstance(number, float | int) and not isinstance(number, bool) for number in value):
        return "a list with something else than numbers"
    if len(value) != dimension:
        return f"{len(value)} numbers where the model has {dimension}: the server has another model"
    try:
        with np.errstate(over="ignore"):
            vector: Vectors = np.array(value, dtype=np.float32)
    except (OverflowError, ValueError):
        return _NOT_FINITE
    if are_fit(vector[np.newaxis], THEIR_LENGTH_ERROR).all():
        return vector
    if not np.isfinite(vector).all():
        return _NOT_FINITE
    length = np.linalg.norm(vector.astype(np.float64))
    return f"a vector of length {length:.4g}, which the server did not scale to 1"
