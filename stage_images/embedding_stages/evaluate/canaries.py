"""The vectors that the tuned model gives the canaries: what an endpoint must answer, whatever questions there are."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from embedding_stages.contract.canaries import VERSION, texts_of
from embedding_stages.encoder.description import Role
from embedding_stages.vectors import Vectors

Embed = Callable[[list[str], Role], Vectors]
ROLES: tuple[Role, ...] = ("query", "passage")


def embed_canaries(embed: Embed) -> dict[str, Any]:
    """For report.json: by role base64 of little-endian float32 (texts, dimension)."""
    vectors = {role: embed(texts_of(role), role) for role in ROLES}
    return {
        "version": VERSION,
        **{role: base64.b64encode(found.astype("<f4").tobytes()).decode() for role, found in vectors.items()},
    }


def least_cosine(told: Mapping[str, Any], answered: Mapping[Role, Vectors]) -> float | None:
    """Of each canary's vector to the one that `told` (of a report) has; None where that has none of this version.

    `answered` are vectors of length 1. Those of another dimension have cosine 0, as have all where `told` is damaged or
    has what is no number.
    """
    if told.get("version") != VERSION:
        return None
    cosines = [_cosines(str(told.get(role, "")), answered[role]) for role in ROLES]
    return float(min(float(found.min()) for found in cosines))


def _cosines(text: str, vectors: Vectors) -> Vectors:
    try:
        before = np.frombuffer(base64.b64decode(text), dtype="<f4")
    except (binascii.Error, ValueError):
        before = np.zeros(0, dtype="<f4")
    if before.size != vectors.size or not np.isfinite(before).all():
        return np.zeros(1, dtype=np.float32)
    return np.asarray((before.reshape(vectors.shape) * vectors).sum(axis=1), dtype=np.float32)
