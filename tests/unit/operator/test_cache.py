"""What the watches have told: never older than what was known, never more than there is."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest

from embedding_operator.cluster.cache import Cache
from embedding_operator.objects.pods import view_pod
from embedding_operator.resource.api import MANAGER
from embedding_operator.resource.labels import OWNER_LABEL

KEY = ("team-a", "handbook")


def raw(name: str = "job-1", version: int = 1, uid: str = "u1", owner: str | None = "handbook") -> dict[str, Any]:
    labels = {} if owner is None else {OWNER_LABEL: owner}
    meta = {"namespace": "team-a", "name": name, "uid": uid, "resourceVersion": str(version), "labels": labels}
    return {"metadata": meta}


def versions(cache: Cache, key: tuple[str, str] = KEY, kind: str = "Job") -> list[str]:
    return [item["metadata"]["resourceVersion"] for item in cache.children(kind, key)]


def test_an_object_is_found_by_its_owner() -> None:
    cache = Cache()
    assert cache.put("Job", raw()) == KEY
    assert cache.put("Job", raw("job-2", owner="other")) == ("team-a", "other")
    assert len(cache.children("Job", KEY)) == 1
    assert cache.children("Pod", KEY) == []


def test_an_object_without_an_owner_of_ours_is_not_kept() -> None:
    cache = Cache()
    assert cache.put("Job", raw(owner=None)) is None
    assert cache.drop("Job", raw(owner=None)) is None
    assert cache.known("Job") == set()


def test_an_older_version_never_replaces_a_newer_one() -> None:
    cache = Cache()
    for version in (5, 3, 10, 9):
        cache.put("Job", raw(version=version))
    assert versions(cache) == ["10"]


def test_versions_are_compared_as_numbers() -> None:
    cache = Cache()
    cache.put("Job", raw(version=9))
    cache.put("Job", raw(version=10))
    assert versions(cache) == ["10"]


def test_a_deletion_that_comes_late_does_not_take_the_successor_with_it() -> None:
    cache = Cache()
    cache.put("Job", raw(version=1, uid="old"))
    cache.put("Job", raw(version=7, uid="new"))
    cache.drop("Job", raw(version=6, uid="old"))
    assert versions(cache) == ["7"]
    cache.drop("Job", raw(version=8, uid="new"))
    assert versions(cache) == []


def test_news_of_the_dead_do_not_bring_them_back() -> None:
    cache = Cache()
    cache.put("Job", raw(version=1))
    cache.drop("Job", raw(version=3))
    cache.put("Job", raw(version=2))  # the reply to a write that the deletion overtook
    assert versions(cache) == []


def test_an_object_whose_label_comes_back_is_known_again() -> None:
    cache = Cache()
    cache.put("Job", raw(version=1))
    cache.drop("Job", raw(version=3))  # what a watch by label says of an object that lost it
    assert cache.put("Job", raw(version=4)) == KEY
    assert cache.put("Job", raw(version=4)) is None
    assert versions(cache) == ["4"]
    cache.drop("Job", raw(version=5))
    cache.fill("Job", [])
    assert cache.compare("Job", [raw(version=6)]) == ([("team-a", "job-1")], set())


def test_what_is_known_to_be_gone_does_not_come_back() -> None:
    cache = Cache()
    cache.put("Job", raw(version=1))
    cache.forget("Job", KEY, "job-1", "u1")  # nobody has it any more
    cache.put("Job", raw(version=2))  # an event of before
    assert versions(cache) == []


@pytest.mark.parametrize("by_versions", [True, False])
def test_nor_does_what_a_list_has_found_gone(by_versions: bool) -> None:
    cache = Cache()
    cache.put("Job", raw(version=1))
    take_in = cache.compare if by_versions else cache.fill
    take_in("Job", [], version=lambda: "5")
    cache.put("Job", raw(version=4))  # a watch that has ended told of it
    assert versions(cache) == []
    cache.put("Job", raw(version=6))  # somebody had taken its label off, and brings it back
    assert versions(cache) == ["6"]


def test_what_a_watch_tells_after_a_list_of_an_earlier_version_stays() -> None:
    for take_in in ("compare", "fill"):
        cache = Cache()
        cache.put("Job", raw(version=5))

        def listed(cache: Cache = cache) -> Iterator[dict[str, Any]]:
            cache.drop("Job", raw(version=6))  # its label was taken off, and came back
            cache.put("Job", raw(version=8))
            yield from ()

        getattr(cache, take_in)("Job", listed(), version=lambda: "7")
        assert versions(cache) == ["8"], take_in


def test_what_came_to_another_resource_and_back_during_a_list_stays() -> None:
    cache = Cache()
    cache.put("Job", raw(version=1))

    def listed() -> Iterator[dict[str, Any]]:
        yield raw(version=2, owner="other")
        cache.put("Job", raw(version=2, owner="other"))
        cache.put("Job", raw(version=6))

    cache.compare("Job", listed(), version=lambda: "5")
    assert versions(cache) == ["6"]


def test_a_late_deletion_takes_nothing_that_is_newer_and_takes_nothing_back() -> None:
    cache = Cache()
    cache.put("Job", raw(version=13))
    cache.drop("Job", raw(version=11))  # label off in 11, back in 13
    assert versions(cache) == ["13"]
    cache.compare("Job", [], version=lambda: "20")
    cache.drop("Job", raw(version=15))
    cache.put("Job", raw(version=14))
    assert versions(cache) == []


def test_a_slow_list_brings_back_nothing_that_a_quicker_one_did_not_find() -> None:
    cache = Cache()
    cache.put("Job", raw(version=5))

    def listed() -> Iterator[dict[str, Any]]:
        cache.drop("Job", raw(version=11))
        cache.compare("Job", [], version=lambda: "20")
        yield raw(version=5)

    cache.fill("Job", listed(), version=lambda: "10")
    assert versions(cache) == []


def test_what_is_gone_is_not_remembered_for_ever() -> None:
    now = [0.0]
    cache = Cache(lambda: now[0])
    for number in range(100):
        now[0] += 300
        cache.put("Job", raw(version=2 * number + 1, uid=f"u{number}"))
        cache.drop("Job", raw(version=2 * number + 2, uid=f"u{number}"))
        cache.compare("Job", [], version=lambda number=number: str(2 * number + 2))
    assert len(cache._gone["Job"]) <= 2


def test_an_object_whose_label_names_another_resource_moves_there() -> None:
    cache = Cache()
    cache.put("Job", raw(version=1))
    cache.put("Job", raw(version=2, owner="other"))
    assert cache.compare("Job", [raw(version=2, owner="other")], version=lambda: "5") == ([], {KEY})
    assert (versions(cache), versions(cache, ("team-a", "other"))) == ([], ["2"])
    cache.put("Job", raw(version=3, owner="other"))
    assert versions(cache, ("team-a", "other")) == ["3"]


def test_nor_does_a_list_that_began_before_they_died() -> None:
    cache = Cache()
    cache.put("Job", raw(version=1))

    def listed() -> Iterator[dict[str, Any]]:
        yield raw("job-2", 2, "u2")
        cache.drop("Job", raw(version=3))  # while the list is under way
        yield raw(version=1)

    cache.fill("Job", listed())
    assert [item["metadata"]["name"] for item in cache.children("Job", KEY)] == ["job-2"]


def test_a_list_takes_away_what_the_watch_missed_and_leaves_what_came_since() -> None:
    cache = Cache()
    cache.put("Job", raw("gone", 1, "u1"))
    cache.put("Job", raw("stays", 2, "u2"))

    def listed() -> Iterator[dict[str, Any]]:
        yield raw("stays", 3, "u2")
        cache.put("Job", raw("newer", 9, "u3"))  # heard of while the list is under way
        yield raw("missed", 4, "u4")

    cache.fill("Job", listed())
    assert sorted(item["metadata"]["name"] for item in cache.children("Job", KEY)) == ["missed", "newer", "stays"]


def test_a_list_that_is_older_than_an_event_does_not_turn_back_time() -> None:
    cache = Cache()
    cache.put("Job", raw(version=9))
    cache.fill("Job", [raw(version=4)])
    assert versions(cache) == ["9"]


def test_a_list_that_breaks_off_takes_nothing_away() -> None:
    cache = Cache()
    cache.put("Job", raw("known"))

    def broken() -> Iterator[dict[str, Any]]:
        yield raw("other", 2, "u2")
        raise OSError("broken off")

    with pytest.raises(OSError, match="broken off"):
        cache.fill("Job", broken())
    assert len(cache.children("Job", KEY)) == 2


def test_a_list_of_versions_finds_what_the_watch_missed() -> None:
    cache = Cache()
    for name, uid in (("gone", "u1"), ("same", "u2"), ("changed", "u3")):
        cache.put("Job", raw(name, 2, uid))
    listed = [
        raw("same", 2, "u2"),
        raw("changed", 5, "u3"),
        raw("new", 6, "u4", owner="other"),
        raw("not ours", 7, "u5", None),
    ]
    missed, lost = cache.compare("Job", listed)
    assert missed == [("team-a", "changed"), ("team-a", "new")]
    assert lost == {KEY}
    assert sorted(item["metadata"]["name"] for item in cache.children("Job", KEY)) == ["changed", "same"]


def test_what_a_watch_tells_while_versions_are_listed_was_not_missed() -> None:
    cache = Cache()

    def listed() -> Iterator[dict[str, Any]]:
        yield raw("late", 2, "u1")
        cache.put("Job", raw("late", 2, "u1"))

    assert cache.compare("Job", listed()) == ([], set())


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
