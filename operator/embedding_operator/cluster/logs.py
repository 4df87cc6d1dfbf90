"""The ends of pods' logs, read apart from the passes: a kubelet that hangs must not hold up other resources.

A pass takes the newest tail that is known and asks for another one. At most one read at a time goes to a node, a node
that gave no answer is left alone for a minute, and a new tail rings for its resource. Thread-safe.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from embedding_operator.cluster.cache import Key
from embedding_operator.objects.pods import PodView

log = logging.getLogger(__name__)
THREADS: Final = 8
_LINES: Final = 40
_FRESH_S: Final = 8.0  # passes over a running stage come every ten seconds
_HUNG_S: Final = 60.0
_LAST_WAIT_S: Final = 1.0  # for the last words of a pod that failed, once
_KEPT: Final = 1000  # tails, of 16 KiB at most


@dataclass(slots=True)
class _Tail:
    """What is known of one pod's log."""

    text: str = ""
    read_at: float = float("-inf")
    whole: bool = False  # read after the pod had ended
    asked: threading.Event | None = None  # set once the read that was asked for has been done


@dataclass(slots=True, kw_only=True)
class _Read:
    key: Key
    uid: str
    name: str
    ended: bool


@dataclass(slots=True, kw_only=True)
class LogTails:
    """Newest known log tails by pod.

    `read` returns the tail of (namespace, pod, lines), or None when nobody answered in time; `submit` runs a function
    elsewhere, soon; `ring` asks for a pass; `clock` is monotonic, seconds.
    """

    read: Callable[[str, str, int], str | None]
    submit: Callable[[Callable[[], None]], object]
    ring: Callable[[Key], object]
    clock: Callable[[], float]
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _tails: OrderedDict[str, _Tail] = field(default_factory=OrderedDict)  # by UID, the least recently asked for first
    _queues: dict[str, list[_Read]] = field(default_factory=dict)  # by node, of nodes that are being read from
    _hung_at: dict[str, float] = field(default_factory=dict)  # by node

    def newest(self, key: Key, pod: PodView) -> str:
        """The tail as it is known now; a newer one is asked for, and rings."""
        return self._ask(key, pod, ended=False).text

    def last(self, key: Key, pod: PodView) -> str:
        """The tail of a pod that has ended, waited for a little; what is known by then if it does not come."""
        tail = self._ask(key, pod, ended=True)
        for _ in range(2):  # a read from before the end may be under way
            asked = tail.asked
            if tail.whole or asked is None:
                break
            asked.wait(_LAST_WAIT_S)
            tail = self._ask(key, pod, ended=True)
        return tail.text

    def forget(self) -> None:
        """Others may have led meanwhile, and told of more. What was read after a pod has ended stays true."""
        with self._lock:
            for uid, tail in [*self._tails.items()]:
                if tail.asked is not None:
                    tail.text, tail.read_at = "", float("-inf")
                elif not tail.whole:
                    del self._tails[uid]

    def _ask(self, key: Key, pod: PodView, *, ended: bool) -> _Tail:
        with self._lock:
            tail = self._tails.setdefault(pod.uid, _Tail())
            self._tails.move_to_end(pod.uid)
            while len(self._tails) > _KEPT:
                self._tails.popitem(last=False)
            known = tail.whole if ended else self.clock() < tail.read_at + _FRESH_S
            hung = self.clock() < self._hung_at.get(pod.node, float("-inf")) + _HUNG_S
            if known or hung or tail.asked is not None:
                return tail
            tail.asked = threading.Event()
            idle = pod.node not in self._queues
            self._queues.setdefault(pod.node, []).append(_Read(key=key, uid=pod.uid, name=pod.name, ended=ended))
        if idle:
            self.submit(lambda: self._drain(pod.node))
        return tail

    def _drain(self, node: str) -> None:
        """Read what is asked for from one node, one after the other."""
        while True:
            with self._lock:
                if not self._queues[node]:
                    del self._queues[node]
                    return
                wanted = self._queues[node].pop(0)
            try:
                text = self.read(wanted.key[0], wanted.name, _LINES)
            except Exception:  # a log is no reason to stop reading others
                who = "/".join(wanted.key)
                log.exception("%s: log of pod %s not read", who, wanted.name, extra={"resource": who})
                text = None
            if self._take(node, wanted, text):
                self.ring(wanted.key)

    def _take(self, node: str, wanted: _Read, text: str | None) -> bool:
        """Keep what was read; True when it is news. A node that does not answer loses its queue."""
        with self._lock:
            dropped = [wanted]
            if text is None:
                self._hung_at[node] = self.clock()
                dropped += self._queues[node]
                self._queues[node] = []
            else:
                self._hung_at.pop(node, None)
            for item in dropped:
                tail = self._tails.get(item.uid)
                if tail is not None and tail.asked is not None:
                    tail.asked.set()
                    tail.asked = None
            tail = self._tails.get(wanted.uid)
            if tail is None or text is None:
                return False
            news = text != tail.text
            tail.text, tail.read_at, tail.whole = text or tail.text, self.clock(), wanted.ended
            return news
