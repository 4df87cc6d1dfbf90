"""Stand-ins for what is not running beside a bare API server: Job and Deployment controllers, a kubelet, garbage
collection. They act on watches, and keep every event in etcd's order: the history that the oracles read.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self

import aiohttp
from faults.plans import Raw
from faults.proxy import lines_of
from faults.record import Entry, request_in
from simulation.endings import DONE, Ending
from simulation.work import do_work

from embedding_operator.resource.api import KIND
from embedding_operator.resource.labels import IMAGE_CHECK_LABEL, JOB_NAME_LABEL, STAGE_LABEL
from embedding_stages.contract import Stage, StageResult

PATHS = {
    KIND: ("/apis/embedding-operator.dev/v1alpha1", "embeddingfinetunes"),
    "Job": ("/apis/batch/v1", "jobs"),
    "Pod": ("/api/v1", "pods"),
    "Deployment": ("/apis/apps/v1", "deployments"),
    "Service": ("/api/v1", "services"),
    "PersistentVolumeClaim": ("/api/v1", "persistentvolumeclaims"),
    "ConfigMap": ("/api/v1", "configmaps"),
}
MERGE = "application/merge-patch+json"


@dataclass
class Place:
    """What goes on in one namespace."""

    namespace: str
    volume: dict[str, str] = field(default_factory=dict)  # path -> digest of what lies there
    held: set[Stage] = field(default_factory=set)  # stages whose pods run until they are let go
    endings: dict[Stage, list[Ending]] = field(default_factory=lambda: defaultdict(list))
    history: list[Entry] = field(default_factory=list)
    objects: dict[tuple[str, str], Raw] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)  # uids of what was there
    begun: set[str] = field(default_factory=set)  # uids of Jobs that have a pod
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    collecting: bool = False

    def find(self, kind: str) -> list[Raw]:
        return [raw for (found, _), raw in self.objects.items() if found == kind]

    def take_in(self, entry: Entry) -> None:
        self.history.append(entry)
        uid = entry.raw["metadata"]["uid"]
        if entry.change == "DELETED":
            self.gone.add(uid)
            if self.objects.get(entry.key, entry.raw)["metadata"]["uid"] == uid:
                self.objects.pop(entry.key, None)
        else:
            self.objects[entry.key] = entry.raw
        self.changed.set()

    def release(self, *stages: Stage) -> None:
        self.held -= set(stages or self.held)
        self.changed.set()


class World:
    """All namespaces. `async with` watches; `reach` speaks to the API server as administrator."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url, self.session = url, session
        self.places: dict[str, Place] = {}
        self.trouble: list[str] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        for kind in PATHS:
            self._spawn(self._watch(kind))
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def place(self, namespace: str) -> Place:
        return self.places.setdefault(namespace, Place(namespace))

    # The API server.

    async def reach(
        self, method: str, path: str, body: Any = None, content_type: str = "application/json"
    ) -> tuple[int, Raw]:
        data = json.dumps(body).encode() if body is not None else None
        async with self.session.request(
            method, f"{self.url}{path}", data=data, headers={"Content-Type": content_type}
        ) as answer:
            return answer.status, json.loads(await answer.read() or b"{}")

    async def send(
        self,
        method: str,
        kind: str,
        namespace: str,
        name: str,
        body: Any = None,
        content_type: str = "application/json",
    ) -> Raw:
        """What is gone or was changed meanwhile is met again in its next event."""
        base, plural = PATHS[kind]
        path = f"{base}/namespaces/{namespace}/{plural}" + (f"/{name}" if name else "")
        status, answer = await self.reach(method, path, body, content_type)
        assert status < 300 or status in (404, 409), answer
        return answer

    # Watches.

    async def _watch(self, kind: str) -> None:
        base, plural = PATHS[kind]
        _, listed = await self.reach("GET", f"{base}/{plural}?limit=1")
        version = listed["metadata"]["resourceVersion"]
        while True:
            url = f"{self.url}{base}/{plural}?watch=true&resourceVersion={version}&allowWatchBookmarks=true"
            async with self.session.get(url) as answer:
                async for line in lines_of(answer.content):
                    event = json.loads(line)
                    assert event["type"] != "ERROR", event
                    version = event["object"]["metadata"]["resourceVersion"]
                    if event["type"] != "BOOKMARK":
                        self._take_in(kind, event["type"], event["object"])

    def _take_in(self, kind: str, change: str, raw: Raw) -> None:
        raw["kind"] = kind
        place = self.places.get(raw["metadata"]["namespace"])
        if place is None:
            return
        place.take_in(Entry(int(raw["metadata"]["resourceVersion"]), change, raw))
        if change == "DELETED":
            self._spawn(self._collect(place))
        elif "deletionTimestamp" in raw["metadata"]:
            self._spawn(self._finalize(place, raw))
        elif kind == "Job":
            self._job(place, raw)
        elif kind == "Deployment":
            self._spawn(self._deployment(place, raw))
        elif kind == "Pod" and IMAGE_CHECK_LABEL in raw["metadata"].get("labels", {}) and not _over(raw):
            self._spawn(self._images(place, raw))
        if _orphaned(place, raw):
            self._spawn(self._collect(place))

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.trouble.append(f"stand-in: {error!r}")

    # Jobs.

    def _job(self, place: Place, job: Raw) -> None:
        uid = job["metadata"]["uid"]
        suspended, ended = job["spec"].get("suspend"), (job.get("status") or {}).get("conditions")
        if suspended and uid in place.begun and not ended:
            place.begun.discard(uid)
            self._spawn(self._stop_pods(place, uid))
        elif (
            not suspended and not ended and uid not in place.begun and STAGE_LABEL in job["metadata"].get("labels", {})
        ):
            place.begun.add(uid)
            self._spawn(self._run(place, job))

    def run_again(self, place: Place, job: Raw) -> None:
        """What the Job's controller does when a pod is gone."""
        place.begun.add(job["metadata"]["uid"])
        self._spawn(self._run(place, job))

    async def _run(self, place: Place, job: Raw) -> None:
        request, meta = request_in(job["spec"]["template"]["spec"]), job["metadata"]
        assert request is not None
        endings = place.endings[request.stage]
        ending = endings.pop(0) if endings else DONE
        number = len([entry for entry in place.history if entry.change == "ADDED" and _owned(entry.raw, meta["uid"])])
        pod, uid = await self._pod(place, job, f"{meta['name']}-{number}")
        if request.stage in place.held:
            running = _container({"running": {"startedAt": _now()}})
            await self._status(place, "Pod", pod, {"phase": "Running", "containerStatuses": [running]})
        while request.stage in place.held:
            place.changed.clear()
            await place.changed.wait()
        if not self._going(place, job) or uid in place.gone:
            return
        code, result = do_work(request, place.volume, "first edition", 0.0, 0)
        if ending is not DONE:
            code = ending.exit_code
            said = StageResult(
                stage=request.stage, fingerprint=request.fingerprint, reason=ending.reason,
                message=ending.message, field=ending.field,
            )  # fmt: skip
            result = said
        words = "" if ending is not DONE and not ending.reason else result.to_json()
        why = ending.reason if ending.reason == "OOMKilled" else "Completed" if code == 0 else "Error"
        ended = _container({"terminated": {"exitCode": code, "reason": why, "message": words, "finishedAt": _now()}})
        phase = "Succeeded" if code == 0 else "Failed"
        await self._status(place, "Pod", pod, {"phase": phase, "containerStatuses": [ended]})
        await self._status(place, "Job", meta["name"], _end_of(job, code))

    def _going(self, place: Place, job: Raw) -> bool:
        now = place.objects.get(("Job", job["metadata"]["name"]))
        same = now is not None and now["metadata"]["uid"] == job["metadata"]["uid"]
        return (
            same and now is not None and "deletionTimestamp" not in now["metadata"] and not now["spec"].get("suspend")
        )

    async def _pod(self, place: Place, job: Raw, name: str) -> tuple[str, str]:
        """Its name and uid."""
        template, meta = job["spec"]["template"], job["metadata"]
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": meta["name"], "uid": meta["uid"], "controller": True}
        labels = {**template["metadata"]["labels"], JOB_NAME_LABEL: meta["name"]}
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": labels, "ownerReferences": [owner]},
            "spec": template["spec"],
        }
        made = await self.send("POST", "Pod", place.namespace, "", pod)
        return name, str(made["metadata"].get("uid", ""))

    async def _stop_pods(self, place: Place, uid: str) -> None:
        for pod in place.find("Pod"):
            if _owned(pod, uid) and not _over(pod):
                await self._delete(place, pod)

    async def _status(self, place: Place, kind: str, name: str, status: Raw) -> None:
        await self.send("PATCH", kind, place.namespace, f"{name}/status", {"status": status}, MERGE)

    # Servers, and the pod that tries images.

    async def _deployment(self, place: Place, raw: Raw) -> None:
        names = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")
        count = raw["spec"]["replicas"]
        wanted = {"observedGeneration": raw["metadata"]["generation"], **dict.fromkeys(names, count)}
        if {key: (raw.get("status") or {}).get(key, 0) for key in wanted} != wanted:
            await self._status(place, "Deployment", raw["metadata"]["name"], wanted)

    async def _images(self, place: Place, pod: Raw) -> None:
        ended = [
            {**_container({"terminated": {"exitCode": 0, "reason": "Completed"}}), "name": item["name"]}
            for item in pod["spec"]["containers"]
        ]
        await self._status(place, "Pod", pod["metadata"]["name"], {"phase": "Succeeded", "containerStatuses": ended})

    # Garbage collection.

    async def _finalize(self, place: Place, raw: Raw) -> None:
        """Foreground: dependents first. Orphan: they lose their owner."""
        finalizers, uid = raw["metadata"].get("finalizers") or [], raw["metadata"]["uid"]
        for child in [item for item in place.objects.values() if _owned(item, uid)]:
            kind, name = child["kind"], child["metadata"]["name"]
            if "orphan" in finalizers:
                left = [ref for ref in child["metadata"]["ownerReferences"] if ref["uid"] != uid]
                await self.send("PATCH", kind, place.namespace, name, {"metadata": {"ownerReferences": left}}, MERGE)
            elif "foregroundDeletion" in finalizers:
                await self._delete(place, child)
        if finalizers:
            patch = {"metadata": {"finalizers": [], "uid": uid}}
            await self.send("PATCH", raw["kind"], place.namespace, raw["metadata"]["name"], patch, MERGE)

    async def _collect(self, place: Place) -> None:
        """What has owners, and none of them is there. One collector at a time, until there is no more."""
        if place.collecting:
            return
        place.collecting = True
        try:
            asked: set[str] = set()
            while found := [raw for raw in place.objects.values() if _orphaned(place, raw) and _uid(raw) not in asked]:
                asked |= {_uid(raw) for raw in found}
                for kind in {raw["kind"] for raw in found}:
                    of_kind = [raw for raw in found if raw["kind"] == kind]
                    if len(of_kind) == len(place.find(kind)) > 1 and kind != "Service":  # those cannot go together
                        await self.send("DELETE", kind, place.namespace, "", _options(kind))
                    else:
                        for raw in of_kind:
                            await self._delete(place, raw)
        finally:
            place.collecting = False

    async def _delete(self, place: Place, raw: Raw) -> None:
        options = {**_options(raw["kind"]), "preconditions": {"uid": _uid(raw)}}
        await self.send("DELETE", raw["kind"], place.namespace, raw["metadata"]["name"], options)


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _options(kind: str) -> Raw:
    return {"propagationPolicy": "Background", **({"gracePeriodSeconds": 0} if kind == "Pod" else {})}


