"""Whether work takes time in proportion to a text, and not in proportion to its square."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Final

_PARTS: Final = 8
# Eight times the text takes 8 times the time in proportion, 64 times as its square. What lies between is as far from
# the one as from the other: a processor whose caches or neighbours change its speed 2.8 times changes no answer.
_MOST: Final = 22.6
_ATTEMPTS: Final = 3
_NOTHING_S: Final = 0.05  # of so little nothing can be said


def grows_with_the_text(work: Callable[[str], object], text: str) -> bool:
    """Measured again where it does not: what takes the square does so each time, and a busy machine only at times."""
    return any(_grows(work, text) for _ in range(_ATTEMPTS))


def _grows(work: Callable[[str], object], text: str) -> bool:
    part = min(_seconds(work, text[: len(text) // _PARTS]) for _ in range(3))
    whole = _seconds(work, text)
    return whole <= max(_NOTHING_S, _MOST * part)


def _seconds(work: Callable[[str], object], text: str) -> float:
    """Of this process, without what collecting garbage takes."""
    gc.collect()
    gc.disable()
    try:
        started = time.process_time()
        work(text)
        return time.process_time() - started
    finally:
        gc.enable()
