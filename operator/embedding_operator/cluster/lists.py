"""Lists beside the watches: a whole one at the start, then versions alone, to find what a watch missed.

Versions of ten thousand resources' objects take seconds of CPU, in which passes would wait: they are listed slowly, and
the less often the longer they take.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from embedding_operator.cluster.cache import KINDS, UNWATCHED, Cache, Key
from embedding_operator.cluster.client import Cluster, child_selector
from embedding_operator.cluster.errors import Forbidden
from embedding_operator.resource.api import KIND

log = logging.getLogger(__name__)
_MOST_OF_A_CORE: Final = 0.1  # while versions are listed
_MOST_OVER_TIME: Final = 0.005  # of a core, from one such list to the next
_A_STRETCH: Final = 500  # objects between two rests. A continued list expires five minutes after its first page.


class Ending(Exception):
    """The process ends, so that a list is given up. What was listed of it says nothing of the rest."""


@dataclass(slots=True, kw_only=True)
class _Pace:
    """Of one resync, over all its lists: in many namespaces there may be few objects each."""

    rest: Callable[[float], bool]
    cpu_s: Callable[[], float]
    _number: int = 0  # of objects so far
    _begun: float = field(init=False)  # when the last rest ended

    def __post_init__(self) -> None:
        self._begun = self.cpu_s()

    def slowly(self, listed: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """The same, with rests between, so that passes get on. What the caller does with each object counts."""
        for raw in listed:
            yield raw
            self._number += 1
            if self._number % _A_STRETCH == 0:
                if self.rest((self.cpu_s() - self._begun) * (1 / _MOST_OF_A_CORE - 1)):
                    raise Ending
                self._begun = self.cpu_s()


@dataclass(slots=True, kw_only=True)
class _Listed:
    """Objects as they come, to be read once, and the version of the list, known once it was read whole."""

    pages: Generator[dict[str, Any], None, str]
    paced: Callable[[Iterator[dict[str, Any]]], Iterator[dict[str, Any]]]
    version: str = ""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self.paced(self._noted())

    def _noted(self) -> Iterator[dict[str, Any]]:
        self.version = yield from self.pages


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
    # Whom what was taken in concerns, until somebody is told: a list may fail after it has.
    _owed: set[Key] = field(default_factory=set)

    def since(self, kind: str, namespace: str | None) -> str:
        """The version of the first list, which a watch of the kind may go on from; empty where there is none.

        Told once: a watch that cannot go on from it begins anew.
        """
        return self._versions.pop((kind, namespace), "")

    def begin_anew(self, kind: str, namespace: str | None) -> tuple[str, set[Key]]:
        """Take in what a watch has missed that cannot go on from where it was: (the version that it may go on from, the
        resources that it concerns). Raises ClusterError.
        """
        if (kind, namespace) in self.cache.unheard:
            self._owe(self.cache.known(kind, namespace))
            listed = self._of(self.cluster.each, kind, namespace, self._until_the_end)
            self._take_whole(kind, namespace, listed)
            self._owe(self.cache.known(kind, namespace))
            self._take_up(kind, namespace)
        else:
            listed = self._of(self.cluster.versions, kind, namespace, self._until_the_end)
            self._take_in(kind, namespace, listed)
        return listed.version, self._handed_over()

    def _owe(self, known: set[tuple[Key | None, str]]) -> None:
        self._owed.update(key for key, _ in known if key is not None)

    def _handed_over(self) -> set[Key]:
        found = set(self._owed)
        self._owed.difference_update(found)
        return found

    def _until_the_end(self, listed: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for number, raw in enumerate(listed):
            if number % _A_STRETCH == 0 and self.rest(0.0):
                raise Ending
            yield raw

    def fill(self) -> None:
        """Take the cluster's word for what exists. Raises ClusterError."""
        for kind in KINDS:
            self._in_each(kind, self._fill)
        self._fill_unwatched()

    def catch_up(self) -> set[Key]:
        """Take in what the watches missed; the resources that it concerns. Raises ClusterError, Ending."""
        try:
            return self._caught_up()
        finally:
            self._versions.clear()  # of a kind that may be listed by now, whose watch began by itself

    def _caught_up(self) -> set[Key]:
        pace = _Pace(rest=self.rest, cpu_s=self.cpu_s)

        def read(kind: str, namespace: str | None) -> None:
            if (kind, namespace) in self.cache.unheard:
                self._fill(kind, namespace)
            else:
                self._compare(kind, namespace, pace)

        for kind in KINDS:
            self._in_each(kind, read)
        self._fill_unwatched()
        return self._handed_over()

    def _in_each(self, kind: str, read: Callable[[str, str | None], None]) -> None:
        """Let each watched namespace be `read`. One that may not be listed stops no other: with a namespace that
        is deleted its Role is gone. Where no resource may be listed at all, the right that is missing has to show.
        """
        refused = list[tuple[str | None, Forbidden]]()
        watched = self.namespaces or (None,)
        for namespace in watched:
            try:
                read(kind, namespace)
            except Forbidden as error:
                refused.append((namespace, error))
            else:
                self._take_up(kind, namespace)
        if kind == KIND and len(refused) == len(watched):
            raise refused[0][1]
        for namespace, refusal in refused:
            self._pass_over(kind, namespace, refusal)

    def _compare(self, kind: str, namespace: str | None, pace: _Pace) -> None:
        self._take_in(kind, namespace, self._of(self.cluster.versions, kind, namespace, pace.slowly))

    def _take_in(self, kind: str, namespace: str | None, listed: _Listed) -> None:
        """Compare versions, and read what is newer than what is known. It is told whom that concerns, and who has lost
        an object.
        """
        missed, lost = self.cache.compare(kind, listed, namespace, version=lambda: listed.version)
        self._owed.update(lost)
        for its_namespace, name in missed:
            if self.rest(0.0):
                raise Ending
            for raw in self.cluster.list(kind, its_namespace, fields=f"metadata.name={name}"):
                key = self.cache.put(kind, raw)
                if key is not None:
                    self._owed.add(key)

    def _fill(self, kind: str, namespace: str | None) -> None:
        """Nobody need be rung for: a watch tells, or all are looked at after it."""
        listed = self._of(self.cluster.each, kind, namespace)
        self._take_whole(kind, namespace, listed)
        self._versions[kind, namespace] = listed.version

    def _take_whole(self, kind: str, namespace: str | None, listed: _Listed) -> None:
        self.cache.fill(kind, listed, namespace, version=lambda: listed.version)

    def _pass_over(self, kind: str, namespace: str | None, error: Forbidden) -> None:
        """What may not be listed, or no longer: each pass asks for its own, and says which right is missing. Of a
        namespace without resources no pass says anything, so that is said here, once.
        """
        if kind == KIND and (kind, namespace) not in self.cache.unheard:
            log.warning("namespace %s is passed over, and what is known of it kept: %s", namespace, error)
        self.cache.unheard.add((kind, namespace))

    def _take_up(self, kind: str, namespace: str | None) -> None:
        if kind == KIND and (kind, namespace) in self.cache.unheard:
            log.info("namespace %s is listed again", namespace)
        self.cache.unheard.discard((kind, namespace))

    def _fill_unwatched(self) -> None:
        for kind in UNWATCHED:
            for namespace in self.namespaces or (None,):
                with suppress(Forbidden):  # a role of an earlier release: nobody can have made one
                    self._fill(kind, namespace)

    def _of(
        self,
        read: Callable[..., Generator[dict[str, Any], None, str]],
        kind: str,
        namespace: str | None,
        paced: Callable[[Iterator[dict[str, Any]]], Iterator[dict[str, Any]]] = iter,
    ) -> _Listed:
        selector = "" if kind == KIND else child_selector()
        return _Listed(pages=read(kind, namespace, labels=selector), paced=paced)


def interval_s(asked_s: float, cpu_s: float) -> float:
    """Seconds between two lists of versions, of which the last one took so much CPU."""
    return max(asked_s, cpu_s / _MOST_OVER_TIME)
