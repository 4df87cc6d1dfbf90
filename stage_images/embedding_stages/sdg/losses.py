"""How many documents a stage does without that get no answer while the endpoint answers others."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Final

from embedding_stages.sdg.answers import OddAnswerError
from embedding_stages.sdg.failures import too_many_missing

_SHARE: Final = 50  # answered ones that make up for one that is not
_MOST: Final = 4  # in a row: what is overloaded, or away for long requests alone, must not cost more than these
_NAMED: Final = 5


@dataclass(slots=True)
class Losses:
    """Thread-safe. Of one attempt and of all its endpoints: to each request alone an overload looks like a document
    that cannot be answered.
    """

    _paths: dict[str, str] = field(default_factory=dict)  # of the documents that got no answer, by id
    _unknown: int = 0
    _are_refused: bool = True  # one and all, by what stands before the endpoint
    _credit: int = _SHARE  # each loss takes `_SHARE`, each document that is answered gives 1
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answered(self) -> None:
        """All that was asked about one more document is answered."""
        with self._lock:
            self._credit = min(self._credit + 1, _MOST * _SHARE)

    def take(self, name: str, path: str, error: OddAnswerError) -> None:
        """Do without this one. Several sections of a document count once; `name` is empty where nobody knows whose the
        request was. Raises Transient `LLMUnavailable` and BadInput `LLMRequestRejected` when there are too many.
        """
        with self._lock:
            self._are_refused &= error.is_refused
            if name in self._paths:
                return
            if name:
                self._paths[name] = path
            else:
                self._unknown += 1
            if self._credit < _SHARE:
                raise too_many_missing(error, self._told(), is_final=self._are_refused)
            self._credit -= _SHARE

    def _told(self) -> str:
        paths = [repr(path) for path in self._paths.values()]
        more = len(paths) - _NAMED
        parts = [", ".join(paths[:_NAMED])] if paths else []
        if more > 0:
            parts.append(f"{more} more")
        if self._unknown:
            parts.append(f"{self._unknown} of which it is not known")
        return " and ".join(parts)
