"""Lists of versions give way to passes, and come the less often the longer they take."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from datetime import UTC, datetime
from typing import Any, Final

import pytest
from simulation.fake_cluster import NAMESPACE, FakeCluster

from embedding_operator.cluster.cache import KINDS, UNWATCHED, Cache
from embedding_operator.cluster.errors import Forbidden, Unavailable
from embedding_operator.cluster.lists import Ending, Lists, interval_s
from embedding_operator.resource.api import KIND
from embedding_operator.resource.labels import OWNER_LABEL

VERSION = "7"  # of a list


class Many(FakeCluster):
    """Has so many resources. `cpu_s` is what a listed object has cost so far: a millisecond each."""

    def __init__(self, number: int) -> None:
        super().__init__(lambda: datetime(2026, 1, 1, tzinfo=UTC))
        self.number, self.cpu = number, 0.0

    def cpu_s(self) -> float:
        return self.cpu

    def _all(self, kind: str) -> Generator[dict[str, Any], None, str]:
        for number in range(self.number if kind == KIND else 0):
            self.cpu += 0.001
            name = f"held-{number}"
            yield {"metadata": {"namespace": NAMESPACE, "name": name, "uid": name, "resourceVersion": "1"}}
        return VERSION

    def each(self, kind: str, *_: Any, **__: Any) -> Generator[dict[str, Any], None, str]:
        return self._all(kind)

    def versions(self, kind: str, *_: Any, **__: Any) -> Generator[dict[str, Any], None, str]:
        return self._all(kind)


def filled(number: int, rests: list[float], *, ends_at: int = -1) -> Lists:
    """`ends_at`: the rest at which the process ends."""
    cluster = Many(number)

    def rest(seconds: float) -> bool:
        rests.append(round(seconds, 3))
        return len(rests) == ends_at

    found = Lists(cluster=cluster, cache=Cache(), rest=rest, cpu_s=cluster.cpu_s)
    found.fill()
    return found


@pytest.mark.parametrize(
    ("number", "rests"), [(0, []), (499, []), (500, [4.5]), (1200, [4.5, 4.5])], ids=["none", "few", "a page", "many"]
)
def test_a_list_of_versions_takes_a_tenth_of_a_core(number: int, rests: list[float]) -> None:
    seen: list[float] = []
    found = filled(number, seen)
    assert seen == []  # the first one is waited for
    assert found.catch_up() == set()
    assert seen == rests


def test_a_list_that_is_given_up_takes_nothing_for_gone() -> None:
    found = filled(1200, [], ends_at=1)
    with pytest.raises(Ending):
        found.catch_up()
    assert len(found.cache.resources()) == 1200


def test_a_right_that_is_taken_away_leaves_the_other_kinds_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    found = filled(3, [])
    refused = Forbidden("list", "Job", "", "", "no more")
    versions, asked = found.cluster.versions, []

    def some(kind: str, *arguments: Any, **named: Any) -> Iterator[dict[str, Any]]:
        asked.append(kind)
        if kind == "Job":
            raise refused
        return versions(kind, *arguments, **named)

    monkeypatch.setattr(found.cluster, "versions", some)
    found.catch_up()
    assert asked == list(KINDS)
    assert found.cache.unheard == {("Job", None)}, "passes ask for their own, and say which right is missing"
    found.catch_up()
    assert found.cache.unheard == set(), "it is listed again, once it may be"
    refused = Forbidden("list", KIND, "", "", "no more")
    monkeypatch.setattr(found.cluster, "versions", lambda *_, **__: (_ for _ in ()).throw(refused))
    with pytest.raises(Forbidden):
        found.catch_up()


@pytest.mark.parametrize(("cpu_s", "seconds"), [(0.0, 300), (1.4, 300), (1.6, 320), (9.6, 1920)])
def test_lists_take_half_a_percent_of_a_core_over_time(cpu_s: float, seconds: float) -> None:
    assert interval_s(300, cpu_s) == pytest.approx(seconds)


def test_a_watch_may_go_on_from_the_first_list_once() -> None:
    found = filled(3, [])
    assert [found.since(kind, None) for kind in KINDS] == [VERSION] * len(KINDS)
    assert [found.since(kind, None) for kind in KINDS] == [""] * len(KINDS), "one that could not has to list"
    found.cache.unheard.add(("Job", None))
    found.catch_up()
    assert [found.since(kind, None) for kind in KINDS] == [""] * len(KINDS), "its watch has begun by itself"


def test_a_watch_of_a_namespace_goes_on_from_the_list_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Many(0)
    found = Lists(cluster=cluster, cache=Cache(), rest=lambda _: False, namespaces=("a", "b"))

    def some(kind: str, namespace: str, **_: Any) -> Generator[dict[str, Any], None, str]:
        if (kind, namespace) == ("Job", "b"):
            raise Forbidden("list", "Job", "b", "", "no")
        yield from ()
        return f"of {namespace}"

    monkeypatch.setattr(cluster, "each", some)
    found.fill()
    assert [found.since(KIND, namespace) for namespace in ("a", "b", None)] == ["of a", "of b", ""]
    assert [found.since("Job", namespace) for namespace in ("a", "b")] == ["of a", ""], "nothing was listed there"


class Several(FakeCluster):
    """Has a resource with a Job in each of two namespaces. `refused` are the kinds and namespaces not to be listed."""

    def __init__(self) -> None:
        super().__init__(lambda: datetime(2026, 1, 1, tzinfo=UTC))
        self.refused: set[tuple[str, str]] = set()
        for namespace in HERE, GONE:
            self.make(KIND, namespace, "held")
            self.make("Job", namespace, "held-1")

    def make(self, kind: str, namespace: str, name: str) -> None:
        self.add({"kind": kind, "metadata": {"namespace": namespace, "name": name, "labels": {OWNER_LABEL: "held"}}})

    def list(self, kind: str, namespace: str | None = None, **selectors: Any) -> list[dict[str, Any]]:
        if (kind, namespace) in self.refused:
            raise Forbidden("list", kind, namespace or "", "", "is forbidden")
        return super().list(kind, namespace, **selectors)


HERE, GONE = "here", "gone"
ALL_OF_IT: Final = {(kind, GONE) for kind in (*KINDS, *UNWATCHED)}


def several(refused: set[tuple[str, str]], *, fill: bool = True) -> tuple[Several, Lists]:
    """Refused from the start on, or after the first list."""
    cluster = Several()
    found = Lists(cluster=cluster, cache=Cache(), rest=lambda _: False, namespaces=(HERE, GONE))
    if fill:
        found.fill()
    cluster.refused = refused
    return cluster, found


def test_a_watched_namespace_that_is_gone_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    """Its Role went with it. The others go on, what is known of it is kept, and it is said once."""
    caplog.set_level("INFO")
    cluster, found = several(ALL_OF_IT)
    cluster.make(KIND, HERE, "new")
    cluster.remove("Job", HERE, "held-1")
    assert found.catch_up() == {(HERE, "new"), (HERE, "held")}
    assert found.catch_up() == set()
    assert set(found.cache.resources()) == {(HERE, "held"), (HERE, "new"), (GONE, "held")}
    assert [found.cache.children("Job", (place, "held")) != [] for place in (HERE, GONE)] == [False, True]
    assert [found.cache.may_list("Job", place) for place in (HERE, GONE)] == [True, False], "passes ask for their own"
    assert caplog.text.count("namespace gone is passed over") == 1
    cluster.refused = set()
    cluster.make(KIND, GONE, "new")
    cluster.remove("Job", GONE, "held-1")
    found.catch_up()
    assert (GONE, "new") in found.cache.resources()
    assert found.cache.children("Job", (GONE, "held")) == []
    assert found.cache.unheard == set()
    assert caplog.text.count("namespace gone is listed again") == 1


def test_a_start_does_not_wait_for_a_namespace_that_is_gone() -> None:
    cluster, found = several(ALL_OF_IT, fill=False)
    found.fill()
    assert set(found.cache.resources()) == {(HERE, "held")}
    assert [found.since(kind, HERE) != "" for kind in KINDS] == [True] * len(KINDS)
    assert [found.since(kind, GONE) for kind in KINDS] == [""] * len(KINDS), "its watches begin with lists of their own"
    cluster.refused = set()
    found.catch_up()
    assert set(found.cache.resources()) == {(HERE, "held"), (GONE, "held")}


def test_a_kind_that_is_refused_in_one_namespace_is_compared_in_the_others() -> None:
    cluster, found = several({("Job", GONE)})
    cluster.remove("Job", HERE, "held-1")
    assert found.catch_up() == {(HERE, "held")}
    assert found.cache.unheard == {("Job", GONE)}


@pytest.mark.parametrize("begun", [False, True])
def test_a_right_that_is_missing_everywhere_shows(begun: bool) -> None:
    _, found = several({(KIND, HERE), (KIND, GONE)}, fill=begun)
    with pytest.raises(Forbidden):
        found.catch_up() if begun else found.fill()
    assert len(found.cache.resources()) == (2 if begun else 0)


def test_many_small_namespaces_give_way_to_passes_too() -> None:
    cluster, rests = Many(100), list[float]()
    names = [f"team-{number}" for number in range(12)]

    def rest(seconds: float) -> bool:
        rests.append(round(seconds, 3))
        return False

    found = Lists(cluster=cluster, cache=Cache(), rest=rest, cpu_s=cluster.cpu_s, namespaces=names)
    found.fill()
    found.catch_up()
    assert rests == [4.5, 4.5]


def test_a_watch_that_begins_anew_finds_what_it_missed() -> None:
    """In its own namespace alone; of another kind another watch tells."""
    cluster, found = several(set())
    for namespace in HERE, GONE:
        cluster.make(KIND, namespace, "new")
        cluster.make("Job", namespace, "held-2")
        cluster.remove("Job", namespace, "held-1")
    cluster.change(KIND, HERE, "held", lambda raw: raw.update(spec={"suspend": True}))
    version, concerned = found.begin_anew(KIND, HERE)
    assert version == str(cluster._version)
    assert concerned == {(HERE, "new"), (HERE, "held")}
    assert (GONE, "new") not in found.cache.resources()
    assert found.begin_anew("Job", HERE)[1] == {(HERE, "held")}
    names = [raw["metadata"]["name"] for raw in found.cache.children("Job", (HERE, "held"))]
    assert names == ["held-2"]
    assert found.begin_anew("Job", HERE)[1] == set()


def test_a_watch_that_may_begin_at_last_takes_in_everything() -> None:
    cluster, found = several({("Job", GONE)}, fill=False)
    cluster.refused = {("Job", GONE)}
    found.fill()
    with pytest.raises(Forbidden):
        found.begin_anew("Job", GONE)
    cluster.refused = set()
    assert found.begin_anew("Job", GONE)[1] == {(GONE, "held")}
    assert found.cache.unheard == set()
    assert found.cache.children("Job", (GONE, "held")) != []


def test_who_is_concerned_by_half_a_list_is_told_with_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster, found = several(set())
    cluster.make(KIND, HERE, "new-a")
    cluster.make(KIND, HERE, "new-b")
    cluster.remove(KIND, HERE, "held")
    real, fetched = cluster.list, []

    def some(kind: str, namespace: str | None = None, **selectors: Any) -> list[dict[str, Any]]:
        fetched.extend(["one"] * ("fields" in selectors and bool(selectors["fields"])))
        if len(fetched) == 2:
            fetched.append("refused")
            raise Unavailable("list", kind, namespace or "", "", "503")
        return real(kind, namespace, **selectors)

    monkeypatch.setattr(cluster, "list", some)
    with pytest.raises(Unavailable):
        found.begin_anew(KIND, HERE)
    assert found.begin_anew(KIND, HERE)[1] == {(HERE, "new-a"), (HERE, "new-b"), (HERE, "held")}


def test_a_watch_does_not_begin_anew_in_a_process_that_ends() -> None:
    _, found = several(set())
    object.__setattr__(found, "rest", lambda _: True)
    with pytest.raises(Ending):
        found.begin_anew(KIND, HERE)


@pytest.mark.parametrize("namespaces", [(), (HERE, GONE)], ids=["everywhere", "in two namespaces"])
def test_no_late_event_brings_back_a_job_when_all_watches_begin_anew(namespaces: tuple[str, ...]) -> None:
    cluster = Several()
    found = Lists(cluster=cluster, cache=Cache(), rest=lambda _: False, namespaces=namespaces)
    found.fill()
    late = cluster.change("Job", HERE, "held-1", lambda raw: raw.update(spec={"suspend": True}))
    cluster.remove("Job", HERE, "held-1")
    for namespace in namespaces or (None,):
        found.begin_anew("Job", namespace)
    found.catch_up()
    found.cache.put("Job", late)
    assert found.cache.children("Job", (HERE, "held")) == []
