"""Objects as the watches tell of them, and how the tests of the cache look at what is known."""

from __future__ import annotations

from typing import Any

from embedding_operator.cluster.cache import Cache
from embedding_operator.resource.labels import OWNER_LABEL

KEY = ("team-a", "handbook")


def raw(name: str = "job-1", version: int = 1, uid: str = "u1", owner: str | None = "handbook") -> dict[str, Any]:
    labels = {} if owner is None else {OWNER_LABEL: owner}
    meta = {"namespace": "team-a", "name": name, "uid": uid, "resourceVersion": str(version), "labels": labels}
    return {"metadata": meta}


def versions(cache: Cache, key: tuple[str, str] = KEY, kind: str = "Job") -> list[str]:
    return [item["metadata"]["resourceVersion"] for item in cache.children(kind, key)]
