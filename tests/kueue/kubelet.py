"""A played kubelet beside real controllers: it runs the pods of stages and of servers, and ends those deleted."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from apiserver.api import Api
from simulation.work import do_work

from embedding_operator.resource.labels import SERVING_LABEL, STAGE_LABEL
from embedding_stages.contract import ENV_REQUEST, Stage, StageRequest

Raw = dict[str, Any]
PODS = "/api/v1/namespaces/{}/pods"
SIGTERM = 143


@dataclass
class Kubelet:
    """`step` brings every pod of one namespace a little further."""

    api: Api
    namespace: str
    volume: dict[str, str] = field(default_factory=dict)
    held: set[Stage] = field(default_factory=set)  # stages whose pods run on
    started: list[Stage] = field(default_factory=list)  # of every pod that was started
    stopped: list[Stage] = field(default_factory=list)  # of every pod that got SIGTERM while it ran

    def pods(self) -> list[Raw]:
        status, answer = self.api.send("GET", PODS.format(self.namespace))
        assert status == 200, answer
        return list(answer["items"])

    def step(self) -> None:
        for pod in self.pods():
            if "deletionTimestamp" in pod["metadata"]:
                self._end_deleted(pod)
            elif pod["spec"].get("schedulingGates"):
                continue
            elif "nodeName" not in pod["spec"]:
                self._bind(pod)
            elif pod["status"]["phase"] == "Pending":
                self._start(pod)
            elif pod["status"]["phase"] == "Running" and stage_of(pod) not in (None, *self.held):
                self._finish(pod)

    def _bind(self, pod: Raw) -> None:
        name = pod["metadata"]["name"]
        body = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": {"name": "node-1"}}
        self._send("POST", f"{name}/binding", body)

    def _start(self, pod: Raw) -> None:
        containers = [
            _container(item["name"], {"running": {"startedAt": _now()}}) for item in pod["spec"]["containers"]
        ]
        inits = [
            _container(item["name"], {"terminated": {"exitCode": 0, "finishedAt": _now()}})
            for item in pod["spec"].get("initContainers", ())
        ]
        ready = [{"type": kind, "status": "True"} for kind in ("Initialized", "ContainersReady", "Ready")]
        status = {"phase": "Running", "conditions": ready, "containerStatuses": containers}
        self._status(pod, {**status, "initContainerStatuses": inits})
        if (stage := stage_of(pod)) is not None:
            self.started.append(stage)

    def _finish(self, pod: Raw) -> None:
        env = pod["spec"]["containers"][0]["env"]
        text = next(item["value"] for item in env if item["name"] == ENV_REQUEST)
        request = StageRequest.from_json(text.replace("$$", "$"))
        code, result = do_work(request, self.volume, "first edition", 0.0, 0)
        ended = {"exitCode": code, "reason": "Completed", "message": result.to_json(), "finishedAt": _now()}
        self._status(pod, {"phase": "Succeeded", "containerStatuses": [_container("stage", {"terminated": ended})]})

    def _end_deleted(self, pod: Raw) -> None:
        stage = stage_of(pod)
        if pod["status"]["phase"] == "Running":
            if stage is not None:
                self.stopped.append(stage)
            ended = {"exitCode": SIGTERM, "reason": "Error", "finishedAt": _now()}
            name = pod["spec"]["containers"][0]["name"]
            self._status(pod, {"phase": "Failed", "containerStatuses": [_container(name, {"terminated": ended})]})
        self._send("DELETE", pod["metadata"]["name"], {"gracePeriodSeconds": 0})

    def _status(self, pod: Raw, status: Raw) -> None:
        self._send("PATCH", f"{pod['metadata']['name']}/status", {"status": status}, "application/merge-patch+json")

    def _send(self, method: str, name: str, body: Raw, content_type: str = "application/json") -> None:
        path = f"{PODS.format(self.namespace)}/{name}"
        status, answer = self.api.send(method, path, body, content_type)
        assert status < 300 or status in (404, 409), answer


def stage_of(pod: Raw) -> Stage | None:
    """None for the pod of a server, or of somebody else."""
    labels = pod["metadata"].get("labels") or {}
    return Stage(labels[STAGE_LABEL]) if STAGE_LABEL in labels and SERVING_LABEL not in labels else None


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _container(name: str, state: Raw) -> Raw:
    image = {"name": name, "image": "i", "imageID": "i", "restartCount": 0}
    return {**image, "ready": "running" in state, "started": "running" in state, "state": state}
