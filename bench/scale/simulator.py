"""Plays Job controller, Deployment controller and the kubelet's part in Pods, for the operator and its peers alike.

A process of its own, so that its CPU time is nobody else's: `python3 -m bench.scale.simulator FOLDER`. FOLDER has
`simulator.json` (where the API server is), `conf.json` (read again twice a second; see `Conf`) and gets `events.jsonl`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import time
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.scale import work
from bench.scale.api import Raw
from bench.scale.audit import AVAILABLE, JOB_ENDED, POD_ENDED
from bench.scale.kinds import HELD_LABEL
from bench.scale.plane import NODE
from bench.scale.stream import Client


@dataclass(frozen=True)
class Conf:
    """What may change while it runs; seconds."""

    stage_s: float = 1.0
    jitter: float = 0.2  # stages last between 1 - jitter and 1 + jitter times that
    gap_s: float = 1.0  # the real Job controller gathers the ends of pods for a second
    deploy_s: float = 0.5
    kind: str = ""  # what users make: see users.py
    active: int = 0  # how many of them are kept going
    total: int = 0  # and how many at most; 0: without end

    @staticmethod
    def read(path: Path, known: Conf) -> Conf:
        try:
            return replace(known, **json.loads(path.read_text()))
        except (OSError, ValueError):
            return known


class Simulator:
    def __init__(self, client: Client, folder: Path) -> None:
        self.client, self.folder, self.conf = client, folder, Conf()
        self.out = (folder / "events.jsonl").open("a", buffering=1)
        self.jobs: dict[str, asyncio.Task[None]] = {}
        self.rollouts: dict[str, asyncio.Task[None]] = {}
        self.bare: set[str] = set()
        self.background: set[asyncio.Task[None]] = set()

    def tell(self, what: str, **fields: Any) -> None:
        self.out.write(json.dumps({"t": time.time(), "what": what, **fields}) + "\n")

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self.background.add(task)
        task.add_done_callback(self.background.discard)
        return task

    def _lasting(self, seconds: float) -> float:
        return max(0.05, seconds * (1 + self.conf.jitter * random.uniform(-1, 1)))

    async def reread(self) -> None:
        while True:
            self.conf = Conf.read(self.folder / "conf.json", self.conf)
            await asyncio.sleep(0.5)

    # -- Jobs ----------------------------------------------------------------------------------------------------------
    def saw_job(self, event: str, job: Raw) -> None:
        meta = job["metadata"]
        running = self.jobs.get(meta["uid"])
        if event == "DELETED":
            self.tell("gone", namespace=meta["namespace"], name=meta["name"], uid=meta["uid"])
        over = any(
            item["type"] in ("Complete", "Failed") and item["status"] == "True"
            for item in (job.get("status") or {}).get("conditions") or ()
        )
        if event == "DELETED" or over or "deletionTimestamp" in meta or job["spec"].get("suspend"):
            self.jobs.pop(meta["uid"], None)
            if running is not None and not over:
                running.cancel()
            if job["spec"].get("suspend") and running is not None:
                self._spawn(self._delete_pod(meta["namespace"], f"{meta['name']}-0"))
        elif running is None:
            self.jobs[meta["uid"]] = self._spawn(self._job(job))

    async def _job(self, job: Raw) -> None:
        meta, template = job["metadata"], job["spec"]["template"]
        place = {"namespace": meta["namespace"], "name": meta["name"]}
        self.tell("run", **place, chain=_owner(job), uid=meta["uid"], **work.identity_of(job))
        labels = {
            **(template["metadata"].get("labels") or {}),
            "batch.kubernetes.io/job-name": meta["name"],
            "batch.kubernetes.io/controller-uid": meta["uid"],
        }
        annotations = {
            **(template["metadata"].get("annotations") or {}),
            "batch.kubernetes.io/job-completion-index": "0",
        }
        pod = {
            "metadata": {
                "name": f"{meta['name']}-0",
                "namespace": meta["namespace"],
                "labels": labels,
                "annotations": annotations,
                "ownerReferences": [_reference("batch/v1", "Job", meta)],
            },
            "spec": {**template["spec"], "nodeName": NODE},
        }
        pods = f"/api/v1/namespaces/{meta['namespace']}/pods"
        status = f"/apis/batch/v1/namespaces/{meta['namespace']}/jobs/{meta['name']}/status"
        code, answer = await self.client.call("POST", pods, pod)
        if code not in (201, 409):
            self.tell("refused", **place, code=code, message=answer.get("message", "")[:300])
            return
        self.tell("pod", **place, pod=f"{meta['name']}-0", chain=_owner(job))
        started = _now()
        await self._pod_runs(pods, pod, started)
        await self.client.call("PATCH", status, {"status": {"startTime": started, "active": 1, "ready": 1}})
        await asyncio.sleep(self._lasting(self.conf.stage_s))
        code, message = work.result_of(job, "first edition")
        await self._pod_ends(pods, pod, started, code, message)
        await asyncio.sleep(self.conf.gap_s)
        await self.client.call("PATCH", f"{status}?fieldManager={JOB_ENDED}", {"status": _job_over(job, _now())})
        self.tell("ended", **place, chain=_owner(job), uid=meta["uid"])

    async def _pod_runs(self, pods: str, pod: Raw, started: str) -> None:
        containers = [
            _container(item["name"], {"running": {"startedAt": started}}, ready=True)
            for item in pod["spec"]["containers"]
        ]
        status = {"phase": "Running", "startTime": started, "containerStatuses": containers}
        await self.client.call("PATCH", f"{pods}/{pod['metadata']['name']}/status", {"status": status})

    async def _pod_ends(self, pods: str, pod: Raw, started: str, code: int, message: str) -> None:
        ended = {"exitCode": code, "reason": "Completed", "startedAt": started, "finishedAt": _now()}
        first = [{**ended, "message": message}] if message else [ended]
        states = first + [ended] * (len(pod["spec"]["containers"]) - 1)
        containers = [
            _container(item["name"], {"terminated": state}, ready=False)
            for item, state in zip(pod["spec"]["containers"], states, strict=True)
        ]
        status = {"phase": "Succeeded", "containerStatuses": containers}
        path = f"{pods}/{pod['metadata']['name']}/status?fieldManager={POD_ENDED}"
        await self.client.call("PATCH", path, {"status": status})

    # -- Pods ----------------------------------------------------------------------------------------------------------
    def saw_pod(self, event: str, pod: Raw) -> None:
        meta = pod["metadata"]
        if event == "DELETED":
            self.bare.discard(meta["uid"])
        elif "deletionTimestamp" in meta:
            self._spawn(self._delete_pod(meta["namespace"], meta["name"]))
        elif work.is_bare(pod) and meta["uid"] not in self.bare:
            self.bare.add(meta["uid"])
            self._spawn(self._bare_pod(pod))

    async def _bare_pod(self, pod: Raw) -> None:
        """One that its controller made without a Job: it runs, and ends well."""
        meta, pods = pod["metadata"], f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods"
        if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
            return
        if not work.tries_images(pod):
            place = {"namespace": meta["namespace"], "name": meta["name"], "chain": _owner(pod)}
            self.tell("pod", **place, pod=meta["name"])
        started = _now()
        await self._pod_runs(pods, pod, started)
        await asyncio.sleep(0.1 if work.tries_images(pod) else self._lasting(self.conf.stage_s))
        await self._pod_ends(pods, pod, started, 0, "")

    async def _delete_pod(self, namespace: str, name: str) -> None:
        """The kubelet's part of a deletion."""
        await self.client.call("DELETE", f"/api/v1/namespaces/{namespace}/pods/{name}", {"gracePeriodSeconds": 0})

    # -- Deployments ---------------------------------------------------------------------------------------------------
    def saw_deployment(self, event: str, raw: Raw) -> None:
        meta, known = raw["metadata"], self.rollouts.get(raw["metadata"]["uid"])
        if event == "DELETED" or "deletionTimestamp" in meta:
            if known is not None:
                known.cancel()
        elif (raw.get("status") or {}).get("observedGeneration") != meta["generation"]:
            self.rollouts[meta["uid"]] = self._spawn(self._roll_out(raw, known))

    async def _roll_out(self, raw: Raw, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait([before])
        meta, template = raw["metadata"], raw["spec"]["template"]
        place = {"namespace": meta["namespace"], "name": meta["name"], "chain": _owner(raw)}
        self.tell("rollout", **place)
        digest = hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:8]
        pods = f"/api/v1/namespaces/{meta['namespace']}/pods"
        await asyncio.sleep(self.conf.deploy_s)
        for index in range(raw["spec"].get("replicas", 1)):
            labels = {**template["metadata"]["labels"], "pod-template-hash": digest}
            pod = {
                "metadata": {
                    "name": f"{meta['name']}-{digest}-{index}",
                    "namespace": meta["namespace"],
                    "labels": labels,
                    "ownerReferences": [_reference("apps/v1", "Deployment", meta)],
                },
                "spec": {**template["spec"], "nodeName": NODE},
            }
            code, answer = await self.client.call("POST", pods, pod)
            if code not in (201, 409):
                self.tell("refused", **place, code=code, message=answer.get("message", "")[:300])
                return
            await self._pod_runs(pods, pod, _now())
        counted = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")
        status = {"observedGeneration": meta["generation"], **dict.fromkeys(counted, raw["spec"].get("replicas", 1))}
        path = f"/apis/apps/v1/namespaces/{meta['namespace']}/deployments/{meta['name']}/status"
        await self.client.call("PATCH", f"{path}?fieldManager={AVAILABLE}", {"status": status})
        await self._remove_others(pods, meta["uid"], digest)

    async def _remove_others(self, pods: str, uid: str, digest: str) -> None:
        """Pods of earlier templates."""
        _, listed = await self.client.call("GET", f"{pods}?labelSelector=pod-template-hash,pod-template-hash!={digest}")
        for pod in listed.get("items") or ():
            if any(ref["uid"] == uid for ref in pod["metadata"].get("ownerReferences") or ()):
                await self.client.call("DELETE", f"{pods}/{pod['metadata']['name']}", {"gracePeriodSeconds": 0})

    async def run(self) -> None:
        others = f"!{HELD_LABEL}"
        await asyncio.gather(
            self.reread(),
            self.client.watch("/apis/batch/v1/jobs", others, self.saw_job),
            self.client.watch("/apis/apps/v1/deployments", others, self.saw_deployment),
            self.client.watch("/api/v1/pods", others, self.saw_pod),
        )


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _owner(raw: Raw) -> str:
    """The UID of what a Job, a Deployment or a bare Pod was made for."""
    return next((str(ref["uid"]) for ref in raw["metadata"].get("ownerReferences") or ()), raw["metadata"]["uid"])


def _reference(version: str, kind: str, meta: Raw) -> Raw:
    made = {"apiVersion": version, "kind": kind, "name": meta["name"], "uid": meta["uid"]}
    return {**made, "controller": True, "blockOwnerDeletion": True}


def _container(name: str, state: Raw, *, ready: bool) -> Raw:
    known = {"name": name, "image": "image:1", "imageID": "sha256:" + "a" * 64, "restartCount": 0}
    return {**known, "ready": ready, "started": ready, "state": state}


def _job_over(job: Raw, when: str) -> Raw:
    conditions = [
        {"type": kind, "status": "True", "lastTransitionTime": when, "lastProbeTime": when}
        for kind in ("SuccessCriteriaMet", "Complete")
    ]
    indexed = {"completedIndexes": "0"} if job["spec"].get("completionMode") == "Indexed" else {}
    done: Raw = {"succeeded": 1, "active": None, "ready": 0, "uncountedTerminatedPods": {}}
    return {"conditions": conditions, "completionTime": when, **done, **indexed}
