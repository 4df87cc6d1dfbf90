"""Claims that users bring: not labelled as ours, so no watch tells of them. Read once in a while. Thread-safe."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from embedding_operator.cluster.client import Cluster

_FRESH: Final = timedelta(seconds=600)  # access modes do not change as long as a claim lives
_MISSING_FRESH: Final = timedelta(seconds=5)  # somebody is about to make it
_MANY: Final = 1000


@dataclass(slots=True)
class ExistingClaims:
    """Access modes by namespace and name."""

    cluster: Cluster
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _known: dict[tuple[str, str], tuple[datetime, Sequence[str]]] = field(default_factory=dict)  # until when

    def modes(self, namespace: str, name: str, now: datetime) -> tuple[Sequence[str], bool]:
        """(access modes, empty when there is no such claim; whether they were read just now). Raises ClusterError."""
        with self._lock:
            until, modes = self._known.get((namespace, name), (now, ()))
        if now < until <= now + _FRESH:  # a clock may be set back
            return modes, False
        raw: Mapping[str, Any] = self.cluster.get("PersistentVolumeClaim", namespace, name) or {}
        modes = tuple((raw.get("spec") or {}).get("accessModes") or ())
        with self._lock:
            if len(self._known) > _MANY:
                self._known = {key: item for key, item in self._known.items() if now < item[0]}
            self._known[namespace, name] = now + (_FRESH if modes else _MISSING_FRESH), modes
        return modes, True
