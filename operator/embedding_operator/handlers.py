"""The doorbell. Every event updates the cache and rings for its owner; no decision is made here.

Every replica listens; the one that leads works too.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import chain, repeat
from random import Random
from typing import Any, Final

import kopf
from prometheus_client import start_http_server

from embedding_operator.cluster.cache import KINDS, UNWATCHED, ChildCache, Key, owner_key
from embedding_operator.cluster.client import Cluster, child_selector
from embedding_operator.cluster.endpoint import Patient, ask_canaries
from embedding_operator.cluster.errors import Forbidden
from embedding_operator.cluster.logs import THREADS, LogTails
from embedding_operator.cluster.tenure import Tenure
from embedding_operator.decide.plan import Defaults
from embedding_operator.leadership import Leases
from embedding_operator.metrics import METRICS
from embedding_operator.reconcile import Reconciler
from embedding_operator.replica import Replica
from embedding_operator.resource.api import GROUP, KIND, PLURAL, VERSION
from embedding_operator.resource.labels import OWNER_LABEL
from embedding_operator.settings import Settings
from embedding_operator.workqueue import WorkQueue

log = logging.getLogger(__name__)
_CHILDREN: Final = (("batch", "v1", "jobs"), ("", "v1", "pods"), ("apps", "v1", "deployments"), ("", "v1", "services"))
_START_AGAIN_S = 3.0  # while the API server does not answer yet


class Doorbell:
    """Ties Kopf's watches to the queue, and the queue to the reconciler."""

    def __init__(self, settings: Settings, cluster: Cluster, leases: Leases, tenure: Tenure) -> None:
        self.settings, self.cluster = settings, cluster
        self.cache = ChildCache()
        self.log_threads = ThreadPoolExecutor(THREADS, thread_name_prefix="log")
        self.loop: asyncio.AbstractEventLoop | None = None
        self.logs = LogTails(
            read=lambda namespace, pod, lines: cluster.log_tail(namespace, pod, lines=lines),
            submit=self.log_threads.submit,
            ring=self.ring,
            clock=time.monotonic,
        )
        self.reconciler = Reconciler(
            cluster=cluster,
            cache=self.cache,
            logs=self.logs,
            defaults=Defaults(
                images=settings.images,
                given_user=settings.openshift,
                look_for_secrets=settings.look_for_secrets,
                check_images=settings.check_images,
            ),
            ask=Patient(ask=ask_canaries, clock=time.monotonic),
        )
        self.queue = WorkQueue(self.reconciler.reconcile, concurrency=settings.concurrency, random=Random())  # noqa: S311
        self.replica = Replica(settings=settings, leases=leases, tenure=tenure, work=self.work)
        self.tasks: list[asyncio.Task[None]] = []
        self.filled = asyncio.Event()  # the cache holds what a whole list has told
        self.known: set[Key] = set()  # resources of the last list, and those that the watch has told of since
        self.working = False
        self.last_resync = time.monotonic()

    async def start(self) -> None:
        """Listen for ever, and work while this replica leads.

        Returns at once: the probes are answered while the first list is under way.
        """
        self.loop = asyncio.get_running_loop()
        METRICS.resync_interval.set(self.settings.resync_s)
        METRICS.queue_oldest.set_function(self.queue.oldest_s)
        if self.settings.metrics_resources:
            METRICS.export_resources(self.settings.metrics_resources, self.cluster.now)
        start_http_server(self.settings.metrics_port)
        log.info(
            "started: watches %s, %d passes at a time, looks at everything every %g s",
            ", ".join(self.settings.watch_namespaces) or "the whole cluster",
            self.settings.concurrency,
            self.settings.resync_s,
        )
        self.tasks = [asyncio.create_task(self.listen())]
        self.replica.start(self.filled)

    async def stop(self) -> None:
        await self.replica.stop()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.log_threads.shutdown(wait=False, cancel_futures=True)

    async def listen(self) -> None:
        """Keep the cache true, whoever works: a whole list first, then one every interval beside the watches."""
        spread = Random()  # noqa: S311
        while True:
            try:
                before = set(self.known)
                listed = await asyncio.to_thread(self.relist)
                self.known = {*listed, *(self.known - before)}
                self.last_resync = time.monotonic()
                METRICS.last_resync.set_to_current_time()
                self.filled.set()
            except Exception:  # the API server may be away; the probe tells if it stays away
                log.exception("resync failed")
            if self.working:
                for key in self.known:
                    # Spread over the interval, or thousands of resources would be looked at at once.
                    self.queue.add_after(key, spread.random() * self.settings.resync_s)
            pause_s = self.settings.resync_s * (0.9 + 0.2 * spread.random())
            await asyncio.sleep(pause_s if self.filled.is_set() else _START_AGAIN_S)

    async def work(self) -> None:
        """Work off the queue until cancelled: passes are made, and anything is written, only while this runs.

        Returns after the last pass under way has ended. May be called again: everything is looked at anew.
        """
        await self.filled.wait()
        self.working = True
        try:
            for key in self.known:
                self.queue.add(key)
            await self.queue.run()
        finally:
            self.working = False

    def ring(self, key: Key) -> None:
        """Ask for a pass, from any thread; nobody hears it while nobody works."""
        if self.loop is not None and not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.add, key)

    def add(self, key: Key) -> None:
        """The same, on the loop."""
        if self.working:
            self.queue.add(key)

    def relist(self) -> list[tuple[str, str]]:
        """Take the cluster's word for what exists; the keys of all resources."""
        namespaces = self.settings.watch_namespaces or (None,)
        for kind in KINDS:
            before = self.cache.uids(kind)
            listed = (raw for ns in namespaces for raw in self.cluster.each(kind, ns, labels=child_selector()))
            self.cache.prune(kind, before, listed)
        for kind in UNWATCHED:
            with suppress(Forbidden):  # a role of an earlier release: nobody can have made one
                before = self.cache.uids(kind)
                listed = (raw for ns in namespaces for raw in self.cluster.each(kind, ns, labels=child_selector()))
                self.cache.prune(kind, before, listed)
        found = (raw["metadata"] for ns in namespaces for raw in self.cluster.each(KIND, ns))
        return [(meta["namespace"], meta["name"]) for meta in found]

    def alive(self) -> bool:
        """Whether real work goes on: a resync completed within three intervals and every task runs."""
        recent = time.monotonic() - self.last_resync < 3 * self.settings.resync_s + 60
        return recent and self.replica.alive() and all(not task.done() for task in self.tasks)


