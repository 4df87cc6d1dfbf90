"""The doorbell. Every event updates the cache and rings for its resource; no decision is made here.

Two things go on beside each other: `listen` keeps the cache true, in every replica, and `work` makes passes, in the one
that leads.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any, Final

import kopf
from prometheus_client import start_http_server

from embedding_operator.cluster.cache import Cache, Key
from embedding_operator.cluster.claims import ExistingClaims
from embedding_operator.cluster.client import Cluster
from embedding_operator.cluster.endpoint import Patient, ask_canaries
from embedding_operator.cluster.errors import ClusterError
from embedding_operator.cluster.events import EventPoster
from embedding_operator.cluster.lists import Ending, Lists, interval_s
from embedding_operator.cluster.logs import THREADS, LogTails
from embedding_operator.cluster.tenure import Tenure
from embedding_operator.decide.plan import Defaults
from embedding_operator.leadership import Leases
from embedding_operator.metrics import METRICS
from embedding_operator.probes import Probes, any_address
from embedding_operator.reconcile import Reconciler
from embedding_operator.replica import Replica
from embedding_operator.resource.api import KIND
from embedding_operator.settings import Settings
from embedding_operator.watches import WATCHED, Logins, configure
from embedding_operator.workqueue import WorkQueue

log = logging.getLogger(__name__)
# Their events come in bursts, and of what matters most the Job or the Deployment tells.
_GATHERED: Final = frozenset({"Pod", "Service", "PersistentVolumeClaim"})
_AGAIN_S: Final = 30.0  # after a resync that failed: one of thousands takes hundreds of requests
_START_AGAIN_S = 3.0  # while the API server does not answer yet


class Doorbell:
    """Ties Kopf's watches to the queue, and the queue to the reconciler."""

    def __init__(self, settings: Settings, cluster: Cluster, leases: Leases, tenure: Tenure) -> None:
        self.settings, self.cluster = settings, cluster
        self.cache = Cache()
        self.end = threading.Event()
        self.listing = asyncio.Lock()  # for watches that begin anew: each list takes CPU from passes
        self.lists = Lists(cluster=cluster, cache=self.cache, rest=self.end.wait, namespaces=settings.watch_namespaces)
        self.log_threads = ThreadPoolExecutor(THREADS, thread_name_prefix="log")
        self.event_thread = ThreadPoolExecutor(1, thread_name_prefix="event")
        self.loop: asyncio.AbstractEventLoop | None = None
        self.logs = LogTails(
            read=lambda namespace, pod, lines: cluster.log_tail(namespace, pod, lines=lines),
            submit=self.log_threads.submit,
            ring=self.ring,
            clock=time.monotonic,
        )
        self.events = EventPoster(cluster=cluster, submit=self.event_thread.submit)
        self.reconciler = Reconciler(
            cluster=cluster,
            cache=self.cache,
            claims=ExistingClaims(cluster),
            logs=self.logs,
            events=self.events,
            defaults=Defaults(
                images=settings.images,
                given_user=settings.openshift,
                look_for_secrets=settings.look_for_secrets,
                check_images=settings.check_images,
            ),
            ask=Patient(ask=ask_canaries, clock=time.monotonic),
        )
        self.queue = WorkQueue(
            self.reconciler.reconcile,
            concurrency=settings.concurrency,
            random=Random(),  # noqa: S311
            written=lambda key: self.reconciler.written.get(key, ()),
        )
        self.replica = Replica(settings=settings, leases=leases, tenure=tenure, work=self.work, told=self.told)
        self.probes = Probes(port=settings.liveness_port, alive=self.not_alive, ready=self.not_ready)
        self.tasks: list[asyncio.Task[None]] = []
        self.filled = asyncio.Event()  # the cache holds what a whole list has told
        self.working = False
        self.last_resync, self.interval_s = time.monotonic(), settings.resync_s

    async def start(self) -> None:
        """Listen for ever, and work while this replica leads.

        Returns at once: the probes are answered while the first list is under way. `filled` tells of its end.
        """
        self.loop = asyncio.get_running_loop()
        await self.probes.start()
        METRICS.resync_interval.set(self.interval_s)
        METRICS.queue_oldest.set_function(self.queue.oldest_s)
        if self.settings.metrics_resources:
            METRICS.export_resources(self.settings.metrics_resources, self.cluster.now)
        start_http_server(self.settings.metrics_port, addr=any_address())
        log.info(
            "started: watches %s, %d passes at a time, looks at everything every %g s",
            ", ".join(self.settings.watch_namespaces) or "the whole cluster",
            self.settings.concurrency,
            self.settings.resync_s,
        )
        self.tasks = [asyncio.create_task(self.listen())]
        self.replica.start(self.filled)

    async def stop(self) -> None:
        self.end.set()
        await self.replica.stop()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.log_threads.shutdown(wait=False, cancel_futures=True)
        self.event_thread.shutdown(wait=False, cancel_futures=True)
        self.events.say_lost()
        await self.probes.stop()

    async def listen(self) -> None:
        """Keep the cache true, whoever works: a whole list first, then what the watches missed, every interval.

        The interval is what the settings ask for, and longer where there is so much that a list takes seconds of CPU.
        """
        spread = Random()  # noqa: S311
        while True:
            done = False
            try:
                if not self.filled.is_set():
                    await asyncio.to_thread(self.lists.fill)
                    _settle_memory()
                    self.filled.set()
                else:
                    missed, cpu_s = await asyncio.to_thread(self._catch_up)
                    for key in missed:
                        self.add(key)
                    self._look_at_everything(spread)
                    self.interval_s = interval_s(self.settings.resync_s, cpu_s)
                    METRICS.resync_interval.set(self.interval_s)
                done = True
                self.last_resync = time.monotonic()
                METRICS.last_resync.set_to_current_time()
            except Ending:  # `stop` cancels this in a moment
                pass
            except ClusterError as error:  # the API server may be away; the probe tells if it stays away
                log.warning("resync failed: %s", error)
            except Exception:
                log.exception("resync failed")
            await asyncio.sleep(self._pause_s(spread, done=done))

    def _pause_s(self, spread: Random, *, done: bool) -> float:
        """Until the next list or resync, while the watches miss nothing; `done`: the last one was."""
        if not self.filled.is_set():
            return _START_AGAIN_S
        pause_s = self.interval_s * (0.9 + 0.2 * spread.random())
        return pause_s if done else min(pause_s, _AGAIN_S)

    async def list_for_watch(self, kind: str, namespace: str | None) -> str:
        """From which version a watch tells of all that the cache does not hold. Raises ClusterError."""
        if version := self.lists.since(kind, namespace):
            return version
        async with self.listing:
            try:
                version, missed = await asyncio.to_thread(self.lists.begin_anew, kind, namespace)
            except Ending:  # Kopf cancels this in a moment
                await asyncio.Event().wait()
                raise
        for key in missed:
            self.add(key)
        return version

    def _catch_up(self) -> tuple[set[Key], float]:
        """(what a watch missed something of, CPU seconds of this thread)."""
        begun = time.thread_time()
        return self.lists.catch_up(), time.thread_time() - begun

    async def work(self) -> None:
        """Work off the queue until cancelled: passes are made, and anything is written, only while this runs.

        Returns after the last pass under way has ended. May be called again: everything is looked at anew, first what
        is not Ready.
        """
        await self.filled.wait()
        self.reconciler.begin()
        self.working = True
        try:
            for key, settled in self.cache.resources().items():
                self.queue.add_later(key) if settled else self.queue.add(key)
            await self.queue.run()
        finally:
            self.working = False

    async def told(self) -> None:
        """Return once the Events of the passes so far are posted: they are posted one after the other."""
        await asyncio.wrap_future(self.event_thread.submit(lambda: None))

    def ring(self, key: Key) -> None:
        """Ask for a pass, from any thread; nobody hears it while nobody works."""
        if self.loop is not None and not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.add, key)

    def add(self, key: Key, version: str = "") -> None:
        """The same, on the loop."""
        if self.working:
            self.queue.add(key, version)

    def hear(self, kind: str, event: kopf.RawEvent) -> None:
        """Take in what a watch tells, and ring where it is news."""
        raw: dict[str, Any] = dict(event["object"])
        # An event may have been long on its way, and nothing is made for a resource that is gone meanwhile.
        as_of = -math.inf if kind == KIND else None
        key = self.cache.drop(kind, raw) if event["type"] == "DELETED" else self.cache.put(kind, raw, as_of=as_of)
        if key is None or not self.working:
            return
        version = str(raw["metadata"].get("resourceVersion", ""))
        ask = self.queue.add_soon if kind in _GATHERED else self.queue.add
        ask(key, version)

    def _look_at_everything(self, spread: Random) -> None:
        """Spread over the interval. What rests is left alone: a pass over it would find what the last one found."""
        for key in self.cache.resources() if self.working else ():
            if not self.reconciler.rests(key):
                self.queue.add_after(key, spread.random() * self.settings.resync_s)

    def not_alive(self) -> str:
        """Why the process is to end: no real work goes on. Nothing: a resync completed within three intervals and every
        task runs; a start has as long for its first list.
        """
        if time.monotonic() - self.last_resync >= 3 * self.interval_s + 60:
            return "no resync completed for three intervals"
        if any(task.done() for task in self.tasks):
            return "what keeps the cache true has ended"
        return "" if self.replica.alive() else "the election has stopped, or the work of the leader has"

    def not_ready(self) -> str:
        """Why this replica could not lead, so that no other may be taken away for it. Nothing: its cache is filled.

        An API server that is away later changes nothing: no other replica would be better off.
        """
        if self.end.is_set():
            return "the operator ends"
        return "" if self.filled.is_set() else "the cache is not filled yet"


