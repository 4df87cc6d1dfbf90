"""Stand-ins for what is not running beside a bare API server: Job and Deployment controllers, a kubelet, garbage
collection. What stages do in their pods is the simulation's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from apiserver.api import Api, pod_of
from simulation.work import do_work

from embedding_operator.resource.labels import INDEX_ANNOTATION, JOB_NAME_LABEL, STAGE_LABEL
from embedding_stages.contract import ENV_REQUEST, Stage, StageRequest

Raw = dict[str, Any]
NOW = "2026-01-01T00:00:00Z"
PATHS = {
    "Job": "/apis/batch/v1/namespaces/{}/jobs",
    "Pod": "/api/v1/namespaces/{}/pods",
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "Service": "/api/v1/namespaces/{}/services",
}


@dataclass
class Controllers:
    """`step` brings everything in one namespace a little further."""

    api: Api
    namespace: str
    volume: dict[str, str] = field(default_factory=dict)  # path -> digest of what lies there
    held: set[Stage] = field(default_factory=set)  # stages whose pods do not start
    ran: list[tuple[Stage, int, int]] = field(default_factory=list)  # stage, attempt, revision

    def find(self, kind: str) -> list[Raw]:
        status, answer = self.api.send("GET", PATHS[kind].format(self.namespace))
        assert status == 200, answer
        return list(answer["items"])

    def stages(self) -> list[Stage]:
        """Of all Jobs, in the order of the pipeline."""
        found = [Stage(job["metadata"]["labels"][STAGE_LABEL]) for job in self.find("Job")]
        return sorted(found, key=list(Stage).index)

    def step(self) -> None:
        for kind in ("Job", "Deployment", "Service"):
            for raw in self.find(kind):
                if "deletionTimestamp" in raw["metadata"]:
                    self._collect(kind, raw)
                elif kind == "Job" and not (raw.get("status") or {}).get("conditions"):
                    self._job(raw)
                elif kind == "Deployment":
                    self._deployment(raw)

    def _collect(self, kind: str, raw: Raw) -> None:
        name = raw["metadata"]["name"]
        for pod in self.find("Pod"):
            if kind != "Service" and pod["metadata"]["name"].startswith(f"{name}-"):
                self._send("DELETE", "Pod", pod["metadata"]["name"], {"gracePeriodSeconds": 0})
        self._send("PUT", kind, name, {**raw, "metadata": {**raw["metadata"], "finalizers": []}})

    def _job(self, job: Raw) -> None:
        request = _request_of(job)
        if job["spec"].get("suspend") or request.stage in self.held:
            return
        nodes = job["spec"]["completions"]
        code, result = do_work(request, self.volume, "first edition", 0.0, 0)
        self.ran.append((request.stage, request.attempt, request.revision))
        for index in range(nodes):
            self._pod(job, index, code, result.to_json() if index == 0 else "")
        conditions = [
            {"type": kind, "status": "True", "lastTransitionTime": NOW, "lastProbeTime": NOW}
            for kind in ("SuccessCriteriaMet", "Complete")
        ]
        done = {"startTime": NOW, "completionTime": NOW, "succeeded": nodes, "uncountedTerminatedPods": {}}
        if _indexed(job):
            done["completedIndexes"] = f"0-{nodes - 1}"
        self._status("Job", job["metadata"]["name"], {**done, "conditions": conditions})

    def _pod(self, job: Raw, index: int, code: int, message: str) -> None:
        """A pod as the Job controller makes it, at its end."""
        name, template = job["metadata"]["name"], job["spec"]["template"]
        meta: Raw = {"labels": {**template["metadata"]["labels"], JOB_NAME_LABEL: name}}
        spec = template["spec"]
        if _indexed(job):
            meta["annotations"] = {INDEX_ANNOTATION: str(index)}
            spec = {**spec, "hostname": f"{name}-{index}"}
        pod = pod_of({"metadata": meta, "spec": spec}, f"{name}-{index}-pod", self.namespace)
        self._send("POST", "Pod", "", pod)
        ended = {"exitCode": code, "reason": "Completed", "message": message, "finishedAt": NOW}
        container = {"name": "stage", "image": "i", "imageID": "i", "ready": False, "restartCount": 0}
        statuses = [{**container, "state": {"terminated": ended}}]
        self._status("Pod", f"{name}-{index}-pod", {"phase": "Succeeded", "containerStatuses": statuses})

    def _deployment(self, raw: Raw) -> None:
        count = raw["spec"]["replicas"]
        names = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")
        wanted = {"observedGeneration": raw["metadata"]["generation"], **dict.fromkeys(names, count)}
        if not wanted.items() <= (raw.get("status") or {}).items():
            self._status("Deployment", raw["metadata"]["name"], wanted)

    def _status(self, kind: str, name: str, status: Raw) -> None:
        self._send("PATCH", kind, f"{name}/status", {"status": status}, "application/merge-patch+json")

    def _send(self, method: str, kind: str, name: str, body: Raw, content_type: str = "application/json") -> None:
        path = PATHS[kind].format(self.namespace) + (f"/{name}" if name else "")
        status, answer = self.api.send(method, path, body, content_type)
        # The operator works at the same time: what it deleted or changed meanwhile is looked at in the next step.
        assert status < 300 or status in (404, 409), answer


def _indexed(job: Raw) -> bool:
    return job["spec"].get("completionMode") == "Indexed"


def _request_of(job: Raw) -> StageRequest:
    env = job["spec"]["template"]["spec"]["containers"][0]["env"]
    text = next(item["value"] for item in env if item["name"] == ENV_REQUEST)
    return StageRequest.from_json(text.replace("$$", "$"))