class Endless:
    """Seconds between Kopf's attempts at a request, without end; each request begins anew.

    Kopf lets the error out after the last one, and the process ends with it: a load balancer that answers 503 for a
    minute, or rights that are not loaded yet (403), must not stop the watches.
    """

    def __iter__(self) -> Iterator[float]:
        return chain((1, 1, 2, 3, 5, 8, 13), repeat(21))


def configure(settings: kopf.OperatorSettings) -> None:
    """Use Kopf for its watches alone."""
    settings.posting.enabled = False
    settings.networking.error_backoffs = Endless()
    settings.watching.chunk_size = 500
    for resource in _CHILDREN:
        settings.watching.label_selectors[resource] = OWNER_LABEL
    settings.scanning.disabled = True  # no rights on CRDs and namespaces are needed then


def register(registry: kopf.OperatorRegistry, doorbell: Doorbell) -> None:
    """Put every handler on Kopf's registry."""

    @kopf.on.startup(registry=registry, backoff=_START_AGAIN_S)
    async def startup(settings: kopf.OperatorSettings, **_: Any) -> None:
        configure(settings)
        await doorbell.start()

    @kopf.on.login(registry=registry)
    async def login(**arguments: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**arguments) or kopf.login_with_kubeconfig(**arguments)

    @kopf.on.cleanup(registry=registry)
    async def cleanup(**_: Any) -> None:
        await doorbell.stop()

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
    async def resource(event: kopf.RawEvent, namespace: str | None, name: str, **_: Any) -> None:
        key = (namespace or "", name)
        (doorbell.known.discard if event["type"] == "DELETED" else doorbell.known.add)(key)
        doorbell.add(key)

    @kopf.on.probe(registry=registry, id="work")
    async def work(**_: Any) -> str:
        if not doorbell.alive():
            raise kopf.PermanentError("no resync completed for three intervals")
        return "working"

    _watch_children(registry, doorbell)


def _watch_children(registry: kopf.OperatorRegistry, doorbell: Doorbell) -> None:
    """What belongs to a resource rings for it."""

    @kopf.on.event("batch", "v1", "jobs", registry=registry)
    async def job(event: kopf.RawEvent, **_: Any) -> None:
        _child(doorbell, "Job", event)

    @kopf.on.event("", "v1", "pods", registry=registry)
    async def pod(event: kopf.RawEvent, **_: Any) -> None:
        _child(doorbell, "Pod", event)

    @kopf.on.event("apps", "v1", "deployments", registry=registry)
    async def deployment(event: kopf.RawEvent, **_: Any) -> None:
        _child(doorbell, "Deployment", event)

    @kopf.on.event("", "v1", "services", registry=registry)
    async def service(event: kopf.RawEvent, **_: Any) -> None:
        # Not cached: every pass lists those of its resource, and most change once in a revision.
        key = owner_key(event["object"])
        if key is not None:
            doorbell.add(key)


def _child(doorbell: Doorbell, kind: str, event: kopf.RawEvent) -> None:
    raw = dict(event["object"])
    if owner_key(raw) is None:
        return
    gone = event["type"] == "DELETED"
    key = doorbell.cache.drop(kind, raw) if gone else doorbell.cache.put(kind, raw)
    if key is not None:
        doorbell.add(key)
