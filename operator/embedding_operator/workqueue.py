"""Keys of resources that need a look: each waits at most once, is never worked on twice at a time, and is retried
with a backoff of its own. All on one asyncio loop; the work itself runs in threads.

What somebody waits for comes first: events and what is due. A start and a resync look at everything else behind it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Final

from embedding_operator.cluster.cache import Key
from embedding_operator.cluster.errors import ClusterError, Conflict, Unavailable
from embedding_operator.metrics import METRICS

log = logging.getLogger(__name__)
Work = Callable[[Key], float | None]
_BACKOFF_FIRST_S: Final = 0.5
_BACKOFF_MAX_S: Final = 60.0
_CONFLICT_S: Final = 0.1
_CONFLICTS_AT_ONCE: Final = 3  # a webhook, or a contended quota, may answer 409 each time
# Least time between the starts of two passes over one resource that events ask for: what follows an event is gathered.
# The first event of a resource that was left in peace is answered at once.
_GATHER_S: Final = 0.1


class WorkQueue:
    """A deduplicating queue with delays. `work` returns the seconds after which it wants the key again.

    `written` tells which versions of objects the last pass over a key made itself: their events are no news.
    """

    def __init__(
        self,
        work: Work,
        *,
        concurrency: int,
        random: Random,
        written: Callable[[Key], Collection[str]] = lambda _: (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._work, self._concurrency, self._random = work, concurrency, random
        self._written, self._clock = written, clock
        self._first: dict[Key, float] = {}  # in their order: since when, monotonic
        self._later: dict[Key, float] = {}
        self._there = asyncio.Semaphore(0)  # one for each key that waits
        self._busy: set[Key] = set()
        self._again: dict[Key, set[str]] = {}  # rung while busy, with the versions that were heard of
        self._recent: dict[Key, float] = {}  # when the last pass began, of the last moments
        self._failures: dict[Key, int] = {}
        self._conflicts: dict[Key, int] = {}
        self._timers: dict[Key, asyncio.TimerHandle] = {}

    def add(self, key: Key, version: str = "") -> None:
        """Ask for a pass as soon as possible. `version` is that of the object whose event asks."""
        if key in self._busy:
            self._again.setdefault(key, set()).add(version)
            return
        passed = self._recent.get(key)
        left = 0.0 if passed is None else passed + _GATHER_S - asyncio.get_running_loop().time()
        if left > 0:
            self.add_after(key, left)
        else:
            self._put(key)

    def add_soon(self, key: Key, version: str = "") -> None:
        """Ask for a pass when what follows has been gathered too."""
        if key in self._busy:
            self._again.setdefault(key, set()).add(version)
        elif key not in self._first:
            self.add_after(key, _GATHER_S)

    def add_later(self, key: Key) -> None:
        """Ask for a pass when nothing else is to be done."""
        if key not in self._busy and key not in self._first and key not in self._later:
            self._later[key] = self._clock()
            self._there.release()
            self._told()

    def _put(self, key: Key) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        if key in self._busy:
            self._again.setdefault(key, set()).add("")
        elif key in self._later:
            self._first[key] = self._later.pop(key)
        elif key not in self._first:
            self._first[key] = self._clock()
            self._there.release()
        self._told()

    def _told(self) -> None:
        METRICS.queue_depth.set(len(self._first) + len(self._later))

    def oldest_s(self) -> float:
        """How long the first key has waited for a pass, seconds; from any thread. What comes later may wait."""
        since = list(self._first.values())  # one step, so that nobody changes it meanwhile
        return self._clock() - min(since) if since else 0.0

    def add_after(self, key: Key, seconds: float) -> None:
        """Ask for a pass later; an earlier request is kept."""
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= loop.time() + seconds:
                return
            timer.cancel()
        self._timers[key] = loop.call_later(seconds, self._due, key)

    def _due(self, key: Key) -> None:
        self._timers.pop(key, None)
        self._put(key)

    async def run(self) -> None:
        """Work until cancelled, then until the passes under way have ended; what waits is forgotten. May run again."""
        # asyncio's default pool has a few threads more than there are CPUs, whatever the concurrency is.
        threads = ThreadPoolExecutor(self._concurrency, thread_name_prefix="pass")
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._concurrency):
                    group.create_task(self._worker(threads))
        finally:
            self._forget()
            await asyncio.to_thread(threads.shutdown, wait=True, cancel_futures=True)
            self._forget()  # what rang meanwhile, which nobody takes

    def _forget(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self._there = asyncio.Semaphore(0)
        for keys in (self._first, self._later, self._again, self._recent, self._timers):
            keys.clear()
        for counts in (self._failures, self._conflicts):
            counts.clear()
        self._busy.clear()
        self._told()

    async def _worker(self, threads: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._there.acquire()
            waiting = self._first or self._later
            key = next(iter(waiting))
            del waiting[key]
            self._told()
            self._busy.add(key)
            self._recent[key] = loop.time()
            loop.call_later(_GATHER_S, self._recent.pop, key, None)
            try:
                await self._one(key, threads)
            finally:
                self._busy.discard(key)
                heard = self._again.pop(key, set())
                if not heard.issubset(self._written(key)):
                    self.add(key)

    async def _one(self, key: Key, threads: ThreadPoolExecutor) -> None:
        with METRICS.pass_seconds.time():
            try:
                after = await asyncio.get_running_loop().run_in_executor(threads, self._work, key)
            except Conflict as error:
                METRICS.passes.labels(result="conflict").inc()
                self.add_after(key, self._after_conflict(key, error))
                return
            except ClusterError as error:
                METRICS.passes.labels(result=type(error).__name__).inc()
                log.warning("%s/%s: %s", *key, error, extra={"resource": "/".join(key)})
                floor = error.retry_after_s if isinstance(error, Unavailable) else 0.0
                self.add_after(key, max(floor, self._backoff(key)))
                return
            except Exception:  # one broken resource must not stop the others
                METRICS.passes.labels(result="bug").inc()
                log.exception("pass over %s/%s failed", *key, extra={"resource": "/".join(key)})
                self.add_after(key, self._backoff(key))
                return
        METRICS.passes.labels(result="ok").inc()
        self._failures.pop(key, None)
        self._conflicts.pop(key, None)
        if after is not None:
            self.add_after(key, after)

    def _after_conflict(self, key: Key, error: Conflict) -> float:
        """Somebody was faster, and what was written is known in a moment; or it is no such conflict."""
        conflicts = self._conflicts[key] = self._conflicts.get(key, 0) + 1
        if conflicts <= _CONFLICTS_AT_ONCE:
            return _CONFLICT_S
        log.warning("%s/%s: %d conflicts in a row: %s", *key, conflicts, error, extra={"resource": "/".join(key)})
        return self._backoff(key)

    def _backoff(self, key: Key) -> float:
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        delay: float = min(_BACKOFF_MAX_S, _BACKOFF_FIRST_S * 2 ** min(failures - 1, 10))
        return delay * (0.75 + 0.5 * self._random.random())
