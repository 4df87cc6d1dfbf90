"""What the watches have reported: the newest known state of every child, by owner. Thread-safe.

A pass reads Jobs, Pods and Deployments from here and lists only Services. Three things keep it honest: it is filled by
a list before the first pass, an older resourceVersion never replaces a newer one, and a periodic list drops what a
watch missed.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Any, Final

from embedding_operator.resource.labels import OWNER_LABEL

Raw = Mapping[str, Any]
Key = tuple[str, str]  # namespace, name of the resource
KINDS: Final = ("Job", "Pod", "Deployment")
UNWATCHED: Final = ("NIMService",)  # of a CRD that may not be there: listed where a resource has some
# A Deployment is compared with what was asked for; of the others a few fields are looked at (views.py).
_SPEC_READ: Final[Mapping[str, tuple[str, ...]]] = {
    "Job": ("suspend", "completions"),
    "Pod": ("nodeName", "initContainers"),
}
_INIT_READ: Final = ("name", "restartPolicy")  # which of them are sidecars, that run as long as the pod does


class ChildCache:
    """Children by owner and kind."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        kinds = (*KINDS, *UNWATCHED)
        self._objects: dict[str, dict[Key, dict[str, Raw]]] = {kind: {} for kind in kinds}
        self._gone: dict[str, set[str]] = {kind: set() for kind in kinds}  # uids, until the next full list

    def put(self, kind: str, raw: Raw) -> Key | None:
        """Remember an object; its owner's key, or None when it has no owner of ours."""
        key = owner_key(raw)
        if key is None:
            return None
        raw = _slim(kind, raw)
        with self._lock:
            if raw["metadata"].get("uid") in self._gone[kind]:  # a reply or an event that was overtaken
                return key
            known = self._objects[kind].setdefault(key, {})
            old = known.get(raw["metadata"]["name"])
            if old is None or _version(raw) >= _version(old):
                known[raw["metadata"]["name"]] = raw
        return key

    def drop(self, kind: str, raw: Raw) -> Key | None:
        """Forget a deleted object, unless another of its name has taken its place."""
        key = owner_key(raw)
        if key is None:
            return None
        with self._lock:
            self._gone[kind].add(raw["metadata"].get("uid", ""))
            known = self._objects[kind].get(key, {})
            old = known.get(raw["metadata"]["name"])
            if old is not None and old["metadata"].get("uid") == raw["metadata"].get("uid"):
                del known[raw["metadata"]["name"]]
                if not known:
                    self._objects[kind].pop(key, None)
        return key

    def children(self, kind: str, key: Key) -> list[Raw]:
        with self._lock:
            return list(self._objects[kind].get(key, {}).values())

    def uids(self, kind: str) -> set[str]:
        """Of everything known, to be handed to `prune` after a list that started later."""
        with self._lock:
            return {raw["metadata"].get("uid", "") for known in self._objects[kind].values() for raw in known.values()}

    def prune(self, kind: str, known_before: set[str], listed: Iterable[Raw]) -> None:
        """Take in a full list, and forget what was known before it was asked for and is not in it."""
        found = [_slim(kind, raw) for raw in listed]  # page by page, so that no more than a page is there in full
        gone = known_before - {raw["metadata"].get("uid", "") for raw in found}
        with self._lock:
            overtaken, self._gone[kind] = self._gone[kind], set()
            for key in list(self._objects[kind]):
                known = self._objects[kind][key]
                for name in [n for n, raw in known.items() if raw["metadata"].get("uid", "") in gone]:
                    del known[name]
                if not known:
                    del self._objects[kind][key]
        for raw in found:
            if raw["metadata"].get("uid") not in overtaken:
                self.put(kind, raw)


def _slim(kind: str, raw: Raw) -> Raw:
    """What views and comparisons read: the rest of thousands of objects would only fill the memory."""
    body = {**raw, "metadata": {key: value for key, value in raw["metadata"].items() if key != "managedFields"}}
    managers = {item.get("manager", "") for item in raw["metadata"].get("managedFields") or ()}
    if kind == "Deployment" and managers:  # who changed it, without the fields
        body["metadata"]["managedFields"] = [{"manager": name} for name in sorted(managers)]
    if kind in _SPEC_READ and isinstance(raw.get("spec"), Mapping):
        body["spec"] = {key: raw["spec"][key] for key in _SPEC_READ[kind] if key in raw["spec"]}
    if "initContainers" in (body.get("spec") or {}) and kind == "Pod":
        inits = body["spec"]["initContainers"] or ()
        body["spec"]["initContainers"] = [{key: item[key] for key in _INIT_READ if key in item} for item in inits]
    return body


def owner_key(raw: Raw) -> Key | None:
    meta = raw.get("metadata", {})
    owner = (meta.get("labels") or {}).get(OWNER_LABEL)
    return (meta["namespace"], owner) if owner else None


def _version(raw: Raw) -> int:
    # Opaque in general, but etcd's revision in every API server there is; 0 compares as oldest.
    text = str(raw.get("metadata", {}).get("resourceVersion", "0"))
    return int(text) if text.isdigit() else 0
