"""Lists beside the watches: a whole one at the start, then versions alone, to find what a watch missed.

Versions of ten thousand resources' objects take seconds of CPU, in which passes would wait: they are listed slowly, and
the less often the longer they take.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from embedding_operator.cluster.cache import KINDS, UNWATCHED, Cache, Key
from embedding_operator.cluster.client import Cluster, child_selector
from embedding_operator.cluster.errors import Forbidden
from embedding_operator.resource.api import KIND

_MOST_OF_A_CORE: Final = 0.1  # while versions are listed
_MOST_OVER_TIME: Final = 0.005  # of a core, from one such list to the next
_A_STRETCH: Final = 500  # objects between two rests. A continued list expires five minutes after its first page.


class Ending(Exception):
    """The process ends, so that a list is given up. What was listed of it says nothing of the rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lists:
    """Fills the cache. `namespaces` are those that are watched; none: all.

    `rest` waits so many seconds, and is true once the process ends. `cpu_s` are CPU seconds of the calling thread.
    """

    cluster: Cluster
    cache: Cache
    rest: Callable[[float], bool]
    namespaces: Sequence[str] = ()
    cpu_s: Callable[[], float] = time.thread_time
    _versions: dict[tuple[str, str | None], str] = field(default_factory=dict)  # of the first whole lists

    def since(self, kind: str, namespace: str | None) -> str:
        """The version of the first list, which a watch of the kind may go on from; empty where there is none.

        Told once: a watch that cannot go on from it has to list.
        """
        return self._versions.pop((kind, namespace), "")

    def fill(self) -> None:
        """Take the cluster's word for what exists. Raises ClusterError."""
        for kind in KINDS:
            self._fill(kind)
        self._fill_unwatched()

    def catch_up(self) -> set[Key]:
        """Take in what the watches missed; the resources that it concerns. Raises ClusterError, Ending."""
        try:
            return self._caught_up()
        finally:
            self._versions.clear()  # of a kind that may be listed by now, whose watch began by itself

    def _caught_up(self) -> set[Key]:
        rung = set[Key]()
        for kind in KINDS:
            if kind in self.cache.unheard:
                self._fill(kind)
                continue
            try:
                rung |= self._compare(kind)
            except Forbidden as error:
                self._pass_over(kind, error)
        self._fill_unwatched()
        return rung

    def _compare(self, kind: str) -> set[Key]:
        missed, rung = self.cache.compare(kind, self._slowly(self._all_versions(kind)))
        for namespace, name in missed:
            for raw in self.cluster.list(kind, namespace, fields=f"metadata.name={name}"):
                key = self.cache.put(kind, raw)
                rung |= {key} if key is not None else set()
        return rung

    def _fill(self, kind: str) -> None:
        try:
            self.cache.fill(kind, self._whole(kind))
        except Forbidden as error:
            self._pass_over(kind, error)
        else:
            self.cache.unheard.discard(kind)

    def _pass_over(self, kind: str, error: Forbidden) -> None:
        """A kind that may not be listed, or no longer: each pass asks for its own, and says which right is missing."""
        if kind == KIND:
            raise error
        self.cache.unheard.add(kind)

    def _fill_unwatched(self) -> None:
        for kind in UNWATCHED:
            with suppress(Forbidden):  # a role of an earlier release: nobody can have made one
                self.cache.fill(kind, self._whole(kind))

    def _slowly(self, listed: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """The same, with rests between, so that passes get on. What the caller does with each object counts."""
        begun = self.cpu_s()
        for number, raw in enumerate(listed, 1):
            yield raw
            if number % _A_STRETCH == 0:
                if self.rest((self.cpu_s() - begun) * (1 / _MOST_OF_A_CORE - 1)):
                    raise Ending
                begun = self.cpu_s()

    def _whole(self, kind: str) -> Iterator[dict[str, Any]]:
        for namespace in self.namespaces or (None,):
            self._versions[kind, namespace] = yield from self._of(self.cluster.each, kind, namespace)

    def _all_versions(self, kind: str) -> Iterator[dict[str, Any]]:
        for namespace in self.namespaces or (None,):
            yield from self._of(self.cluster.versions, kind, namespace)

    def _of(
        self, read: Callable[..., Generator[dict[str, Any], None, str]], kind: str, namespace: str | None
    ) -> Generator[dict[str, Any], None, str]:
        return read(kind, namespace, labels="" if kind == KIND else child_selector())


def interval_s(asked_s: float, cpu_s: float) -> float:
    """Seconds between two lists of versions, of which the last one took so much CPU."""
    return max(asked_s, cpu_s / _MOST_OVER_TIME)
