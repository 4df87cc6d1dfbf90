"""Everything around the operator: controllers, a kubelet, and what stages do. `step` moves each of them a little."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from simulation.endings import DONE, DRAINED, HANG, PEER_LOST, Ending
from simulation.fake_cluster import NAMESPACE, FakeCluster
from simulation.nim_operator import NimOperator
from simulation.pods import (
    index_of,
    last_words,
    missing_secret,
    pulled,
    request_of,
    uid_of,
    unscheduled,
    waiting,
    without_image,
)
from simulation.servers import Servers
from simulation.work import do_work

from embedding_operator.resource.labels import IMAGE_CHECK_LABEL, INDEX_ANNOTATION, JOB_NAME_LABEL, STAGE_LABEL
from embedding_stages.contract import Stage, StageRequest, StageResult, fingerprint_of

Raw = dict[str, Any]


@dataclass
class World(Servers, NimOperator):
    """What may be set up differently in a test is a field."""

    cluster: FakeCluster
    corpus: str = "first edition"
    base_quality: float = 1.0  # what the base model's metrics are multiplied by
    tuned_quality: float = 1.0  # what the metrics of newly tuned models are multiplied by
    warnings: Sequence[str] = ()  # of finetune
    interval: Sequence[float] = ()  # of the relative uplift, low and high
    endings: dict[Stage, list[Ending]] = field(default_factory=lambda: defaultdict(list))
    secrets: dict[str, set[str]] = field(default_factory=lambda: {"llm": {"token"}})
    served_offset: float = 0.0  # added to every metric that verify measures
    canary_cosine: float | None = 1.0  # of the canaries' vectors, served and evaluated; None: not measured
    changed_queries: int = 0
    unpulled: Mapping[str, Raw] = field(default_factory=dict)  # image -> why a container of the image check waits
    gone: tuple[str, ...] = ()  # images that begin so come to no pod any more
    image_id: str = "sha256:abc"  # what the server's tag stands for
    server: str = "ready"  # ready | loading | down | crash: what a Deployment's pods do
    nim_operator: str = "runs"  # runs | down | fails
    progress: Raw = field(default_factory=lambda: {"percent": 50, "step": 1, "totalSteps": 2})  # of what runs
    llm_tokens: int = 0  # that sdg says it has used
    refuses_pods: str = ""  # what is said of every pod that should be created
    volume: dict[str, str] = field(default_factory=dict)  # path -> digest of what lies there now
    requests: list[StageRequest] = field(default_factory=list)  # of every container that ran
    ending_of: dict[str, Ending] = field(default_factory=dict)

    def fork(self, cluster: FakeCluster) -> World:
        """A copy that goes its own way."""
        return replace(
            self,
            cluster=cluster,
            endings=defaultdict(list, {stage: list(endings) for stage, endings in self.endings.items()}),
            secrets=dict(self.secrets),
            volume=dict(self.volume),
            requests=list(self.requests),
            ending_of=dict(self.ending_of),
        )

    def step(self) -> None:
        self.cluster.collect_garbage()
        for job in self.cluster.find("Job"):
            ours = STAGE_LABEL in job["metadata"].get("labels", {}) and "deletionTimestamp" not in job["metadata"]
            if ours and self._outlived(job):
                self._remove(job)
            elif ours and not job.get("status", {}).get("conditions"):
                self._job(job)
        for nim in self.cluster.find("NIMService"):
            if "deletionTimestamp" not in nim["metadata"]:
                self._nim_service(nim)
        for deployment in self.cluster.find("Deployment"):
            if "ownerReferences" in deployment["metadata"] and "deletionTimestamp" not in deployment["metadata"]:
                self._deployment(deployment)
        for pod in self.cluster.find("Pod"):
            if IMAGE_CHECK_LABEL in pod["metadata"]["labels"]:
                self._edit(pod, lambda raw: raw.update(status=pulled(raw, self.unpulled, self.gone)))
        self.cluster.collect_garbage()

    def pods_of(self, owner: Raw) -> list[Raw]:
        return [
            pod for pod in self.cluster.find("Pod") if pod["metadata"]["ownerReferences"][0]["uid"] == uid_of(owner)
        ]

    # Jobs.

    def _job(self, job: Raw) -> None:
        pods = [pod for pod in self.pods_of(job) if pod["status"]["phase"] in ("Pending", "Running")]
        if job["spec"].get("suspend"):
            for pod in pods:
                self._remove(pod)
            self._edit(job, lambda raw: raw.get("status", {}).pop("startTime", None))
            return
        if self.refuses_pods:
            self._warn(job, self.refuses_pods, "FailedCreate")
            return
        missing = set(range(job["spec"]["completions"])) - {index_of(pod) for pod in pods}
        for index in sorted(missing):
            self._edit(job, lambda raw: raw.setdefault("status", {}).setdefault("startTime", self._now()))
            stage = Stage(job["metadata"]["labels"][STAGE_LABEL])
            pod = self._make_pod(job, len(self.pods_of(job)), index)
            self.ending_of[uid_of(pod)] = self.endings[stage].pop(0) if self.endings[stage] else DONE
        if missing:
            return
        pending = [pod for pod in pods if pod["status"]["phase"] == "Pending"]
        for pod in pending:
            self._start(pod)
        if not pending and self._met(job):
            self._end_together(job, pods)

    def _met(self, job: Raw) -> bool:
        """Whether the pods of several nodes have found each other."""
        if job["spec"]["completions"] == 1:
            return True
        service = self.cluster.objects.get(("Service", NAMESPACE, job["spec"]["template"]["spec"]["subdomain"]))
        return service is not None and service["spec"]["selector"] == {JOB_NAME_LABEL: job["metadata"]["name"]}

    def _end_together(self, job: Raw, pods: list[Raw]) -> None:
        """One that hangs holds up its peers; one that fails takes them with it, and they are heard of first."""
        endings = {uid: self.ending_of[uid] for uid in map(uid_of, pods)}
        if HANG in endings.values():
            return
        bad = next((pod for pod in pods if endings[uid_of(pod)] is not DONE), None)
        for pod in pods:
            if bad is None:
                self._end(job, pod)
            elif pod is not bad:
                self._terminate(pod, "stage", PEER_LOST.exit_code, "Error", last_words(pod, PEER_LOST))
        if bad is not None:
            self._end(job, bad)
            if len(pods) > 1 and endings[uid_of(bad)] is DRAINED:  # alone, it is replaced
                self._finish(job, "Failed", "BackoffLimitExceeded")

    def _start(self, pod: Raw) -> None:
        ending = self.ending_of[uid_of(pod)]
        if ending.how == "pending":
            self._edit(pod, lambda raw: raw["status"].update(conditions=[unscheduled()]))
        elif missing := missing_secret(pod, self.secrets):
            self._warn(pod, missing)
        elif waits := without_image(pod, self.gone):
            self._edit(pod, lambda raw: raw["status"].update(waits))
        elif ending.container != "stage":
            self._edit(pod, lambda raw: raw["status"].update(initContainerStatuses=[waiting(ending.container)]))
            self._edit(pod, lambda raw: raw["status"].update(phase="Running"))
        else:
            running = {"name": "stage", "imageID": "sha256:abc", "state": {"running": {"startedAt": self._now()}}}
            self._edit(pod, lambda raw: raw["status"].update(phase="Running", containerStatuses=[running]))
            self.cluster.logs[pod["metadata"]["name"]] = json.dumps({"progress": self.progress})

    def _end(self, job: Raw, pod: Raw) -> None:
        ending = self.ending_of[uid_of(pod)]
        match ending.how:
            case "drained":
                target = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
                self._edit(pod, lambda raw: raw["status"].update(phase="Failed", conditions=[target]))
                self._terminate(pod, "stage", 143, "Error", "")
                return
            case "lost":
                self._remove(pod)
                self._finish(job, "Failed", "BackoffLimitExceeded")
            case "deadline":
                self._remove(pod)
                self._finish(job, "Failed", "DeadlineExceeded")
            case "done" if index_of(pod) > 0:  # index 0 does the work and says so
                self._terminate(pod, "stage", 0, "Completed", "")
            case "exit" if ending.exit_code:
                self._terminate(pod, ending.container, ending.exit_code, *self._last_words(pod, ending))
                self._finish(job, "Failed", "BackoffLimitExceeded")
            case "exit":
                result = StageResult(stage=Stage.SDG, fingerprint="0" * 64).to_json() if ending.reason else ""
                self._terminate(pod, "stage", 0, "Completed", result)
                self._finish(job, "Complete", "CompletionsReached")
            case _:
                code, result = self._work(request_of(pod))
                self._terminate(pod, "stage", code, "Completed" if code == 0 else "Error", result.to_json())
                kind, reason = ("Complete", "CompletionsReached") if code == 0 else ("Failed", "BackoffLimitExceeded")
                self._finish(job, kind, reason)

    def _last_words(self, pod: Raw, ending: Ending) -> tuple[str, str]:
        """(reason, termination message) of a container that failed."""
        if ending.reason == "OOMKilled":
            return "OOMKilled", ""
        if ending.container != "stage":
            return "Error", ending.message
        self.requests.append(request_of(pod))
        return "Error", last_words(pod, ending)

    def _work(self, request: StageRequest) -> tuple[int, StageResult]:
        self.requests.append(request)
        code, result = do_work(
            request,
            self.volume,
            self.corpus,
            self.served_offset,
            self.changed_queries,
            self.tuned_quality,
            self.canary_cosine,
            self.base_quality,
        )
        if request.stage is Stage.FINETUNE and self.warnings:
            result = replace(result, details={**result.details, "warnings": list(self.warnings)})
        if request.stage is Stage.SDG:
            result = replace(result, llm_tokens=self.llm_tokens)
        if request.stage is Stage.EVAL and self.interval:
            result = replace(result, details={**result.details, "confidenceInterval": list(self.interval)})
        return code, result

    def _finish(self, job: Raw, kind: str, reason: str) -> None:
        end = {"type": kind, "status": "True", "reason": reason, "lastTransitionTime": self._now()}
        self._edit(job, lambda raw: raw.setdefault("status", {}).update(conditions=[end]))

    def _outlived(self, job: Raw) -> bool:
        """Whether the TTL controller removes it."""
        ends = [datetime.fromisoformat(c["lastTransitionTime"]) for c in job.get("status", {}).get("conditions", ())]
        left = timedelta(seconds=job["spec"].get("ttlSecondsAfterFinished", 10**9))
        return bool(ends) and self.cluster.clock() >= max(ends) + left

    # Pods.

    def _make_pod(self, owner: Raw, number: int, index: int = 0) -> Raw:
        meta, template = owner["metadata"], owner["spec"]["template"]
        labels = dict(template["metadata"]["labels"])
        if owner["kind"] == "Deployment":
            labels["pod-template-hash"] = fingerprint_of(template)[:10]
        else:
            labels[JOB_NAME_LABEL] = meta["name"]
        indexed = owner["spec"].get("completionMode") == "Indexed"
        reference = {"kind": owner["kind"], "name": meta["name"], "uid": uid_of(owner), "controller": True}
        return self.cluster.add(
            {
                "kind": "Pod",
                "metadata": {
                    "name": f"{meta['name']}-{number}",
                    "namespace": NAMESPACE,
                    "labels": labels,
                    "annotations": {
                        **template["metadata"].get("annotations", {}),
                        **({INDEX_ANNOTATION: str(index)} if indexed else {}),
                    },
                    "ownerReferences": [reference],
                },
                "spec": {**template["spec"], "nodeName": "node-1"},
                "status": {"phase": "Pending"},
            }
        )

    def _terminate(self, pod: Raw, container: str, code: int, reason: str, message: str) -> None:
        ended = {
            "name": container,
            "imageID": "sha256:abc",
            "state": {"terminated": {**_begun(pod), "exitCode": code, "reason": reason, "message": message,
                                     "finishedAt": self._now()}},
        }  # fmt: skip
        kind = "containerStatuses" if container == "stage" else "initContainerStatuses"
        phase = "Succeeded" if code == 0 else "Failed"
        self._edit(pod, lambda raw: raw["status"].update({"phase": phase, kind: [ended]}))

    def _warn(self, pod: Raw, message: str, reason: str = "FailedMount") -> None:
        name = f"{pod['metadata']['name']}.warning"
        if ("Event", NAMESPACE, name) not in self.cluster.objects:
            self.cluster.add(
                {
                    "kind": "Event",
                    "metadata": {"name": name, "namespace": NAMESPACE},
                    "involvedObject": {"kind": pod["kind"], "uid": uid_of(pod)},
                    "type": "Warning",
                    "reason": reason,
                    "message": message,
                    "lastTimestamp": self._now(),
                }
            )

    def _edit(self, raw: Raw, edit: Any) -> None:
        self.cluster.change(raw["kind"], NAMESPACE, raw["metadata"]["name"], edit)

    def _remove(self, raw: Raw) -> None:
        self.cluster.remove(raw["kind"], NAMESPACE, raw["metadata"]["name"])

    def _now(self) -> str:
        return f"{self.cluster.clock():%Y-%m-%dT%H:%M:%SZ}"


def _begun(pod: Raw) -> Raw:
    """What the stage's container goes on to say of its start."""
    for item in pod["status"].get("containerStatuses", ()):
        if item["name"] == "stage" and "running" in item["state"]:
            return {"startedAt": item["state"]["running"]["startedAt"]}
    return {}
