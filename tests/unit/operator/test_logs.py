"""Log tails are read apart from the passes, and a node that hangs is left alone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from unit.operator.builders import a_pod

from embedding_operator.cluster import logs as logs_module
from embedding_operator.cluster.cache import Key
from embedding_operator.cluster.logs import LogTails
from embedding_operator.objects.pods import PodView

KEY = ("team-a", "handbook")


def pod(name: str, node: str = "node-1") -> PodView:
    return a_pod(name=name, uid=f"uid-{name}", node=node, started=True)


class Desk:
    """Log tails whose reads are done by hand, one call of `work` a node."""

    def __init__(self) -> None:
        self.now = 0.0
        self.answers: dict[str, str | None] = {}
        self.read: list[str] = []
        self.rung: list[Key] = []
        self.waiting: list[Callable[[], None]] = []
        self.logs = LogTails(read=self._read, submit=self.waiting.append, ring=self.rung.append, clock=lambda: self.now)

    def _read(self, namespace: str, name: str, lines: int) -> str | None:
        self.read.append(name)
        return self.answers.get(name, f"tail of {name}")

    def work(self) -> None:
        waiting, self.waiting[:] = list(self.waiting), []
        for task in waiting:
            task()


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_a_pass_takes_what_is_known_and_is_rung_for_more(desk: Desk) -> None:
    assert desk.logs.newest(KEY, pod("a")) == ""
    assert desk.rung == []
    desk.work()
    assert desk.rung == [KEY]
    assert desk.logs.newest(KEY, pod("a")) == "tail of a"


def test_a_pod_is_read_again_only_after_a_while_and_the_same_words_do_not_ring(desk: Desk) -> None:
    desk.logs.newest(KEY, pod("a"))
    desk.work()
    desk.logs.newest(KEY, pod("a"))
    desk.work()
    assert desk.read == ["a"]
    desk.now = 10
    desk.logs.newest(KEY, pod("a"))
    desk.logs.newest(KEY, pod("a"))
    desk.work()
    assert desk.read == ["a", "a"]
    assert desk.rung == [KEY]


def test_a_node_is_read_from_by_one_at_a_time_and_others_beside_it(desk: Desk) -> None:
    for name in ("a", "b", "c"):
        desk.logs.newest(KEY, pod(name))
    desk.logs.newest(KEY, pod("d", "node-2"))
    assert len(desk.waiting) == 2
    desk.work()
    assert desk.read == ["a", "b", "c", "d"]


def test_a_node_that_does_not_answer_is_left_alone_for_a_minute(desk: Desk) -> None:
    desk.answers["a"] = None
    desk.logs.newest(KEY, pod("a"))
    desk.logs.newest(KEY, pod("b"))
    desk.work()
    assert desk.read == ["a"]
    desk.now = 59
    desk.logs.newest(KEY, pod("b"))
    desk.logs.newest(KEY, pod("c", "node-2"))
    desk.work()
    assert desk.read == ["a", "c"]
    desk.now = 61
    desk.logs.newest(KEY, pod("b"))
    desk.work()
    assert desk.read == ["a", "c", "b"]


def test_a_read_that_raises_is_no_answer(desk: Desk) -> None:
    desk.logs.read = lambda *_: 1 / 0  # type: ignore[assignment, return-value]
    assert desk.logs.newest(KEY, pod("a")) == ""
    desk.work()
    assert desk.logs.newest(KEY, pod("a")) == ""


def test_only_so_many_are_kept(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs_module, "_KEPT", 2)
    for name in ("a", "b", "c"):
        desk.logs.newest(KEY, pod(name))
        desk.work()
    assert desk.logs.newest(KEY, pod("c")) == "tail of c"
    assert desk.logs.newest(KEY, pod("a")) == ""


def test_last_words_are_read_once_after_the_end(desk: Desk) -> None:
    desk.logs.submit = lambda task: task()
    desk.answers["a"] = "running"
    assert desk.logs.newest(KEY, pod("a")) == "running"
    desk.answers["a"] = "Traceback"
    assert desk.logs.last(KEY, pod("a")) == "Traceback"
    assert desk.logs.last(KEY, pod("a")) == "Traceback"
    assert desk.read == ["a", "a"]


def test_last_words_that_do_not_come_are_what_is_known(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs_module, "_LAST_WAIT_S", 0)
    desk.answers["a"] = "running"
    desk.logs.newest(KEY, pod("a"))
    desk.work()
    desk.now = 10
    assert desk.logs.last(KEY, pod("a")) == "running"


def test_what_was_read_in_an_earlier_term_is_forgotten(desk: Desk) -> None:
    """Another replica led meanwhile, and has told of more than this one knows."""
    desk.answers["a"] = "progress 40"
    desk.logs.newest(KEY, pod("a"))
    desk.logs.last(KEY, pod("b", "node-2"))
    desk.work()
    assert desk.logs.newest(KEY, pod("a")) == "progress 40"
    desk.logs.forget()
    desk.answers["a"] = "progress 75"
    assert desk.logs.newest(KEY, pod("a")) == "", "also a moment later"
    desk.work()
    assert desk.logs.newest(KEY, pod("a")) == "progress 75"
    assert desk.logs.last(KEY, pod("b", "node-2")) == "tail of b", "whose pod has ended: nothing else is to come"


def test_a_read_that_is_under_way_when_all_is_forgotten_is_taken(desk: Desk) -> None:
    desk.logs.newest(KEY, pod("a"))
    desk.logs.forget()
    desk.work()
    assert desk.logs.newest(KEY, pod("a")) == "tail of a"


def test_a_hung_node_holds_up_no_pass() -> None:
    """With threads: passes over forty pods of a node that hangs, and one of another node, end while it hangs."""
    hang, answered = threading.Event(), threading.Event()

    def read(namespace: str, name: str, lines: int) -> str | None:
        if name == "well":
            return "tail"
        assert hang.wait(30)
        return None

    with ThreadPoolExecutor(2) as threads:
        logs = LogTails(read=read, submit=threads.submit, ring=lambda key: answered.set(), clock=lambda: 0.0)
        for number in range(40):
            assert logs.newest(KEY, pod(str(number), "dead")) == ""
        logs.newest(KEY, pod("well", "alive"))
        assert answered.wait(30)
        hang.set()