def _uid(raw: Raw) -> str:
    return str(raw["metadata"]["uid"])


def _owned(raw: Raw, uid: str) -> bool:
    return any(ref["uid"] == uid for ref in raw["metadata"].get("ownerReferences") or ())


def _orphaned(place: Place, raw: Raw) -> bool:
    """It had owners. One that is not heard of yet counts as alive: watches of several kinds tell at their own times."""
    owners = raw["metadata"].get("ownerReferences") or ()
    return bool(owners) and all(ref["uid"] in place.gone for ref in owners)


def _over(pod: Raw) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def _container(state: Raw) -> Raw:
    return {"name": "stage", "image": "i", "imageID": "i", "ready": False, "restartCount": 0, "state": state}


def _end_of(job: Raw, code: int) -> Raw:
    kinds = ("SuccessCriteriaMet", "Complete") if code == 0 else ("FailureTarget", "Failed")
    reason = "CompletionsReached" if code == 0 else "BackoffLimitExceeded"
    conditions = [
        {"type": kind, "status": "True", "reason": reason, "lastTransitionTime": _now(), "lastProbeTime": _now()}
        for kind in kinds
    ]
    status: Raw = {"startTime": _now(), "uncountedTerminatedPods": {}, "conditions": conditions}
    if code:
        return {**status, "failed": 1}
    done = {**status, "completionTime": _now(), "succeeded": job["spec"]["completions"]}
    return {**done, "completedIndexes": "0"} if job["spec"].get("completionMode") == "Indexed" else done
