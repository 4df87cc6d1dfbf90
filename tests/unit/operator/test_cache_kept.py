"""What is kept of an object, which change of it is news, and what is read from what is kept."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from unit.operator.cached import KEY, raw, versions

from embedding_operator.cluster.cache import Cache
from embedding_operator.objects.pods import view_pod
from embedding_operator.resource.api import MANAGER

SCHEDULED = {"type": "PodScheduled", "status": "True"}
STATUS = {"conditions": [SCHEDULED], "phase": "Running"}
ONE = {"replicas": 1}
NEWS: list[tuple[str, dict[str, Any], dict[str, Any], bool]] = [
    ("Job", {"status": {"active": 1}}, {"status": {"active": 1, "ready": 1}}, False),
    ("Job", {}, {"status": {"conditions": [{"type": "Complete", "status": "True"}]}}, True),
    ("Job", {"spec": {"suspend": True}}, {"spec": {"suspend": False}}, True),
    ("Pod", {"status": STATUS}, {"status": {**STATUS, "podIP": "10.0.0.7"}}, False),
    (
        "Pod",
        {"status": STATUS},
        {"status": {**STATUS, "conditions": [SCHEDULED, {"type": "Ready"}]}},
        False,
    ),
    ("Pod", {"status": STATUS}, {"status": {**STATUS, "phase": "Succeeded"}}, True),
    (
        "Deployment",
        {"status": {"replicas": 1}},
        {"status": {"replicas": 1, "conditions": [{"type": "Available"}]}},
        False,
    ),
    ("Deployment", {"status": ONE}, {"status": {**ONE, "availableReplicas": 1}}, True),
    ("Service", {"spec": {"selector": {"a": "b"}}}, {"spec": {"selector": {"a": "c"}}}, True),
    ("Service", {}, {"status": {"loadBalancer": {}}}, False),
    ("PersistentVolumeClaim", {"status": {"phase": "Pending"}}, {"status": {"phase": "Bound"}}, False),
    ("EmbeddingFineTune", {"status": {"phase": "Running"}}, {"status": {"phase": "Ready"}}, True),
]


@pytest.mark.parametrize(("kind", "old", "new", "news"), NEWS)
def test_only_what_is_read_is_news(kind: str, old: dict[str, Any], new: dict[str, Any], *, news: bool) -> None:
    cache = Cache()
    first = cache.put(kind, {**raw(version=1), **old})
    assert first is not None
    assert cache.put(kind, {**raw(version=1), **old}) is None
    assert cache.put(kind, {**raw(version=2), **new}) == (first if news else None)
    assert cache.put(kind, {**raw(version=1), **old}) is None
    assert versions(cache, first, kind) == ["2"]


def test_what_the_operator_wrote_is_no_news_when_the_watch_tells_of_it() -> None:
    cache = Cache()
    answer = raw(version=4)
    cache.put("Job", answer)
    assert cache.put("Job", answer) is None


def test_a_resource_can_be_written_back_as_it_is_kept() -> None:
    cache = Cache()
    notes = {"kubectl.kubernetes.io/last-applied-configuration": "many words", "a": "b"}
    full = {**raw("handbook", 7, owner=None), "spec": {"a": [1]}, "status": {"phase": "Ready"}}
    full["metadata"] |= {"annotations": notes, "managedFields": [{"manager": "kubectl"}]}
    assert cache.put("EmbeddingFineTune", full) == KEY
    assert cache.resource(KEY) == {
        "apiVersion": "embedding-operator.dev/v1alpha1",
        "kind": "EmbeddingFineTune",
        "metadata": {
            "namespace": "team-a",
            "name": "handbook",
            "uid": "u1",
            "resourceVersion": "7",
            "labels": {},
            "annotations": {"a": "b"},
        },
        "spec": {"a": [1]},
        "status": {"phase": "Ready"},
    }
    cache.drop("EmbeddingFineTune", full)
    assert cache.resource(KEY) is None


@pytest.mark.parametrize(
    ("status", "settled"),
    [
        ({}, False),
        ({"phase": "Ready", "observedGeneration": 2}, True),
        ({"phase": "Ready", "observedGeneration": 1}, False),
    ],
)
def test_a_resource_that_is_ready_for_its_spec_is_settled(status: dict[str, Any], *, settled: bool) -> None:
    cache = Cache()
    one = {**raw("handbook", owner=None), "status": status}
    one["metadata"]["generation"] = 2
    cache.put("EmbeddingFineTune", one)
    assert cache.resources() == {KEY: settled}


def test_objects_that_resemble_each_other_take_little_room_and_come_out_whole() -> None:
    """Whatever came first: a resource without a status, or one with all of it."""
    cache = Cache()
    words = {f"field-{number}": f"value {number * number}" for number in range(500)}
    for number in range(20):
        one = {**raw(f"held-{number}", number + 1, f"u{number}", owner=None), "status": words if number > 3 else {}}
        cache.put("EmbeddingFineTune", one)
    assert all((cache.resource(("team-a", f"held-{n}")) or {})["status"] == (words if n > 3 else {}) for n in range(20))
    kept = [item.packed for known in cache._objects["EmbeddingFineTune"].values() for item in known.values()]
    assert sum(map(len, kept[5:])) < len(str(words)) / 2


def test_the_state_of_a_resource_changes_with_it_and_its_children_alone() -> None:
    cache = Cache()
    states = [cache.state(KEY)]
    for kind, one in (("EmbeddingFineTune", raw("handbook", owner=None)), ("Job", raw()), ("Job", raw(version=2))):
        cache.put(kind, one)
        states.append(cache.state(KEY))
    assert len(set(states)) == 4
    cache.put("Job", raw("other", 9, "u9", owner="other"))
    cache.put("Job", raw(version=2))
    assert cache.state(KEY) == states[-1]
    cache.drop("Job", raw(version=3))
    assert cache.state(KEY) == states[1]


def test_it_is_known_how_long_ago_the_api_server_told_of_an_object() -> None:
    now = 100.0
    cache = Cache(clock=lambda: now)
    cache.put("Job", raw(version=2))
    now = 109.0
    cache.put("Job", raw(version=1))
    assert cache.confirmed_ago_s("Job", KEY, "job-1") == 9
    cache.put("Job", raw(version=2))
    assert cache.confirmed_ago_s("Job", KEY, "job-1") == 0
    now = 120.0
    for as_of, ago_s in ((-math.inf, 11), (104.0, 11), (115.0, 5)):
        cache.put("Job", raw(version=2), as_of=as_of)
        assert cache.confirmed_ago_s("Job", KEY, "job-1") == ago_s


def test_what_is_handed_out_does_not_change_under_the_reader() -> None:
    cache = Cache()
    cache.put("Job", raw())
    seen = cache.children("Job", KEY)
    cache.drop("Job", raw())
    assert len(seen) == 1
    assert cache.children("Job", KEY) == []


@pytest.mark.parametrize("kind", ["Job", "Pod", "Deployment", "Service"])
def test_what_nobody_reads_is_not_kept(kind: str) -> None:
    template = {"spec": {"containers": ["many words"]}}
    spec = {"suspend": True, "completions": 2, "nodeName": "node-1", "template": template, "containers": ["many words"]}
    full = {**raw(), "spec": spec, "status": {"phase": "Running"}}
    entry = {"manager": "kubectl", "fieldsV1": {"f:spec": {}}}
    of_nobody_else = [{**entry, "manager": MANAGER}, {**entry, "manager": "kubelet", "subresource": "status"}]
    full["metadata"] |= {"managedFields": [{**entry, "time": "1"}, *of_nobody_else], "annotations": {"a": "b"}}
    cache = Cache()
    cache.put(kind, full)
    (kept,) = cache.children(kind, KEY)
    restored = kind in ("Deployment", "Service")
    assert kept["metadata"].get("managedFields") == ([entry] if restored else None), (
        "of these it is told who changed them"
    )
    assert kept["metadata"]["annotations"] == {"a": "b"}
    assert kept.get("status") == {"Deployment": {}, "Service": None}.get(kind, {"phase": "Running"})
    assert ("many words" in str(kept)) == restored
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
    cache = Cache()
    cache.put("Pod", pod)
    (kept,) = cache.children("Pod", KEY)
    assert view_pod(kept).blocked_by == ""
    assert "many words" not in str(kept)


@pytest.mark.parametrize("whole", [False, True], ids=["versions", "objects"])
def test_a_list_keeps_nothing_of_what_is_known(*, whole: bool) -> None:
    """After a restart of the API server all kinds are listed at once, and memory stays as large as it once was."""
    count, cache = 2000, Cache()
    for number in range(count):
        cache.put("Job", raw(f"job-{number}", uid=f"uid-{number}", owner=f"name-{number}"))
    held: list[int] = []

    def listed() -> Iterator[dict[str, Any]]:
        for number in range(count):
            if number in (1, count - 1):
                held.append(sys.getallocatedblocks())
            yield raw(f"job-{number}", uid=f"uid-{number}", owner=f"name-{number}")

    if whole:
        cache.fill("Job", listed())
    else:
        assert cache.compare("Job", listed()) == ([], set())
    assert held[1] - held[0] < count // 10
    assert len(cache.known("Job")) == count
