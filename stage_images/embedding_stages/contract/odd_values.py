"""What a stage prints is read with care: its image may be anybody's.

Each function raises ValueError for what no status could hold: a number that JSON has no word for, or a whole one that
is too large; half a character; what is nested without end.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final

_BITS: Final = 53  # a whole number that every reader of JSON takes for the same, and a sum of which 64 bits hold
_MOST_BITS: Final = 63  # beside the sign: what Kubernetes reads as a whole number
_DEEPEST: Final = 32  # our own results are five deep


def read_json(text: str) -> Any:
    """What the text says, as Python reads it: numbers that are none among it."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def check(value: Any, depth: int = 0) -> None:
    """Whether all of a value, as JSON was read, can be written again."""
    if depth > _DEEPEST:
        raise ValueError("nested too deep")
    if isinstance(value, str):
        value.encode()  # UnicodeEncodeError is a ValueError
    elif isinstance(value, int):
        if value.bit_length() > _MOST_BITS:
            raise ValueError(f"it has more than {_MOST_BITS} bits")
    elif isinstance(value, float):
        number(value)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            check(key, depth)
            check(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            check(item, depth + 1)


def holdable(values: Mapping[str, Any]) -> dict[str, Any]:
    """Those that can be written again. What a stage tells beside its work is no reason to do it once more, or to lose
    the words of a failure.
    """

    def holds(key: str, value: Any) -> bool:
        try:
            check({key: value})
        except ValueError:
            return False
        return True

    return {key: value for key, value in values.items() if holds(key, value)}


def whole(value: Any) -> int:
    """Raises TypeError for what is no number at all."""
    try:
        found = int(value)
    except OverflowError as error:
        raise ValueError("it is infinite") from error
    if found.bit_length() > _BITS:
        raise ValueError(f"it has more than {_BITS} bits")
    return found


def number(value: Any) -> float:
    """Raises TypeError for what is no number at all."""
    try:
        found = float(value)
    except OverflowError as error:
        raise ValueError("it is too large") from error
    if not math.isfinite(found):
        raise ValueError(f"{found} is no number")
    return found
