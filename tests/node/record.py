"""What the API server told of resources, one after another: what their status said, and every pod of their stages.

A status says what is; a fault is over before a look at its end. So these watches go on for as long as the tests run.
"""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from e2e.kube import NAMESPACE, Kube

from embedding_operator.resource.folding import written_out
from embedding_operator.resource.labels import FINGERPRINT_ANNOTATION, JOB_NAME_LABEL, OWNER_LABEL, STAGE_LABEL

Raw = Mapping[str, Any]
_RESOURCES = f"/apis/embedding-operator.dev/v1alpha1/namespaces/{NAMESPACE}/embeddingfinetunes"
_JOBS = f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs"
_PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
NOT_STARTED, RUNNING = "not started", "running"


@dataclass(frozen=True)
class Said:
    """What one stage's entry, or a condition, said until it said something else."""

    about: str
    state: str
    reason: str
    message: str = field(compare=False)
    attempt: int = 0

    def __str__(self) -> str:
        attempt = f" (attempt {self.attempt})" if self.attempt else ""
        return f"{self.about} {self.state} {self.reason}{attempt}: {self.message}"


@dataclass(frozen=True)
class Ran:
    """One pod of a stage, as it was last seen."""

    owner: str
    stage: str
    job: str
    name: str
    end: str  # exit code and the kubelet's word for it, or that it had none
    disruption: str  # the reason of its condition DisruptionTarget


@dataclass
class Record:
    kube: Kube
    said: dict[str, list[Said]] = field(default_factory=dict)  # by resource
    pods: dict[str, Ran] = field(default_factory=dict)  # by uid
    fingerprints: dict[str, str] = field(default_factory=dict)  # by Job
    _watches: dict[str, subprocess.Popen[str]] = field(default_factory=dict)
    _threads: list[threading.Thread] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        for path, tell in ((_RESOURCES, self._resource), (_JOBS, self._job), (_PODS, self._pod)):
            thread = threading.Thread(target=self._follow, args=(path, tell))
            self._threads.append(thread)
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for watch in self._watches.values():
            watch.terminate()
        for thread in self._threads:
            thread.join()

    def _follow(self, path: str, tell: Callable[[Raw], None]) -> None:
        """Again and again: a watch ends with the API server, and begins with all that there is."""
        while not self._over.is_set():
            command = ["kubectl", "get", "--raw", f"{path}?watch=1"]
            with subprocess.Popen(
                command, env=self.kube.env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            ) as watch:
                self._watches[path] = watch
                assert watch.stdout is not None
                for line in watch.stdout:
                    if line.endswith("\n"):  # the last one of a server that was killed may be cut
                        event = json.loads(line)
                        if event["type"] in ("ADDED", "MODIFIED", "DELETED"):
                            tell(event["object"])
            self._over.wait(1)

    def _resource(self, raw: Raw) -> None:
        status = written_out(raw.get("status") or {})
        log = self.said.setdefault(raw["metadata"]["name"], [])
        found = [
            Said(item["name"], item["state"], item.get("reason", ""), item.get("message", ""), item.get("attempt", 0))
            for item in status.get("stages", ())
        ]
        found += [
            Said(item["type"], item["status"], item.get("reason", ""), item.get("message", ""))
            for item in status.get("conditions", ())
        ]
        for said in found:
            last = next((item for item in reversed(log) if item.about == said.about), None)
            if said != last:
                log.append(said)

    def _job(self, raw: Raw) -> None:
        notes = raw["metadata"].get("annotations") or {}
        self.fingerprints[raw["metadata"]["name"]] = notes.get(FINGERPRINT_ANNOTATION, "")

    def _pod(self, raw: Raw) -> None:
        meta, status = raw["metadata"], raw.get("status") or {}
        labels = meta.get("labels") or {}
        if JOB_NAME_LABEL not in labels or STAGE_LABEL not in labels:
            return
        conditions = {item["type"]: item for item in status.get("conditions") or ()}
        self.pods[meta["uid"]] = Ran(
            owner=labels[OWNER_LABEL],
            stage=labels[STAGE_LABEL],
            job=labels[JOB_NAME_LABEL],
            name=meta["name"],
            end=_end(status),
            disruption=(conditions.get("DisruptionTarget") or {}).get("reason", ""),
        )

    def mark(self, name: str) -> int:
        """Where the log of a resource is now; `since` begins there."""
        return len(self.said.get(name, ()))

    def since(self, name: str, mark: int, about: str = "") -> list[Said]:
        return [item for item in self.said.get(name, ())[mark:] if about in ("", item.about)]

    def reasons(self, name: str, mark: int, about: str) -> list[str]:
        return [item.reason for item in self.since(name, mark, about)]

    def pods_of(self, name: str, stage: str, fingerprint: str) -> list[Ran]:
        return [
            item
            for item in self.pods.values()
            if (item.owner, item.stage) == (name, stage) and self.fingerprints.get(item.job) == fingerprint
        ]

    def done_twice(self, name: str) -> list[str]:
        """Stages whose pods came to a good end more than once for the same fingerprint."""
        ends: dict[tuple[str, str], int] = {}
        for item in self.pods.values():
            if item.owner == name and item.end.startswith("0 "):
                key = item.stage, self.fingerprints.get(item.job, "")
                ends[key] = ends.get(key, 0) + 1
        return [f"{stage} {fingerprint[:12]} x{times}" for (stage, fingerprint), times in ends.items() if times > 1]

    def table(self, name: str, mark: int, *about: str) -> str:
        """For people: what was said, and how pods ended."""
        lines = [str(item) for item in self.since(name, mark) if not about or item.about in about]
        return "\n".join(lines)


def _end(status: Raw) -> str:
    container = next((item for item in status.get("containerStatuses") or () if item["name"] == "stage"), {})
    state = container.get("state") or {}
    if "terminated" in state:
        return f"{state['terminated']['exitCode']} {state['terminated'].get('reason', '')}"
    if status.get("reason"):  # the kubelet's or the node controller's word for a pod that it gave up
        return str(status["reason"])
    return RUNNING if "running" in state else NOT_STARTED
