"""Drawing a few of many, evenly, from what is read one at a time: memory holds those that are drawn and no others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

_T = TypeVar("_T")


def even_places(count: int, most: int) -> list[int]:
    """At most `most` places of `count`, evenly, in their order; the first is 0."""
    number = min(most, count)
    return [place * count // number for place in range(number)]


def at_places(items: Iterable[_T], places: Sequence[int]) -> list[_T]:
    """The items at these places, which ascend. Reads to the end, for what is wrong there."""
    wanted = set(places)
    return [item for place, item in enumerate(items) if place in wanted]
