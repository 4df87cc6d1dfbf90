"""Texts whose vectors tell whether an endpoint still answers the same."""

from __future__ import annotations

from typing import Final

VERSION: Final = 1
CANARIES: Final[tuple[tuple[str, str], ...]] = tuple(
    [("query", f"How is number {number} written?") for number in range(8)]
    + [("passage", f"The number {number} is written with one digit.") for number in range(8)]
)
