"""One pass over one resource: gather, decide, act, record. Read this file first.

    observe   every read ends in one frozen value, the clock included
    plan      pure; see plan.py
    act       creates, applies and deletes; safe to repeat at any point
    record    one status write, with the resourceVersion that was read; Events only after it succeeded

A pass may die anywhere. Names are deterministic and status is written last, so the next pass finds what was done.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, assert_never

from embedding_operator.cache import ChildCache, Key
from embedding_operator.cluster import Cluster, child_selector
from embedding_operator.decision import (
    Action,
    Apply,
    CreateJob,
    DeleteObject,
    Draft,
    Observed,
    Plan,
    SuspendJob,
)
from embedding_operator.errors import Conflict, Forbidden, ForeignObject, Rejected
from embedding_operator.manifests.common import Owner
from embedding_operator.metrics import METRICS
from embedding_operator.outcome import culprit
from embedding_operator.plan import Defaults, plan
from embedding_operator.status import Status
from embedding_operator.summary import refused
from embedding_operator.views import (
    JOB_NAME_LABEL,
    OWNER_UID_LABEL,
    JobView,
    PodView,
    view_deployment,
    view_job,
    view_pod,
)

log = logging.getLogger(__name__)
_LOG_LINES = 40
_EVENTS_AFTER_S = 2  # a pod that has not started by then is asked for its Events
_REFUSED_RETRY_S = 15.0


def utc_now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


@dataclass(slots=True, kw_only=True)
class Reconciler:
    """Holds what a pass needs; the same for every resource."""

    cluster: Cluster
    cache: ChildCache
    defaults: Defaults
    clock: Callable[[], datetime] = utc_now

    def reconcile(self, key: Key) -> float | None:
        """One pass. Seconds until the next one is due, or None: only an event brings it. Raises ClusterError."""
        namespace, name = key
        resource = self.cluster.get("EmbeddingFineTune", namespace, name)
        if resource is None or "deletionTimestamp" in resource["metadata"]:
            METRICS.forget(key)
            return None
        owner = Owner(namespace=namespace, name=name, uid=resource["metadata"]["uid"])
        status = Status.from_json(resource.get("status"))
        observed = self.observe(owner, resource, status)
        decided = plan(owner, resource.get("spec") or {}, status, observed, self.defaults)
        decided = self._act(owner, decided, status, observed)
        self._record(resource, status, decided, observed)
        METRICS.resource(key, decided.status)
        return decided.requeue_after_s

    def observe(self, owner: Owner, resource: Mapping[str, Any], status: Status) -> Observed:
        """Read everything that a decision may depend on."""
        key = (owner.namespace, owner.name)
        now = self.clock()
        pods = self._own("Pod", key, owner)
        jobs = self._jobs(key, owner, status, pods)
        deployments = tuple(
            view
            for raw in self._own("Deployment", key, owner)
            if (view := view_deployment(raw, _pods_of(raw, pods, "app"))) is not None
        )
        services = self.cluster.list("Service", owner.namespace, labels=f"{OWNER_UID_LABEL}={owner.uid}")
        waiting = [pod for job in jobs if not job.finished for pod in job.pods if not pod.started]
        waiting += [pod for item in deployments for pod in item.pods if not pod.started]
        return Observed(
            now=now,
            generation=int(resource["metadata"].get("generation", 1)),
            jobs=jobs,
            deployments=deployments,
            services={raw["metadata"]["name"]: raw for raw in services},
            workspace_exists=self._workspace_exists(owner, resource),
            pod_warnings={pod.uid: self._warnings(owner, pod) for pod in waiting if _is_slow(pod, now)},
            log_tails={job.name: self._log_tail(owner, job) for job in jobs if _wants_log(job, status)},
        )

    def _own(self, kind: str, key: Key, owner: Owner) -> list[Mapping[str, Any]]:
        # A resource deleted and made again under its name must not see its predecessor's children.
        return [
            raw
            for raw in self.cache.children(kind, key)
            if (raw["metadata"].get("labels") or {}).get(OWNER_UID_LABEL) == owner.uid
        ]

    def _jobs(self, key: Key, owner: Owner, status: Status, pods: list[Mapping[str, Any]]) -> tuple[JobView, ...]:
        raws = self._own("Job", key, owner)
        names = {raw["metadata"]["name"] for raw in raws}
        expected = {item.job_name for item in status.stages if item.state in ("Pending", "Waiting", "Running")}
        if any(name and name not in names for name in expected):
            # Gone, or not heard of yet? Only the API server knows, and a wrong guess would run a stage twice.
            for raw in self.cluster.list("Job", owner.namespace, labels=child_selector(owner.name)):
                self.cache.put("Job", raw)
            raws = self._own("Job", key, owner)
        views = _views(raws, pods)
        if any(_lacks_its_answer(view, status) for view in views):
            # Jobs and Pods are watched apart: the end of a Job may be heard of before the last words of its pod.
            for raw in self.cluster.list("Pod", owner.namespace, labels=child_selector(owner.name)):
                self.cache.put("Pod", raw)
            views = _views(raws, self._own("Pod", key, owner))
        return views

    def _workspace_exists(self, owner: Owner, resource: Mapping[str, Any]) -> bool:
        if ((resource.get("spec") or {}).get("storage") or {}).get("existingClaim"):
            return True
        claim = self.cluster.get("PersistentVolumeClaim", owner.namespace, f"{owner.name}-workspace")
        # A stranger's claim of that name does not count; applying ours then says so in a condition.
        owners = (claim or {}).get("metadata", {}).get("ownerReferences") or ()
        return any(reference["uid"] == owner.uid for reference in owners)

    def _warnings(self, owner: Owner, pod: PodView) -> tuple[str, ...]:
        """A pod that waits for a missing Secret or ConfigMap says so only in Events."""
        events = self.cluster.list("Event", owner.namespace, fields=f"involvedObject.uid={pod.uid},type=Warning")
        events.sort(key=lambda raw: str(raw.get("lastTimestamp") or raw.get("eventTime") or ""), reverse=True)
        return tuple(str(raw.get("message", "")) for raw in events[:5])

    def _log_tail(self, owner: Owner, job: JobView) -> str:
        pod = _speaker(job)
        return self.cluster.log_tail(owner.namespace, pod.name, lines=_LOG_LINES) if pod else ""

    def _act(self, owner: Owner, decided: Plan, status: Status, observed: Observed) -> Plan:
        """Carry out the actions; what the API server refuses becomes a condition instead of a crash."""
        try:
            for action in decided.actions:
                log.info("%s", action, extra={"owner": f"{owner.namespace}/{owner.name}"})
                self._do(owner, action)
        except (Rejected, Forbidden, ForeignObject) as error:
            draft = Draft(status=replace(status, observed_generation=observed.generation))
            return refused(draft, observed, type(error).__name__, str(error), retry_s=_REFUSED_RETRY_S)
        return decided

    def _do(self, owner: Owner, action: Action) -> None:
        METRICS.action(type(action).__name__)
        match action:
            case CreateJob():
                self.cache.put("Job", self.cluster.create_job(action.manifest))
            case Apply():
                raw = self.cluster.apply(action.manifest)
                if action.manifest["kind"] == "Deployment":
                    self.cache.put("Deployment", raw)
            case DeleteObject():
                self.cluster.delete(action.kind, owner.namespace, action.name)
            case SuspendJob():
                raw_job = self.cluster.suspend_job(owner.namespace, action.name, suspend=action.suspend)
                if raw_job is not None:
                    self.cache.put("Job", raw_job)
            case _:
                assert_never(action)

    def _record(self, resource: Mapping[str, Any], old: Status, decided: Plan, observed: Observed) -> None:
        """Write the status if it changed, then tell what happened."""
        body = decided.status.to_json()
        if body == (resource.get("status") or {}):
            return
        written = self.cluster.write_status(resource, body)
        for stage in decided.status.stages:
            METRICS.stage_ended(old.stage(stage.name), stage)
        for event in decided.events:
            try:
                self.cluster.post_event(written, event.type, event.reason, event.message, _stamp(observed.now))
            except (Rejected, Forbidden, Conflict) as error:  # an Event that is lost is no reason to fail
                log.warning("event not posted: %s", error)


def _pods_of(raw: Mapping[str, Any], pods: list[Mapping[str, Any]], kind: str) -> list[PodView]:
    """Pods of a Job by its name label, of a Deployment by its selector."""
    wanted = {JOB_NAME_LABEL: raw["metadata"]["name"]} if kind == "job" else raw["spec"]["selector"]["matchLabels"]
    return [
        view_pod(pod)
        for pod in pods
        if all((pod["metadata"].get("labels") or {}).get(k) == v for k, v in wanted.items())
    ]


def _views(jobs: list[Mapping[str, Any]], pods: list[Mapping[str, Any]]) -> tuple[JobView, ...]:
    views = (view_job(raw, _pods_of(raw, pods, "job")) for raw in jobs)
    return tuple(view for view in views if view is not None)


def _speaker(job: JobView) -> PodView | None:
    """The pod whose log is worth reading."""
    return culprit(job) if job.failed else job.pod


def _lacks_its_answer(job: JobView, status: Status) -> bool:
    """A Job that ended, of a stage that is not judged yet, whose pods do not all seem to have ended."""
    entry = status.stage(job.stage)
    if entry.done or entry.state == "Failed" or job.attempt < entry.attempt:
        return False
    return job.finished and (len(job.pods) < job.nodes or any(pod.exit_code is None for pod in job.pods))


def _is_slow(pod: PodView, now: datetime) -> bool:
    return (now - pod.created).total_seconds() >= _EVENTS_AFTER_S


def _wants_log(job: JobView, status: Status) -> bool:
    """Running ones for progress; one that failed once, for the record."""
    pod = _speaker(job)
    if pod is None or not pod.started:
        return False
    if not job.finished:
        return job.all_started
    entry = status.stage(job.stage)
    newest = job.fingerprint == entry.fingerprint and job.attempt >= entry.attempt
    return job.failed and newest and status.last_failure.get("job") != job.name


def _stamp(now: datetime) -> str:
    return f"{now:%Y-%m-%dT%H:%M:%SZ}"
