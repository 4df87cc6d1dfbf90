"""Work on several items at once, in threads."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

_POLL_S: Final = 0.5
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def in_parallel(
    work: Callable[[_Item], _Result],
    take: Callable[[], _Item | None],
    between: Callable[[], None],
    at_once: int,
) -> Iterator[tuple[int, _Result]]:
    """(number of the item, its result) as they finish. Raises the first error of any.

    `take` gives the next item, or None for none now; it is asked again after each result, and the work ends when it
    gives none while nothing is under way. `between` is called in between, and may raise to give up.

    Its own daemon threads, not an executor: at the end of the process an executor waits for calls under way,
    which can take longer than a pod that was asked to stop has left.
    """
    tasks: queue.SimpleQueue[tuple[int, _Item] | None] = queue.SimpleQueue()
    answers: queue.SimpleQueue[tuple[int, _Result | Exception]] = queue.SimpleQueue()

    def serve() -> None:
        while (task := tasks.get()) is not None:
            try:
                answers.put((task[0], work(task[1])))
            except Exception as error:  # handed to the caller, who raises it
                answers.put((task[0], error))

    for _ in range(at_once):
        threading.Thread(target=serve, daemon=True).start()
    given = under_way = 0
    try:
        while True:
            while under_way < at_once and (item := take()) is not None:
                tasks.put((given, item))
                given += 1
                under_way += 1
            if not under_way:
                return
            between()
            try:
                number, answer = answers.get(timeout=_POLL_S)
            except queue.Empty:
                continue
            under_way -= 1
            if isinstance(answer, Exception):
                raise answer
            yield number, answer
    finally:
        for _ in range(at_once):
            tasks.put(None)
