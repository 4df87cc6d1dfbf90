"""Gather: everything that a decision may depend on, read in one pass and frozen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from embedding_operator.cluster import unlabelled
from embedding_operator.cluster.cache import Cache, Key
from embedding_operator.cluster.claims import ExistingClaims
from embedding_operator.cluster.client import Cluster, child_selector
from embedding_operator.cluster.endpoint import Ask
from embedding_operator.cluster.errors import Forbidden
from embedding_operator.cluster.logs import LogTails
from embedding_operator.decide.contract import due_s, renewed
from embedding_operator.decide.decision import Observed
from embedding_operator.decide.outcome import culprit
from embedding_operator.objects.image_pods import view_image_pod
from embedding_operator.objects.manifests.common import Owner
from embedding_operator.objects.manifests.records import contract_name, record_name
from embedding_operator.objects.manifests.serving import service_url, serving_name
from embedding_operator.objects.nim_services import NIM_SERVICE, as_ours, is_made_by_one, made_by, view_nim_service
from embedding_operator.objects.pods import PodView, view_pod
from embedding_operator.objects.views import DeploymentView, EventView, JobView, view_deployment, view_job
from embedding_operator.objects.workloads import WORKLOAD, view_workload
from embedding_operator.resource.conditions import NOTE_NOT_REMOVED, VALIDATED
from embedding_operator.resource.labels import (
    JOB_NAME_LABEL,
    OWNER_UID_LABEL,
    QUEUED_JOB_LABEL,
)
from embedding_operator.resource.status import StageStatus, Status
from embedding_stages.contract.servers import EMBEDDINGS_PATH, SERVERS

_EVENTS_AFTER_S: Final = 2  # of what has not started by then, Events are read
_CONFIRMED_S: Final = 9.0  # what runs is polled each ten seconds: by then its Job's watch may be dead


@dataclass(slots=True, kw_only=True)
class Observer:
    """Reads from the cache what the watches tell, and from the API server what they do not. One a pass."""

    cluster: Cluster
    cache: Cache
    logs: LogTails
    ask: Ask
    claims: ExistingClaims
    beside_watches: bool = False  # something was read that no watch tells of

    def observe(self, owner: Owner, resource: Mapping[str, Any], status: Status, known: Observed) -> Observed:
        """`known` has the time and the generation. Raises ClusterError."""
        key, now = (owner.namespace, owner.name), known.now
        pods = self._own("Pod", key, owner)
        jobs = self._jobs(key, owner, status, pods, now)
        deployments = self._servers(key, owner, resource, status, pods)
        services = [raw for raw in self._own("Service", key, owner) if not is_made_by_one(raw)]
        waiting = [(pod.uid, pod.created) for job in jobs if not job.finished for pod in job.pods if not pod.started]
        waiting += [(pod.uid, pod.created) for item in deployments for pod in item.pods if not pod.started]
        waiting += [(job.uid, job.created) for job in jobs if _lacks_pods(job)]
        return replace(
            known,
            jobs=jobs,
            deployments=deployments,
            image_pods=tuple(found for raw in pods if (found := view_image_pod(raw)) is not None),
            services={raw["metadata"]["name"]: raw for raw in services},
            **self._queue(owner, resource, status, jobs),
            **self._workspace(key, owner, resource, now),
            **self._asked(owner, resource, status, now, deployments),
            warnings={uid: self._warnings(owner, uid) for uid, created in waiting if _is_slow(created, now)},
            log_tails={job.name: self._log_tail(key, job) for job in jobs if _wants_log(job, status)},
        )

    def _servers(
        self, key: Key, owner: Owner, resource: Mapping[str, Any], status: Status, pods: list[Mapping[str, Any]]
    ) -> tuple[DeploymentView, ...]:
        deployments = self._own("Deployment", key, owner)
        views = [view_deployment(raw, _pods_of(raw, pods, "app")) for raw in deployments if not is_made_by_one(raw)]
        there = any(is_made_by_one(raw) for raw in deployments)
        for raw in self._nim_services(key, owner, resource, there=there):
            made = made_by(raw, deployments)
            named = [as_ours(pod, raw["metadata"]["name"]) for pod in pods]
            views.append(view_nim_service(raw, made, _pods_of(made, named, "app") if made is not None else []))
        found = [view for view in views if view is not None]
        missing = unlabelled.missing_servers(owner, status.served, {view.name for view in found})
        self.beside_watches |= bool(missing)
        lives = unlabelled.servers(self.cluster, owner, missing)
        more = (view_deployment(live, _pods_of(live, pods, "app")) for live in lives)
        return (*found, *(view for view in more if view is not None))

    def _nim_services(
        self, key: Key, owner: Owner, resource: Mapping[str, Any], *, there: bool
    ) -> list[dict[str, Any]]:
        """Asked for where the manifest names the backend, and for as long as there are some, or what they made."""
        stages = (resource.get("spec") or {}).get("stages") or {}
        backends = (stages.get("deploy") or {}).get("backend") or {}
        known = self._own(NIM_SERVICE, key, owner)
        if (
            not known
            and not there
            and not any(item.run_by == NIM_SERVICE and item.backend in backends for item in SERVERS)
        ):
            return []
        self.beside_watches = True
        found = self.cluster.list(NIM_SERVICE, owner.namespace, labels=f"{OWNER_UID_LABEL}={owner.uid}")
        names = {raw["metadata"]["name"] for raw in found}
        for raw in found:
            self.cache.put(NIM_SERVICE, raw)
        for gone in known:
            if gone["metadata"]["name"] not in names:
                self.cache.drop(NIM_SERVICE, gone)
        return found

    def _own(self, kind: str, key: Key, owner: Owner) -> list[Mapping[str, Any]]:
        known: Sequence[Mapping[str, Any]] = self.cache.children(kind, key)
        if not self.cache.may_list(kind, owner.namespace):
            self.beside_watches = True
            known = self.cluster.list(kind, owner.namespace, labels=child_selector(owner.name))
        # A resource deleted and made again under its name must not see its predecessor's children.
        return [raw for raw in known if (raw["metadata"].get("labels") or {}).get(OWNER_UID_LABEL) == owner.uid]

    def _jobs(
        self, key: Key, owner: Owner, status: Status, pods: list[Mapping[str, Any]], now: datetime
    ) -> tuple[JobView, ...]:
        raws = self._own("Job", key, owner)
        names = {raw["metadata"]["name"] for raw in raws}
        looks = [status.schedule.look] if status.schedule.look is not None else []
        expected = {
            item.job_name: item
            for item in (*status.stages, *looks)
            if item.job_name and item.state in ("Pending", "Waiting", "Running")
        }
        unheard_of = list[StageStatus]()
        if expected.keys() - names:
            # Gone, or not heard of yet? Only the API server knows, and a wrong guess would run a stage twice.
            for raw in self.cluster.list("Job", owner.namespace, labels=child_selector(owner.name)):
                self.cache.put("Job", raw)
            raws = self._own("Job", key, owner)
            names = {raw["metadata"]["name"] for raw in raws}
            unheard_of = [item for name, item in expected.items() if name not in names]
            self.beside_watches |= bool(unheard_of)
        # One that was given up is deleted after that is on record, and its labels may be gone by then.
        given_up = (item for item in (*status.stages, *looks) if item.state == "Failed" and item.job_name)
        unheard_of += [item for item in given_up if item.job_name not in names]
        asked = [unlabelled.job(self.cluster, owner, item) for item in unheard_of]
        found = [raw for raw in asked if raw is not None]
        self.beside_watches |= bool(found)
        confirmed = (self._confirmed(key, raw) for raw in raws)
        raws = [*(raw for raw in confirmed if raw is not None), *found]
        views = _views(raws, pods)
        if any(_lacks_its_answer(view, status) for view in views):
            # Jobs and Pods are watched apart: the end of a Job may be heard of before the last words of its pod.
            for raw in self.cluster.list("Pod", owner.namespace, labels=child_selector(owner.name)):
                self.cache.put("Pod", raw)
            pods = self._own("Pod", key, owner)
            views = _views(raws, pods)
        # One that seems to have no pod for long may have one whose labels somebody took off, and that runs.
        slow = [view for view in views if _lacks_pods(view) and _is_slow(view.created, now)]
        self.beside_watches |= bool(slow)
        if lacking := [*slow, *(view for view in views if _lacks_its_answer(view, status))]:
            views = _views(raws, [*pods, *unlabelled.pods(self.cluster, owner, lacking, pods)])
        return views

    def _confirmed(self, key: Key, job: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """The Job as it is known, or read anew where nothing was heard of it for a while: a watch may be dead."""
        name, ends = job["metadata"]["name"], (job.get("status") or {}).get("conditions") or ()
        over = any(item.get("type") in ("Complete", "Failed") and item.get("status") == "True" for item in ends)
        if over or self.cache.confirmed_ago_s("Job", key, name) < _CONFIRMED_S:
            return job
        live = self.cluster.get("Job", key[0], name)
        if live is None:
            self.cache.forget("Job", key, name, job["metadata"]["uid"])
        else:
            self.cache.put("Job", live)
        return live

    def _asked(
        self,
        owner: Owner,
        resource: Mapping[str, Any],
        status: Status,
        now: datetime,
        servers: Sequence[DeploymentView],
    ) -> dict[str, Any]:
        """What the manifest asks to look at beside its children: a pinned revision, and what serves."""
        raw, served = resource.get("spec") or {}, status.served
        found: dict[str, Any] = {}
        pinned = ((raw.get("stages") or {}).get("deploy") or {}).get("pinRevision")
        if pinned is not None:
            name = record_name(owner.name, int(pinned))
            found["pinned"] = self._own_record(owner, name)
        if not served.active_fingerprint or not served.url or not served.vector_space:
            return found
        interval = (raw.get("verification") or {}).get("intervalSeconds")
        left_s = due_s(served, interval, now, renewed(status, servers))
        due = left_s is not None and left_s <= 0
        if due or "takenAt" not in served.canaries:
            url = f"{service_url(owner, serving_name(owner.name, served.active_fingerprint))}{EMBEDDINGS_PATH}"
            found["canaries"] = self.ask(url, {**served.contract, "model": served.model})
            found["canaries_of"] = served.active_fingerprint
        if due:
            found["contract"] = self._own_record(owner, contract_name(owner.name))
        return found

    def _queue(
        self, owner: Owner, resource: Mapping[str, Any], status: Status, jobs: Sequence[JobView]
    ) -> dict[str, Any]:
        """What Kueue says of the Jobs that wait for it; and of all in its queue where spec.suspend is about them, or
        was when something was refused: a note may still be there.
        """
        edited = resource["metadata"].get("generation") != status.observed_generation
        stopping = edited or bool((resource.get("spec") or {}).get("suspend")) or status.phase == "Suspended"
        valid = status.condition(VALIDATED)
        stopping |= valid is not None and (valid.status != "True" or valid.reason == NOTE_NOT_REMOVED)
        found: dict[str, Any] = {}
        try:
            for job in jobs:
                known_to_kueue = job.queue or (job.suspended and job.suspended_by is None)
                if job.finished or not known_to_kueue or not (stopping or job.suspended):
                    continue
                self.beside_watches = True
                labels = f"{QUEUED_JOB_LABEL}={job.uid}"
                for raw in self.cluster.list(WORKLOAD, owner.namespace, labels=labels):
                    found[job.uid] = view_workload(raw)
        except Forbidden as error:
            return {"workloads_unread": str(error)}
        return {"workloads": found}

    def _own_record(self, owner: Owner, name: str) -> Mapping[str, Any] | None:
        self.beside_watches = True
        raw = self.cluster.get("ConfigMap", owner.namespace, name)
        labels = ((raw or {}).get("metadata") or {}).get("labels") or {}
        return raw if labels.get(OWNER_UID_LABEL) == owner.uid else None

    def _workspace(self, key: Key, owner: Owner, resource: Mapping[str, Any], now: datetime) -> dict[str, Any]:
        if existing := ((resource.get("spec") or {}).get("storage") or {}).get("existingClaim"):
            modes, read = self.claims.modes(owner.namespace, existing, now)
            self.beside_watches |= read
            return {"workspace_exists": True, "workspace_modes": modes}
        # A stranger's claim of that name does not count; applying ours then says so in a condition.
        claims = (raw for raw in self._own("PersistentVolumeClaim", key, owner) if owner.owns(raw))
        claim = next((raw for raw in claims if raw["metadata"]["name"] == f"{owner.name}-workspace"), None)
        if claim is None:
            return {"workspace_exists": False}
        return {"workspace_exists": True, "workspace_request": claim["spec"]["resources"]["requests"]["storage"]}

    def _warnings(self, owner: Owner, uid: str) -> tuple[EventView, ...]:
        """A pod that waits for a Secret or a volume, and a Job that cannot have a pod, say so only in Events."""
        self.beside_watches = True
        events = self.cluster.list("Event", owner.namespace, fields=f"involvedObject.uid={uid},type=Warning")
        events.sort(key=lambda raw: str(raw.get("lastTimestamp") or raw.get("eventTime") or ""), reverse=True)
        return tuple(
            EventView(reason=str(raw.get("reason", "")), message=str(raw.get("message", ""))) for raw in events[:5]
        )

    def _log_tail(self, key: Key, job: JobView) -> str:
        pod = _speaker(job)
        if pod is None:
            return ""
        return self.logs.last(key, pod) if job.failed else self.logs.newest(key, pod)


def _pods_of(raw: Mapping[str, Any], pods: Sequence[Mapping[str, Any]], kind: str) -> list[PodView]:
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
    entry = status.done_by(job.stage, job.fingerprint)
    followed = entry.fingerprint == job.fingerprint and job.attempt < entry.attempt
    if followed or status.has_judged(job.stage, job.fingerprint, job.revision, job.created):
        return False
    return job.finished and (len(job.pods) < job.nodes or any(pod.exit_code is None for pod in job.pods))


def _lacks_pods(job: JobView) -> bool:
    return not job.finished and not job.suspended and not job.deleting and len(job.pods) < job.nodes


def _is_slow(created: datetime, now: datetime) -> bool:
    return (now - created).total_seconds() >= _EVENTS_AFTER_S


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
