"""How many documents a stage does without that get no answer while the endpoint answers others."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Final

_SHARE: Final = 50  # answered ones that make up for one that is not
_MOST: Final = 4  # in a row: what is overloaded, or away for long requests alone, must not cost more than these
_NAMED: Final = 5


@dataclass(slots=True)
class Losses:
    """Thread-safe. Of one attempt and of all its endpoints: to each request alone an overload looks like a document
    that cannot be answered.
    """

    names: list[str] = field(default_factory=list)  # of those that got no answer
    _credit: int = _SHARE  # each loss takes `_SHARE`, each document that is answered gives 1
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answered(self) -> None:
        """All that was asked about one more document is answered."""
        with self._lock:
            self._credit = min(self._credit + 1, _MOST * _SHARE)

    def take(self, name: str) -> bool:
        """Whether the stage does without this one, too. Several sections of a document count once."""
        with self._lock:
            if name and name in self.names:
                return True
            self.names.append(name)
            if self._credit < _SHARE:
                return False
            self._credit -= _SHARE
            return True

    def told(self) -> str:
        """For a message."""
        known = [name for name in self.names if name]
        more = f" and {len(known) - _NAMED} more" if len(known) > _NAMED else ""
        return ", ".join(known[:_NAMED]) + more
