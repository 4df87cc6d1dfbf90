"""What the watches have reported: the newest known state of every resource and its children. Thread-safe.

A pass reads from here, and asks the API server only where a stale answer would do harm. What keeps it honest: it is
filled by a list before the first pass, an older resourceVersion never replaces a newer one, what the operator writes is
put here at once, and a periodic list of versions finds what a watch missed.

Ten thousand resources have to fit, so objects are kept as compressed JSON of what is read (objects/slim.py).
"""

from __future__ import annotations

import math
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from embedding_operator.cluster.seen import Seen
from embedding_operator.objects.slim import is_settled, slim
from embedding_operator.resource.api import API_VERSION, KIND
from embedding_operator.resource.labels import OWNER_LABEL

Raw = Mapping[str, Any]
Key = tuple[str, str]  # namespace, name of the resource
CHILDREN: Final = ("Job", "Pod", "Deployment", "Service", "PersistentVolumeClaim")
KINDS: Final = (KIND, *CHILDREN)  # that are watched
UNWATCHED: Final = ("NIMService",)  # of a CRD that may not be there: listed where a resource has some
_FASTEST: Final = 1  # of zlib
_WINDOW: Final = 32_768  # bytes that it looks back
_LARGER: Final = 1.5
_LATE_S: Final = 60.0  # an event that comes later than that is of no watch that has ended


@dataclass(slots=True)
class _Kept:
    """`confirmed` alone changes: a copy for each time that the same is told would lie among what is soon forgotten, and
    keep its memory from being given back.
    """

    uid: str
    version: int
    packed: bytes
    like: bytes  # what it is packed with
    confirmed: float  # when the API server last said that it is so
    settled: bool  # of a resource


@dataclass(frozen=True, slots=True)
class _Gone:
    version: float  # in which it went; infinite: for ever
    namespace: str
    told: float  # when that was heard


