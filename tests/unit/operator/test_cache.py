"""What the watches and lists have told: never older than what was known, never more than there is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from unit.operator.cached import KEY, raw, versions

from embedding_operator.cluster.cache import Cache


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
