"""What is remembered of vectors when they themselves are lost. Pure.

A sketch holds a few sums of each vector's numbers, with signs as good as random: it fits into a status, and tells how
like other vectors are to the ones it was made of (the random projections of Johnson and Lindenstrauss, with the signs
of Achlioptas, "Database-friendly random projections", 2003).
"""

from __future__ import annotations

import base64
import hashlib
import math
import struct
from collections.abc import Sequence
from typing import Final

Vector = Sequence[float]
_SUMS: Final = 8  # of each vector: the mean of as many squares is half off at times, and what differs is far more off


def sketch(vectors: Sequence[Vector]) -> str:
    """base64 of little-endian float16, 8 for each vector, whatever its length."""
    sums = [value for index, vector in enumerate(vectors) for value in _sums(vector, index)]
    return base64.b64encode(struct.pack(f"<{len(sums)}e", *sums)).decode()


def least_likeness(remembered: str, vectors: Sequence[Vector]) -> float:
    """About the least cosine between what the sketch was made of and `vectors`, one to one: the angle is right to a
    factor of two. -1 where it is no sketch of so many.
    """
    try:
        data = base64.b64decode(remembered, validate=True)
        before = struct.unpack(f"<{_SUMS * len(vectors)}e", data)
    except (ValueError, struct.error):
        return -1.0
    if not all(map(math.isfinite, before)):
        return -1.0
    least = 1.0
    for index, vector in enumerate(vectors):
        known = before[_SUMS * index : _SUMS * (index + 1)]
        squares = math.fsum((x - y) ** 2 for x, y in zip(known, _sums(vector, index), strict=True)) / _SUMS
        least = min(least, 1.0 - squares / 2)  # of vectors of length 1
    return max(-1.0, least)


def _sums(vector: Vector, index: int) -> list[float]:
    length = math.sqrt(math.fsum(x * x for x in vector))
    if not length or not math.isfinite(length):
        return [0.0] * _SUMS
    found = list[float]()
    for number in range(_SUMS):
        signs = _signs(f"vector {index}, sum {number}", len(vector))
        found.append(math.fsum(x if signs >> place & 1 else -x for place, x in enumerate(vector)) / length)
    return found


def _signs(of: str, count: int) -> int:
    """As many bits, always the same ones."""
    return int.from_bytes(hashlib.shake_256(of.encode()).digest(-(-count // 8)), "little")
