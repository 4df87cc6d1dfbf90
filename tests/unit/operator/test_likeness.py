"""A sketch of vectors tells how like others are to them."""

from __future__ import annotations

import base64
from random import Random

import pytest

from embedding_operator.decide.likeness import Vector, least_likeness, sketch

COUNT = 16


def vectors(dimensions: int, *, seed: int = 1) -> list[list[float]]:
    chance = Random(seed)
    return [[chance.gauss(0, 1) for _ in range(dimensions)] for _ in range(COUNT)]


def turned(known: list[list[float]], share: float, *, only: int | None = None) -> list[list[float]]:
    """Each number moved by a share of what it is by chance."""
    chance = Random(2)
    return [
        [x + share * chance.gauss(0, 1) for x in vector] if only in (None, index) else vector
        for index, vector in enumerate(known)
    ]


@pytest.mark.parametrize("dimensions", [2, 384, 1024])
def test_the_same_vectors_are_alike_whatever_their_length(dimensions: int) -> None:
    known = vectors(dimensions)
    longer = [[3.0 * x for x in vector] for vector in known]
    assert least_likeness(sketch(known), longer) > 0.99999


@pytest.mark.parametrize("dimensions", [384, 1024])
@pytest.mark.parametrize(("share", "least", "most"), [(0.01, 0.9997, 1.0), (0.1, 0.98, 0.998), (0.5, 0.5, 0.97)])
def test_the_angle_is_about_right(dimensions: int, share: float, least: float, most: float) -> None:
    """The cosines are about 0.99995, 0.995 and 0.89."""
    known = vectors(dimensions)
    assert least < least_likeness(sketch(known), turned(known, share)) < most


def test_one_that_differs_shows() -> None:
    known = vectors(384)
    assert least_likeness(sketch(known), turned(known, 0.3, only=11)) < 0.99


OTHERS: dict[str, tuple[str, list[Vector]]] = {
    "another model's": (sketch(vectors(384)), [*vectors(384, seed=9)]),
    "of another dimension": (sketch(vectors(384)), [*vectors(256)]),
    "fewer": (sketch(vectors(384)), [*vectors(384)[:-1]]),
    "without direction": (sketch(vectors(384)), [[0.0] * 384] * COUNT),
    "no numbers": (sketch(vectors(384)), [[float("nan")] * 384] * COUNT),
    "nothing remembered": ("", [*vectors(384)]),
    "no sketch": ("?", [*vectors(384)]),
    "a sketch of no numbers": (base64.b64encode(b"\xff" * 256).decode(), [*vectors(384)]),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_not_alike(name: str) -> None:
    assert not least_likeness(*OTHERS[name]) > 0.6


def test_a_sketch_stays_what_it_was() -> None:
    """Statuses hold it, and a later release reads them."""
    assert sketch([[1.0, 0.0, -1.0, 2.0], [0.5, 0.25, 0.0, -0.125]]) == "iDqIugAAiLqIuog6iLoAABw+HD4cvj05HD5dvD05HD4="
    assert len(sketch(vectors(384))) == 344
