"""How near an endpoint's answers to the canaries are to those of the evaluated model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from embedding_stages.contract.canaries import VERSION
from embedding_stages.encoder.description import Role
from embedding_stages.evaluate.canaries import ROLES, embed_canaries, least_cosine
from embedding_stages.vectors import Vectors

ANSWERED: dict[Role, Vectors] = dict.fromkeys(ROLES, np.full((8, 4), 0.5, dtype=np.float32))


def told(vectors: Vectors) -> dict[str, Any]:
    return embed_canaries(lambda _texts, _role: vectors)


def one_row(row: list[float]) -> Vectors:
    vectors = ANSWERED["query"].copy()
    vectors[3] = row
    return vectors


TOLD: dict[str, tuple[dict[str, Any], float | None]] = {
    "the same vectors": (told(ANSWERED["query"]), 1.0),
    "one vector turned by 60 degrees": (told(one_row([1, 0, 0, 0])), 0.5),
    "vectors of another length": (told(np.full((8, 2), 0.7, dtype=np.float32)), 0.0),
    "one vector that is no number": (told(one_row([float("nan"), 0, 0, 0])), 0.0),
    "one vector without end": (told(one_row([float("inf"), 0, 0, 0])), 0.0),
    "what is no base64": ({"version": VERSION, "query": "!", "passage": "?"}, 0.0),
    "no vectors": ({"version": VERSION}, 0.0),
    "other texts": ({**told(ANSWERED["query"]), "version": VERSION + 1}, None),
    "nothing": ({}, None),
}


@pytest.mark.parametrize(("said", "cosine"), TOLD.values(), ids=TOLD.keys())
def test_the_least_cosine_is_told(said: dict[str, Any], cosine: float | None) -> None:
    assert least_cosine(said, ANSWERED) == cosine
