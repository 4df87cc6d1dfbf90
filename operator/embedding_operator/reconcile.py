"""One pass over one resource: gather, decide, act, record. Read this file first.

    observe   every read ends in one frozen value, the clock included; see cluster/observe.py
    plan      pure; see decide/plan.py
    act       creates, applies and deletes; safe to repeat at any point
    record    one status write, with the resourceVersion that was read; Events only after it succeeded

A pass may die anywhere. Names are deterministic and status is written last, so the next pass finds what was done.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final, assert_never

from embedding_operator import journal
from embedding_operator.cluster.cache import ChildCache, Key
from embedding_operator.cluster.client import Cluster
from embedding_operator.cluster.endpoint import Ask
from embedding_operator.cluster.errors import (
    ClusterError,
    DeletionStuck,
    Forbidden,
    ForeignObject,
    NotTried,
    NotYetGone,
    QuotaExceeded,
    Rejected,
    Unavailable,
)
from embedding_operator.cluster.logs import LogTails
from embedding_operator.cluster.observe import Observer
from embedding_operator.decide.decision import (
    Action,
    Apply,
    CreateJob,
    CreatePod,
    DeleteObject,
    Observed,
    Plan,
    Refusal,
    RefusalKind,
    SuspendJob,
    TryOut,
)
from embedding_operator.decide.plan import Defaults, plan
from embedding_operator.decide.summary import held_up, unread
from embedding_operator.decide.uncreated import cure_of, lasts
from embedding_operator.decide.waiting import waits_for_quota
from embedding_operator.metrics import METRICS
from embedding_operator.objects.manifests.common import Owner
from embedding_operator.objects.nim_services import NIM_SERVICE
from embedding_operator.resource.status import Status

log = logging.getLogger(__name__)
_UNAVAILABLE: Final = "ClusterUnavailable"
_REPORTED_AFTER_S: Final = 30  # the API server, a webhook or etcd may be away for a moment
_POD_S: Final = 5.0  # for a pod that no work depends on
_DRY_RUNS_S: Final = 30.0  # for all of a pass: there may be twenty, and a webhook that hangs holds each of them


@dataclass(slots=True, kw_only=True)
class Reconciler:
    """Holds what a pass needs; the same for every resource."""

    cluster: Cluster
    cache: ChildCache
    logs: LogTails
    defaults: Defaults
    ask: Ask
    clock: Callable[[], float] = time.monotonic
    held_up_since: dict[Key, datetime] = field(default_factory=dict)

    def reconcile(self, key: Key) -> float | None:
        """One pass. Seconds until the next one is due, or None: only an event brings it. Raises ClusterError."""
        namespace, name = key
        resource = self.cluster.get("EmbeddingFineTune", namespace, name)
        if resource is None or "deletionTimestamp" in resource["metadata"]:
            METRICS.forget(key)
            self.held_up_since.pop(key, None)
            return None
        owner = Owner(namespace=namespace, name=name, uid=resource["metadata"]["uid"])
        status = Status.from_json(resource.get("status"))
        observed = Observed(now=self.cluster.now(), generation=int(resource["metadata"].get("generation", 1)))
        gathered = False
        try:
            try:
                observer = Observer(cluster=self.cluster, cache=self.cache, logs=self.logs, ask=self.ask)
                observed = observer.observe(owner, resource, status, observed)
            except (Rejected, Forbidden) as error:
                decided = unread(status, replace(observed, refusals=(_refusal("refused", error),)))
            else:
                gathered = True
                decided = self._decide_and_act(owner, resource, status, observed)
            self._record(resource, status, decided, observed)
        except Unavailable as error:
            self._report(owner, resource, status, observed, error, gathered=gathered)
            raise
        self.held_up_since.pop(key, None)
        METRICS.resource(key, decided.status)
        return decided.requeue_after_s

    def _decide_and_act(self, owner: Owner, resource: Mapping[str, Any], status: Status, observed: Observed) -> Plan:
        """What is refused goes into the same decision again: the rest of what the pass has learnt stays true."""
        spec, tried, full = resource.get("spec") or {}, list[Action](), None
        dry_runs_end = self.clock() + _DRY_RUNS_S
        while True:
            decided = plan(owner, spec, status, observed, self.defaults)
            try:
                self._act(owner, decided, tried, dry_runs_end)
            except (Rejected, Forbidden, ForeignObject, NotYetGone, DeletionStuck, QuotaExceeded, NotTried) as error:
                if isinstance(tried[-1], TryOut) and isinstance(error, QuotaExceeded):
                    continue  # it is waited for when its time comes
                refusal = _refusal_of(error, tried[-1], observed)
                full = error if refusal.kind == "quota" else full
                observed = replace(observed, refusals=(*observed.refusals, refusal))
                continue
            if full is not None and not waits_for_quota(decided.status):
                raise full
            return decided

    def _act(self, owner: Owner, decided: Plan, tried: list[Action], dry_runs_end: float) -> None:
        """Do what was not tried yet in this pass; `tried` grows by each action. Raises ClusterError.

        `dry_runs_end`: no dry run is made after this moment of the clock.
        """
        for action in decided.actions:
            if action in tried:
                continue
            tried.append(action)
            who = f"{owner.namespace}/{owner.name}"
            # Nothing is changed by a dry run, and those of a refused revision are made again and again.
            level = logging.DEBUG if isinstance(action, TryOut) else logging.INFO
            log.log(level, "%s: %s", who, action, extra={"resource": who})
            self._do(owner, action, dry_runs_end)

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
        since = self.held_up_since.setdefault(key, observed.now)
        if (observed.now - since).total_seconds() < _REPORTED_AFTER_S:
            return
        if gathered:
            away = Refusal(kind="late", reason=_UNAVAILABLE, tried=error.tried, detail=error.detail)
            known = replace(observed, refusals=(away,))
            decided = plan(owner, resource.get("spec") or {}, status, known, self.defaults)
        else:
            decided = held_up(status, observed, _UNAVAILABLE, str(error), retry_s=None)
        try:
            self._record(resource, status, decided, observed)
        except ClusterError as second:
            log.warning("%s/%s: not reported: %s", *key, second, extra={"resource": "/".join(key)})

    def _do(self, owner: Owner, action: Action, dry_runs_end: float) -> None:
        if not isinstance(action, TryOut):  # the rest are writes
            METRICS.action(type(action).__name__)
        match action:
            case CreateJob():
                self.cache.put("Job", self.cluster.create_job(action.manifest))
            case CreatePod():
                raw_pod = self.cluster.create_pod(action.manifest, within_s=_POD_S)
                if raw_pod is not None:
                    self.cache.put("Pod", raw_pod)
            case Apply():
                raw = self.cluster.apply(action.manifest)
                if action.manifest["kind"] in ("Deployment", NIM_SERVICE):
                    self.cache.put(action.manifest["kind"], raw)
            case DeleteObject():
                self.cluster.delete(action.kind, owner.namespace, action.name)
            case TryOut():
                self._try_out(action.manifest, dry_runs_end - self.clock())
            case SuspendJob():
                raw_job = self.cluster.suspend_job(
                    owner.namespace, action.name, suspend=action.suspend, revision=action.revision
                )
                if raw_job is not None:
                    self.cache.put("Job", raw_job)
            case _:
                assert_never(action)

    def _try_out(self, manifest: Mapping[str, Any], within_s: float) -> None:
        if within_s <= 0:
            where = (manifest["kind"], manifest["metadata"]["namespace"], manifest["metadata"]["name"])
            raise NotTried("try", *where, f"the dry runs before it took all of {_DRY_RUNS_S:g} s")
        self.cluster.try_out(manifest, within_s=within_s)

    def _record(self, resource: Mapping[str, Any], old: Status, decided: Plan, observed: Observed) -> None:
        """Write the status if it changed, then tell what happened."""
        body = decided.status.to_json()
        if body == (resource.get("status") or {}):
            return
        written = self.cluster.write_status(resource, body)
        for stage in decided.status.stages:
            METRICS.stage_ended(old.stage(stage.name), stage)
        METRICS.used(old, decided.status)
        who = f"{resource['metadata']['namespace']}/{resource['metadata']['name']}"
        for line in journal.lines(who, old, decided.status):
            line.write(log)
        for event in decided.events:
            try:
                self.cluster.post_event(written, event.type, event.reason, event.message, _stamp(observed.now))
            except ClusterError as error:  # an Event that is lost is no reason to fail
                log.warning("%s: event not posted: %s", who, error, extra={"resource": who})


def _kind_of(error: ClusterError, action: Action, observed: Observed) -> RefusalKind:
    if isinstance(action, CreatePod) or (isinstance(action, DeleteObject) and action.kind == "Pod"):
        return "unchecked"
    claim = isinstance(action, Apply) and action.manifest["kind"] == "PersistentVolumeClaim"
    if claim and observed.workspace_exists and isinstance(error, Rejected | Forbidden | QuotaExceeded):
        return "claim"
    of_record = isinstance(action, Apply) and action.manifest["kind"] == "ConfigMap"
    if of_record and isinstance(error, Rejected | Forbidden | ForeignObject | DeletionStuck | QuotaExceeded):
        return "record"
    match error:
        case QuotaExceeded():
            return "quota"
        case NotYetGone():
            return "late"
        case _:
            return "refused"


def _refusal_of(error: ClusterError, action: Action, observed: Observed) -> Refusal:
    if not isinstance(action, TryOut):
        return _refusal(_kind_of(error, action, observed), error)
    refused = isinstance(error, Rejected | Forbidden)
    passes = isinstance(error, Forbidden) and not lasts(error.detail)
    untried = passes or isinstance(error, NotTried)
    kind: RefusalKind = "untried" if untried else _kind_of(error, action, observed)
    cure = cure_of(error.detail, action.stage) if refused else ""
    if action.field and kind == "refused":
        return Refusal(
            kind=kind,
            reason="SecretMissing",
            tried=f"stage {action.stage}: {error.tried}",
            detail=f"{action.field}: {error.detail} in this namespace; create it or correct the field",
            of_preflight=True,
        )
    return Refusal(
        kind=kind,
        # Admission says "forbidden" of an object, authorisation of the operator.
        reason=Rejected.__name__ if refused and " cannot " not in error.detail else type(error).__name__,
        tried=f"stage {action.stage}: {error.tried}",
        detail=f"{cure}: {error.detail}" if cure else error.detail,
        of_preflight=True,
    )


def _refusal(kind: RefusalKind, error: ClusterError) -> Refusal:
    return Refusal(kind=kind, reason=type(error).__name__, tried=error.tried, detail=error.detail)


def _stamp(now: datetime) -> str:
    return f"{now:%Y-%m-%dT%H:%M:%SZ}"