def _settle_memory() -> None:
    """What a start has made stays. Full collections leave it alone then, and come as often as what is new asks for:
    what events and passes leave in cycles would wait until it is a quarter of all that is held.
    """
    gc.collect()
    gc.freeze()
    gc.collect()  # so that what is frozen is not counted


def register(registry: kopf.OperatorRegistry, doorbell: Doorbell) -> None:
    """Put every handler on Kopf's registry."""

    @kopf.on.startup(registry=registry)
    async def startup(settings: kopf.OperatorSettings, **_: Any) -> None:
        configure(settings, doorbell.list_for_watch)
        try:
            await doorbell.start()
        except OSError as error:  # half a start must not be tried again in this process
            raise kopf.PermanentError(f"LIVENESS_PORT or METRICS_PORT cannot be listened on: {error}") from error
        try:
            # Kopf's watches go on from this list.
            await doorbell.filled.wait()
        except asyncio.CancelledError:  # asked to end while it starts: Kopf calls no cleanup then
            await doorbell.stop()
            raise

    logins = Logins()

    @kopf.on.login(registry=registry)
    async def login(**named: Any) -> kopf.ConnectionInfo | None:
        return await logins.again(**named)

    @kopf.on.cleanup(registry=registry)
    async def cleanup(**_: Any) -> None:
        await doorbell.stop()

    for kind, resource in WATCHED.items():
        _watch(registry, doorbell, kind, resource)


def _watch(registry: kopf.OperatorRegistry, doorbell: Doorbell, kind: str, resource: tuple[str, str, str]) -> None:
    @kopf.on.event(*resource, registry=registry, id=f"hear-{kind}")
    async def heard(event: kopf.RawEvent, **_: Any) -> None:
        doorbell.hear(kind, event)
