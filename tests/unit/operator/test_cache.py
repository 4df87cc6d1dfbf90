"""What the watches have told: never older than what was known, never more than there is."""

from __future__ import annotations

from typing import Any

import pytest

from embedding_operator.cluster.cache import ChildCache
from embedding_operator.objects.views import view_pod
from embedding_operator.resource.labels import OWNER_LABEL

KEY = ("team-a", "handbook")


def raw(name: str = "job-1", version: int = 1, uid: str = "u1", owner: str | None = "handbook") -> dict[str, Any]:
    labels = {} if owner is None else {OWNER_LABEL: owner}
    meta = {"namespace": "team-a", "name": name, "uid": uid, "resourceVersion": str(version), "labels": labels}
    return {"metadata": meta}


def versions(cache: ChildCache, key: tuple[str, str] = KEY) -> list[str]:
    return [item["metadata"]["resourceVersion"] for item in cache.children("Job", key)]


def test_an_object_is_found_by_its_owner() -> None:
    cache = ChildCache()
    assert cache.put("Job", raw()) == KEY
    assert cache.put("Job", raw("job-2", owner="other")) == ("team-a", "other")
    assert len(cache.children("Job", KEY)) == 1
    assert cache.children("Pod", KEY) == []


def test_an_object_without_an_owner_of_ours_is_not_kept() -> None:
    cache = ChildCache()
    assert cache.put("Job", raw(owner=None)) is None
    assert cache.drop("Job", raw(owner=None)) is None
    assert cache.uids("Job") == set()


def test_an_older_version_never_replaces_a_newer_one() -> None:
    cache = ChildCache()
    for version in (5, 3, 10, 9):
        cache.put("Job", raw(version=version))
    assert versions(cache) == ["10"]


def test_versions_are_compared_as_numbers() -> None:
    cache = ChildCache()
    cache.put("Job", raw(version=9))
    cache.put("Job", raw(version=10))
    assert versions(cache) == ["10"]


def test_a_deletion_that_comes_late_does_not_take_the_successor_with_it() -> None:
    cache = ChildCache()
    cache.put("Job", raw(version=1, uid="old"))
    cache.put("Job", raw(version=7, uid="new"))
    cache.drop("Job", raw(version=6, uid="old"))
    assert versions(cache) == ["7"]
    cache.drop("Job", raw(version=8, uid="new"))
    assert versions(cache) == []


def test_news_of_the_dead_do_not_bring_them_back() -> None:
    cache = ChildCache()
    cache.put("Job", raw(version=1))
    before = cache.uids("Job")
    cache.drop("Job", raw(version=3))
    cache.put("Job", raw(version=2))  # the reply to a write that the deletion overtook
    cache.prune("Job", before, [raw(version=2)])  # so did it a list
    assert versions(cache) == []


def test_a_list_takes_away_what_the_watch_missed_and_leaves_what_came_since() -> None:
    cache = ChildCache()
    cache.put("Job", raw("gone", 1, "u1"))
    cache.put("Job", raw("stays", 2, "u2"))
    before = cache.uids("Job")
    cache.put("Job", raw("newer", 9, "u3"))  # heard of while the list was under way
    cache.prune("Job", before, [raw("stays", 3, "u2"), raw("missed", 4, "u4")])
    assert sorted(item["metadata"]["name"] for item in cache.children("Job", KEY)) == ["missed", "newer", "stays"]


def test_a_list_that_is_older_than_an_event_does_not_turn_back_time() -> None:
    cache = ChildCache()
    cache.put("Job", raw(version=9))
    cache.prune("Job", cache.uids("Job"), [raw(version=4)])
    assert versions(cache) == ["9"]


def test_what_is_handed_out_does_not_change_under_the_reader() -> None:
    cache = ChildCache()
    cache.put("Job", raw())
    seen = cache.children("Job", KEY)
    cache.drop("Job", raw())
    assert len(seen) == 1
    assert cache.children("Job", KEY) == []


@pytest.mark.parametrize("kind", ["Job", "Pod", "Deployment"])
@pytest.mark.parametrize("way", ["put", "prune"])
def test_what_nobody_reads_is_not_kept(kind: str, way: str) -> None:
    template = {"spec": {"containers": ["many words"]}}
    spec = {"suspend": True, "completions": 2, "nodeName": "node-1", "template": template, "containers": ["many words"]}
    full = {**raw(), "spec": spec, "status": {"phase": "Running"}}
    entry = {"manager": "kubectl", "fieldsV1": {"many": "fields"}}
    full["metadata"] |= {"managedFields": [entry], "annotations": {"a": "b"}}
    cache = ChildCache()
    if way == "put":
        cache.put(kind, full)
    else:
        cache.prune(kind, set(), iter([full]))
    (kept,) = cache.children(kind, KEY)
    managers = [{"manager": "kubectl"}] if kind == "Deployment" else None
    assert kept["metadata"].get("managedFields") == managers, "of a Deployment it is told who changed it"
    assert kept["metadata"]["annotations"] == {"a": "b"}
    assert kept["status"] == {"phase": "Running"}
    assert ("many words" in str(kept)) == (kind == "Deployment")
    assert full["spec"] is spec, "what was handed in belongs to somebody else"
    assert "managedFields" in full["metadata"]


def test_a_native_sidecar_is_known_as_one_from_what_is_kept_of_its_pod() -> None:
    """Otherwise its pod would seem to wait for it, and what the stage's own container waits for would not be said."""
    pod = raw("pod")
    pod["metadata"] |= {"creationTimestamp": "2026-01-01T00:00:00Z"}
    proxy = {"name": "istio-proxy", "image": "many words", "restartPolicy": "Always"}
    stuck = {"name": "stage", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such tag"}}}
    runs = {"name": "istio-proxy", "started": True, "state": {"running": {}}}
    pod["spec"] = {"initContainers": [proxy], "containers": []}
    pod["status"] = {"phase": "Pending", "initContainerStatuses": [runs], "containerStatuses": [stuck]}
    cache = ChildCache()
    cache.put("Pod", pod)
    (kept,) = cache.children("Pod", KEY)
    assert view_pod(kept).blocked_by == ""
    assert "many words" not in str(kept)
