"""One pass over one resource: gather, decide, act, record. Read this file first.

    observe   every read ends in one frozen value, the clock included; see cluster/observe.py. The resource and its
              children are read from what the watches have told
    plan      pure; see decide/plan.py
    act       creates, applies and deletes; safe to repeat at any point. Before anything is made the API server is asked
              whether the resource is still what the pass has read: an edit or a removal may not be heard of yet
    go on     where what was done decides what is next, these three again: clients have been moved
    record    one status write, with the resourceVersion that was read: a pass that knew too little ends in a conflict,
              and the next one asks the API server. Events only after the write succeeded; see record.py

A pass may die anywhere. Names are deterministic and status is written last, so the next pass finds what was done.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from embedding_operator.cluster.act import Actor
from embedding_operator.cluster.cache import Cache, Key
from embedding_operator.cluster.claims import ExistingClaims
from embedding_operator.cluster.client import Cluster
from embedding_operator.cluster.endpoint import Ask
from embedding_operator.cluster.errors import (
    ClusterError,
    Conflict,
    DeletionStuck,
    Forbidden,
    ForeignObject,
    NotTried,
    NotYetGone,
    QuotaExceeded,
    Rejected,
    Unavailable,
)
from embedding_operator.cluster.events import EventPoster
from embedding_operator.cluster.logs import LogTails
from embedding_operator.cluster.observe import Observer
from embedding_operator.cluster.refused import refusal_of, refusal_to_read, unanswered
from embedding_operator.decide.decision import (
    Action,
    Observed,
    Plan,
    Refusal,
    TryOut,
    ends_image_check,
    frees,
    is_aside,
    kind_of,
    needs_no_memory,
    tells,
)
from embedding_operator.decide.plan import Defaults, plan
from embedding_operator.decide.refusals import CLUSTER_UNAVAILABLE
from embedding_operator.decide.scale import without_scaling
from embedding_operator.decide.stopped import held_up, unread
from embedding_operator.decide.summary import as_recorded
from embedding_operator.decide.waiting import waits_for_quota
from embedding_operator.metrics import METRICS
from embedding_operator.objects.manifests.common import Owner
from embedding_operator.record import Recorder
from embedding_operator.resource.api import KIND
from embedding_operator.resource.status import Status

log = logging.getLogger(__name__)
_REPORTED_AFTER_S: Final = 30  # the API server, a webhook or etcd may be away for a moment
_FRESH_S: Final = 1.0  # so long what the API server has said of a resource is taken for what it would say
_LOOKS_AT_ONCE: Final = 2  # that the Service moved, and that clients reach the first revision of all
_AGAIN_S: Final = 60.0
_DRY_RUNS_S: Final = 30.0  # for all of a pass: there may be twenty, and a webhook that hangs holds each of them


@dataclass(slots=True, kw_only=True)
class Reconciler:
    """Holds what a pass needs; the same for every resource."""

    cluster: Cluster
    cache: Cache
    claims: ExistingClaims
    logs: LogTails
    events: EventPoster
    defaults: Defaults
    ask: Ask
    clock: Callable[[], float] = time.monotonic
    held_up_since: dict[Key, datetime] = field(default_factory=dict)
    doubted: set[Key] = field(default_factory=set)  # what is known of them may be out of date
    resting: dict[Key, int] = field(default_factory=dict)  # state of the cache in which a pass had nothing to do
    written: dict[Key, set[str]] = field(default_factory=dict)  # versions that the last pass made of objects
    put_off: dict[Key, float] = field(default_factory=dict)  # when a pod that tries images may be deleted again
    recorder: Recorder = field(init=False)

    def __post_init__(self) -> None:
        self.recorder = Recorder(cluster=self.cluster, actor=self._actor, events=self.events, doubted=self.doubted)

    @property
    def _actor(self) -> Actor:
        return Actor(cluster=self.cluster, cache=self.cache, written=self.written)

    def begin(self) -> None:
        """Before the first pass, and after others may have worked: what is under way is read anew once."""
        self.resting.clear()
        self.held_up_since.clear()
        self.logs.forget()
        self.doubted.update(key for key, settled in self.cache.resources().items() if not settled)

    def rests(self, key: Key) -> bool:
        """Whether the last pass had nothing to do, and nothing has changed since. A later moment of its own rings."""
        return key in self.resting and self.resting[key] == self.cache.state(key)

    def reconcile(self, key: Key) -> float | None:
        """One pass. Seconds until the next one is due, or None: only an event brings it. Raises ClusterError."""
        namespace, name = key
        state = self.cache.state(key)
        self.resting.pop(key, None)
        self.written.pop(key, None)
        resource = self._resource(key)
        if resource is None or "deletionTimestamp" in resource["metadata"]:
            METRICS.forget(key)
            self.held_up_since.pop(key, None)
            self.recorder.forget(key)
            self.put_off.pop(key, None)
            return None
        owner = Owner(namespace=namespace, name=name, uid=resource["metadata"]["uid"])
        observed = Observed(now=self.cluster.now(), generation=int(resource["metadata"].get("generation", 1)))
        status = without_scaling(
            Status.from_json(resource.get("status")), resource.get("spec") or {}, observed.generation
        )
        gathered = False
        observer = Observer(cluster=self.cluster, cache=self.cache, logs=self.logs, ask=self.ask, claims=self.claims)
        try:
            try:
                observed = observer.observe(owner, resource, status, observed)
            except (Rejected, Forbidden) as error:
                decided = unread(status, replace(observed, refusals=(refusal_to_read(error),)))
            else:
                gathered = True
                decided = self._decide_and_act(owner, resource, status, observed)
                decided = self._go_on(owner, resource, status, observer, observed, decided)
            wrote = self.recorder.record(resource, status, decided, observed.now)
        except Unavailable as error:
            self._report(owner, resource, status, observed, error, gathered=gathered)
            raise
        self.held_up_since.pop(key, None)
        METRICS.resource(key, decided.status)
        if not wrote and not decided.actions and not observer.beside_watches:
            self.resting[key] = state
        return decided.requeue_after_s

    def _resource(self, key: Key) -> Mapping[str, Any] | None:
        """As the watch told of it, or as the API server has it where that may be out of date."""
        if key not in self.doubted:
            return self.cache.resource(key)
        known, asked = self.cache.resource(key), self.cache.now()
        live = self.cluster.get(KIND, *key)
        self.doubted.discard(key)
        if live is not None:
            self.cache.put(KIND, live, as_of=asked)
        elif known is not None:
            self.cache.forget(KIND, key, key[1], known["metadata"]["uid"])
        return self.cache.resource(key)

    def _decide_and_act(self, owner: Owner, resource: Mapping[str, Any], status: Status, observed: Observed) -> Plan:
        """What is refused goes into the same decision again: the rest of what the pass has learnt stays true.

        So does the first action that nobody answers, where others need not wait for it: what is left to free is freed,
        and clients are led. Nothing is created then, and the pass ends with that error, so that it is repeated.
        """
        spec, tried, full = resource.get("spec") or {}, list[Action](), None
        late: Unavailable | Conflict | None = None
        key = (owner.namespace, owner.name)
        dry_runs_end = self.clock() + _DRY_RUNS_S
        while True:
            decided = plan(owner, spec, status, observed, self.defaults)
            untaken = self.recorder.would_refuse(resource, decided)
            if untaken is not None:
                decided = replace(decided, actions=[item for item in decided.actions if needs_no_memory(item)])
            try:
                self._act(owner, resource, decided, tried, dry_runs_end, late)
            except (Rejected, Forbidden, ForeignObject, NotYetGone, DeletionStuck, QuotaExceeded, NotTried) as error:
                if isinstance(tried[-1], TryOut) and isinstance(error, QuotaExceeded):
                    continue  # it is waited for when its time comes
                refusal = refusal_of(error, tried[-1], observed)
                self._put_off(key, tried[-1])
                full = error if refusal.kind == "quota" else full
                observed = replace(observed, refusals=(*observed.refusals, refusal))
                continue
            except (Unavailable, Conflict) as error:
                if late is not None:  # perhaps nobody is there at all: each further question would take its time
                    raise late from error
                action = unanswered(error, tried)
                self._put_off(key, action)
                late = None if is_aside(action) else error
                observed = replace(observed, refusals=(*observed.refusals, refusal_of(error, action, observed)))
                continue
            held_up = late or untaken
            if held_up is not None:
                raise held_up
            if full is not None and not waits_for_quota(decided.status):
                raise full
            return decided

    def _put_off(self, key: Key, action: Action) -> None:
        """What nobody waits for is not asked for in each pass: it may take its time each time."""
        if ends_image_check(action):
            self.put_off[key] = self.clock() + _AGAIN_S

    def _go_on(
        self,
        owner: Owner,
        resource: Mapping[str, Any],
        status: Status,
        observer: Observer,
        observed: Observed,
        decided: Plan,
    ) -> Plan:
        """Look again at once where what was done decides what is next: the state between is nobody's to see.

        Nothing is taken away for what is not on record yet. `status` is what is on record.
        """
        spec = resource.get("spec") or {}
        for _ in range(_LOOKS_AT_ONCE):
            if not decided.at_once:
                break
            known = Observed(now=observed.now, generation=observed.generation)
            seen = observer.observe(owner, resource, decided.status, known)
            before, after = status.served.active_fingerprint, decided.status.served.active_fingerprint
            moved = before not in ("", after)  # an edit may lead clients back: until then nobody is told of it
            ahead = plan(owner, spec, decided.status, seen, self.defaults).actions
            if any(frees(action) or (moved and tells(action)) for action in ahead):
                break
            going = self._decide_and_act(owner, resource, decided.status, seen)
            decided = as_recorded(going.after(decided.actions, decided.events, decided.ended_run), status)
        return decided

    def _act(
        self,
        owner: Owner,
        resource: Mapping[str, Any],
        decided: Plan,
        tried: list[Action],
        dry_runs_end: float,
        late: Unavailable | Conflict | None,
    ) -> None:
        """Do what was not tried yet in this pass; `tried` grows by each action. Raises ClusterError.

        `dry_runs_end`: no dry run is made after this moment of the clock. `late`: what nobody has answered; the same
        webhook may be asked about all objects of its kind.
        """
        for action in decided.actions:
            if action in tried or (late is not None and late.kind == kind_of(action)):
                continue
            if ends_image_check(action) and self.clock() < self.put_off.get((owner.namespace, owner.name), 0.0):
                continue
            tried.append(action)
            if not isinstance(action, TryOut):
                self._must_be_as_read(resource)
            who = f"{owner.namespace}/{owner.name}"
            # Nothing is changed by a dry run, and those of a refused revision are made again and again.
            level = logging.DEBUG if isinstance(action, TryOut) else logging.INFO
            log.log(level, "%s: %s", who, action, extra={"resource": who})
            self._actor.do(owner, action, dry_runs_left_s=dry_runs_end - self.clock())

    def _must_be_as_read(self, resource: Mapping[str, Any]) -> None:
        """Raises Conflict where the resource has changed, or is gone: its watch is behind, or told of it while the pass
        went on. Children that are removed with it must not be made again, nor those of an edit be removed. The next
        pass knows.
        """
        meta = resource["metadata"]
        key = (meta["namespace"], meta["name"])
        is_known = self.cache.version(KIND, key, key[1]) == meta["resourceVersion"]
        if is_known and self.cache.confirmed_ago_s(KIND, key, key[1]) < _FRESH_S:
            return
        self.doubted.add(key)
        live = self._resource(key)
        if live is None or live["metadata"]["resourceVersion"] != meta["resourceVersion"]:
            raise Conflict("act for", KIND, *key, "it has changed since it was read")

    def _report(
        self,
        owner: Owner,
        resource: Mapping[str, Any],
        status: Status,
        observed: Observed,
        error: Unavailable,
        *,
        gathered: bool,
    ) -> None:
        """Say what is away, once, when it is away for long; the work queue goes on trying.

        `gathered`: everything was read, so what the pass has learnt is said too.
        """
        key = (owner.namespace, owner.name)
        since = min(self.held_up_since.get(key, observed.now), observed.now)  # a clock may be set back
        self.held_up_since[key] = since
        if (observed.now - since).total_seconds() < _REPORTED_AFTER_S:
            return
        if gathered:
            away = Refusal(kind="late", reason=CLUSTER_UNAVAILABLE, tried=error.tried, detail=error.detail)
            known = replace(observed, refusals=(away,))
            decided = plan(owner, resource.get("spec") or {}, status, known, self.defaults)
        else:
            decided = held_up(status, observed, CLUSTER_UNAVAILABLE, str(error), retry_s=None)
        try:
            self.recorder.record(resource, status, decided, observed.now)
        except ClusterError as second:
            log.warning("%s/%s: not reported: %s", *key, second, extra={"resource": "/".join(key)})
