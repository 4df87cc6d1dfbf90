"""Whether work takes time in proportion to a text: twice the text, about twice the time."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Final

_MOST: Final = 2.2
_ATTEMPTS: Final = 3
_NOTHING_S: Final = 0.05  # of so little nothing can be said


def grows_with_the_text(work: Callable[[str], object], text: str) -> bool:
    """Measured again where it does not: what takes the square does so each time, and a busy machine only at times."""
    return any(_grows(work, text) for _ in range(_ATTEMPTS))


def _grows(work: Callable[[str], object], text: str) -> bool:
    half = _seconds(work, text[: len(text) // 2])
    return _seconds(work, text) <= max(_NOTHING_S, _MOST * half)


def _seconds(work: Callable[[str], object], text: str) -> float:
    """Of this process, the best of three, without what collecting garbage takes."""
    found = []
    for _ in range(3):
        gc.collect()
        gc.disable()
        try:
            started = time.process_time()
            work(text)
            found.append(time.process_time() - started)
        finally:
            gc.enable()
    return min(found)