class Cache:
    """Objects by kind and resource. `clock` tells how long ago something was heard, seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        kinds = (*KINDS, *UNWATCHED)
        self._objects: dict[str, dict[Key, dict[str, _Kept]]] = {kind: {} for kind in kinds}
        self._like: dict[str, bytes] = {}  # by kind
        # By uid, for a while and until after the next full list. A watch selects by label, so an object whose label is
        # taken off is gone as well; with the label it comes back, in a later version.
        self._gone: dict[str, dict[str, _Gone]] = {kind: {} for kind in kinds}
        # Kinds that may not be listed, each in a namespace, or everywhere (None): what is known of them may be old.
        self.unheard: set[tuple[str, str | None]] = set()

    def put(self, kind: str, raw: Raw, *, as_of: float | None = None) -> Key | None:
        """Remember an object. Its resource's key, or None when it tells nothing new or is not ours.

        `as_of`: since when it may be otherwise, by `now`, where that is not from now on.
        """
        as_of = self._clock() if as_of is None else as_of
        key = owner_key(kind, raw)
        if key is None:
            return None
        meta, version = raw["metadata"], _version(raw)
        old = self._known_as(kind, key, meta["name"])
        if old is not None and version < old.version:
            return None
        if old is not None and version == old.version:
            old.confirmed = max(old.confirmed, as_of)
            return None
        packed, like = self._pack(kind, slim(kind, raw))
        settled = kind == KIND and is_settled(raw)
        uid = old.uid if old is not None and old.uid == meta.get("uid") else meta.get("uid", "")
        kept = _Kept(uid, version, packed, like, as_of, settled)
        taken = self._keep(kind, key, meta["name"], kept)
        return key if taken and (old is None or old.packed != packed) else None

    def now(self) -> float:
        """The time by which objects are confirmed, seconds."""
        return self._clock()

    def _pack(self, kind: str, body: Raw) -> tuple[bytes, bytes]:
        """(packed, with what). Objects of a kind resemble each other: the largest one has most of their words."""
        text = orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
        like = self._like.get(kind, b"")
        if len(text) > _LARGER * len(like) and len(like) < _WINDOW:
            like = self._like[kind] = text[-_WINDOW:]
        deflate = zlib.compressobj(_FASTEST, zdict=like)
        return deflate.compress(text) + deflate.flush(), like

    def _keep(self, kind: str, key: Key, name: str, new: _Kept) -> bool:
        with self._lock:
            gone = self._gone[kind].get(new.uid)
            if gone is not None and new.version <= gone.version:  # a reply or an event that was overtaken
                return False
            self._gone[kind].pop(new.uid, None)
            known = self._objects[kind].setdefault(key, {})
            old = known.get(name)
            if old is not None and new.version < old.version:
                return False
            known[name] = new
            return True

    def drop(self, kind: str, raw: Raw) -> Key | None:
        """Forget an object that is gone in the version of `raw`, unless another of its name has taken its place."""
        key = owner_key(kind, raw)
        if key is not None:
            meta = raw["metadata"]
            self.forget(kind, key, meta["name"], meta.get("uid", ""), version=_version(raw))
        return key

    def forget(self, kind: str, key: Key, name: str, uid: str, *, version: float = math.inf) -> None:
        """The object of this uid is gone in this version; without one it is known that it is gone for ever."""
        with self._lock:
            self._note_gone(kind, uid, key[0], version)
            known = self._objects[kind].get(key, {})
            if name in known and known[name].uid == uid and known[name].version <= version:
                del known[name]
                if not known:
                    del self._objects[kind][key]

    def _note_gone(self, kind: str, uid: str, namespace: str, version: float) -> None:
        before = self._gone[kind].get(uid)
        latest = version if before is None else max(version, before.version)
        self._gone[kind][uid] = _Gone(latest, namespace, self._clock())

    def children(self, kind: str, key: Key) -> list[dict[str, Any]]:
        """Each a copy of its own."""
        with self._lock:
            known = list(self._objects[kind].get(key, {}).values())
        return [_unpack(item) for item in known]

    def resource(self, key: Key) -> dict[str, Any] | None:
        """The resource itself, as it can be written back; None when there is none."""
        found = self.children(KIND, key)
        return {"apiVersion": API_VERSION, "kind": KIND, **found[0]} if found else None

    def resources(self) -> dict[Key, bool]:
        """Every resource, and whether it is Ready for its spec as it is."""
        with self._lock:
            return {key: all(item.settled for item in known.values()) for key, known in self._objects[KIND].items()}

    def uid(self, kind: str, key: Key, name: str) -> str:
        """Empty when it is not known."""
        kept = self._known_as(kind, key, name)
        return kept.uid if kept is not None else ""

    def version(self, kind: str, key: Key, name: str) -> str:
        """The resourceVersion of what is known; empty when it is not."""
        kept = self._known_as(kind, key, name)
        return str(kept.version) if kept is not None else ""

    def confirmed_ago_s(self, kind: str, key: Key, name: str) -> float:
        """Since the API server last told of an object that is known."""
        kept = self._known_as(kind, key, name)
        return self._clock() - kept.confirmed if kept is not None else float("inf")

    def state(self, key: Key) -> int:
        """A number that stays the same as long as a resource and its children do."""
        with self._lock:
            found = [
                (kind, name, item.uid, item.version)
                for kind, by_key in self._objects.items()
                for name, item in by_key.get(key, {}).items()
            ]
        return hash(tuple(sorted(found)))

    def may_list(self, kind: str, namespace: str) -> bool:
        """Whether what is known of a kind there is what a list has told, and a watch."""
        return self.unheard.isdisjoint({(kind, None), (kind, namespace)})

    def known(self, kind: str, namespace: str | None = None) -> set[tuple[Key | None, str]]:
        """Resource and uid of each object there, or everywhere: with another label it is another resource's."""
        with self._lock:
            return {
                (key, item.uid)
                for key, known in self._objects[kind].items()
                if namespace in (None, key[0])
                for item in known.values()
            }

    def fill(
        self,
        kind: str,
        listed: Iterable[Raw],
        namespace: str | None = None,
        *,
        version: Callable[[], str] = str,
    ) -> None:
        """Take in a full list, of a namespace or of all, and forget what was known of it before it was asked for and is
        not in it. `version` tells the list's, once it is read.
        """
        seen, told = Seen(self.known(kind, namespace)), self._gone_now(kind, namespace)
        for raw in listed:  # page by page, so that no more than a page is there in full
            seen.note(owner_key(kind, raw), raw)
            self.put(kind, raw)
        self._prune(kind, seen, told, _number(version()))

    def compare(
        self,
        kind: str,
        listed: Iterable[Raw],
        namespace: str | None = None,
        *,
        version: Callable[[], str] = str,
    ) -> tuple[list[Key], set[Key]]:
        """(namespaces and names of objects that are newer than what is known, resources that lost one).

        `listed` is a full list of metadata, of a namespace or of all. What is not in it, and was known of it before it
        was asked for, is forgotten. `version` tells the list's, once it is read.
        """
        seen, told = Seen(self.known(kind, namespace)), self._gone_now(kind, namespace)
        newer = list[tuple[Raw, Key]]()
        for raw in listed:
            key = owner_key(kind, raw)
            seen.note(key, raw)
            if key is not None and self._version_of(kind, key, raw) < _version(raw):
                newer.append((raw, key))
        # A watch may have told of them since.
        missed = [raw for raw, key in newer if self._version_of(kind, key, raw) < _version(raw)]
        since = self._gone_now(kind)
        metas = [raw["metadata"] for raw in missed if not _went(since.get(raw["metadata"].get("uid", "")), raw)]
        lost = self._prune(kind, seen, told, _number(version()))
        return [(meta["namespace"], meta["name"]) for meta in metas], lost

    def _version_of(self, kind: str, key: Key, raw: Raw) -> int:
        kept = self._known_as(kind, key, raw["metadata"]["name"])
        return kept.version if kept is not None else -1

    def _known_as(self, kind: str, key: Key, name: str) -> _Kept | None:
        with self._lock:
            return self._objects.get(kind, {}).get(key, {}).get(name)

    def _gone_now(self, kind: str, namespace: str | None = None) -> dict[str, _Gone]:
        with self._lock:
            return {uid: gone for uid, gone in self._gone[kind].items() if namespace in (None, gone.namespace)}

    def _prune(self, kind: str, seen: Seen, told: Mapping[str, _Gone], version: int) -> set[Key]:
        """Forget what was known and is not found in a list of this version: a watch that has ended may still tell of
        it, and one that goes on may have told of what came after. `told` are deletions that the list has known of.
        """
        gone = seen.gone()
        there = seen.elsewhere(gone)
        with self._lock:
            lost = [
                (key, name)
                for key in {key for key, _ in gone if key is not None}
                for name, item in self._objects[kind].get(key, {}).items()
                if (key, item.uid) in gone and not 0 < version < item.version
            ]
            for key, name in lost:
                del self._objects[kind][key][name]
                if not self._objects[kind][key]:
                    del self._objects[kind][key]
            for uid, was in told.items():
                if self._gone[kind].get(uid) == was and self._clock() - was.told > _LATE_S:
                    del self._gone[kind][uid]
            for owner, uid in gone if version else ():
                if owner is not None and uid not in there:
                    self._note_gone(kind, uid, owner[0], version)
        return {key for key, _ in lost}


def owner_key(kind: str, raw: Raw) -> Key | None:
    """Of the resource that an object is or belongs to; None when it is not ours."""
    meta = raw.get("metadata", {})
    name = meta["name"] if kind == KIND else (meta.get("labels") or {}).get(OWNER_LABEL)
    return (meta["namespace"], name) if name else None


def _unpack(kept: _Kept) -> dict[str, Any]:
    raw: dict[str, Any] = orjson.loads(zlib.decompressobj(zdict=kept.like).decompress(kept.packed))
    raw["metadata"]["resourceVersion"] = str(kept.version)
    return raw


def _version(raw: Raw) -> int:
    # Opaque in general, but etcd's revision in every API server there is; 0 compares as oldest.
    return _number(str(raw.get("metadata", {}).get("resourceVersion", "0")))


def _went(gone: _Gone | None, raw: Raw) -> bool:
    return gone is not None and _version(raw) <= gone.version


def _number(version: str) -> int:
    return int(version) if version.isdigit() else 0
