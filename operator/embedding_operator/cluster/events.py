"""Events for users, posted beside the passes: nobody waits for one, and a lost one is only logged. Thread-safe."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from embedding_operator.cluster.client import Cluster
from embedding_operator.cluster.errors import ClusterError
from embedding_operator.decide.decision import Event

log = logging.getLogger(__name__)
_MOST: Final = 1000  # that wait; an API server that is away must not fill the memory


@dataclass(slots=True, kw_only=True)
class EventPoster:
    """`submit` runs a function somewhere else, one after the other: a resource's Events keep their order."""

    cluster: Cluster
    submit: Callable[[Callable[[], None]], object]
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _waiting: int = 0

    def post(self, resource: Mapping[str, Any], events: Sequence[Event], stamp: str) -> None:
        """`stamp` is the time of what they tell."""
        about = {"metadata": {key: value for key, value in resource["metadata"].items() if key != "managedFields"}}
        for event in events:
            with self._lock:
                full = self._waiting >= _MOST
                self._waiting += not full
            if full:
                _lost(about, event, "too many others wait")
                continue
            try:
                self.submit(lambda event=event: self._post(about, event, stamp))  # type: ignore[misc]
            except RuntimeError:  # the process ends
                with self._lock:
                    self._waiting -= 1
                _lost(about, event, "the operator ends")

    def say_lost(self) -> None:
        """At the end of the process: what waits is not posted any more."""
        with self._lock:
            waiting = self._waiting
        if waiting:
            log.warning("%d events not posted: the operator ends", waiting)

    def _post(self, about: Mapping[str, Any], event: Event, stamp: str) -> None:
        try:
            self.cluster.post_event(about, event.type, event.reason, event.message, stamp)
        except ClusterError as error:
            _lost(about, event, str(error))
        finally:
            with self._lock:
                self._waiting -= 1


def _lost(about: Mapping[str, Any], event: Event, why: str) -> None:
    who = f"{about['metadata']['namespace']}/{about['metadata']['name']}"
    log.warning("%s: event %s not posted: %s", who, event.reason, why, extra={"resource": who})
