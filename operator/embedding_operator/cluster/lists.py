"""Lists beside the watches: a whole one at the start, then versions alone, to find what a watch missed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from embedding_operator.cluster.cache import KINDS, UNWATCHED, Cache, Key
from embedding_operator.cluster.client import Cluster, child_selector
from embedding_operator.cluster.errors import Forbidden
from embedding_operator.resource.api import KIND


@dataclass(frozen=True, slots=True, kw_only=True)
class Lists:
    """Fills the cache. `namespaces` are those that are watched; none: all."""

    cluster: Cluster
    cache: Cache
    namespaces: Sequence[str] = ()

    def fill(self) -> None:
        """Take the cluster's word for what exists. Raises ClusterError."""
        for kind in KINDS:
            self._fill(kind)
        self._fill_unwatched()

    def catch_up(self) -> set[Key]:
        """Take in what the watches missed; the resources that it concerns. Raises ClusterError."""
        rung = set[Key]()
        for kind in KINDS:
            if kind in self.cache.unheard:
                self._fill(kind)
                continue
            missed, lost = self.cache.compare(kind, self._all(self.cluster.versions, kind))
            rung |= lost
            for namespace, name in missed:
                for raw in self.cluster.list(kind, namespace, fields=f"metadata.name={name}"):
                    key = self.cache.put(kind, raw)
                    rung |= {key} if key is not None else set()
        self._fill_unwatched()
        return rung

    def _fill(self, kind: str) -> None:
        try:
            self.cache.fill(kind, self._all(self.cluster.each, kind))
        except Forbidden:
            if kind == KIND:
                raise
            self.cache.unheard.add(kind)  # each pass asks for its own, and says which right is missing
        else:
            self.cache.unheard.discard(kind)

    def _fill_unwatched(self) -> None:
        for kind in UNWATCHED:
            with suppress(Forbidden):  # a role of an earlier release: nobody can have made one
                self.cache.fill(kind, self._all(self.cluster.each, kind))

    def _all(self, read: Callable[..., Iterator[dict[str, Any]]], kind: str) -> Iterator[dict[str, Any]]:
        labels = "" if kind == KIND else child_selector()
        for namespace in self.namespaces or (None,):
            yield from read(kind, namespace, labels=labels)
