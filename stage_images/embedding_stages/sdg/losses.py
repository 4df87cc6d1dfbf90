"""How many requests a stage does without that get no answer while the endpoint answers others."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Final

_SHARE: Final = 50  # one of so many documents


def most_of(documents: int) -> int:
    """Of a stage that asks about so many documents."""
    return 1 + documents // _SHARE


@dataclass(slots=True)
class Losses:
    """Thread-safe. Of one attempt, whichever of its endpoints it is: what is overloaded, or away for long requests
    alone, looks like many documents that cannot be answered, and must not cost them.
    """

    most: int = 1
    _taken: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self) -> bool:
        """Whether one more may be done without."""
        with self._lock:
            if self._taken >= self.most:
                return False
            self._taken += 1
            return True
