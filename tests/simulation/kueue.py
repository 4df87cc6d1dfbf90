"""A stand-in for Kueue: it suspends, admits and evicts Jobs as the real one does, in its words.

tests/kueue has the real one; here the operator is killed, and policies and faults come in between.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from simulation.fake_cluster import NAMESPACE, FakeCluster

from embedding_operator.resource.labels import QUEUE_LABEL, QUEUED_JOB_LABEL

Raw = dict[str, Any]
NO_QUOTA = (
    "couldn't assign flavors to pod set main: insufficient unused quota for cpu in flavor default-flavor, 2 more needed"
)
PREEMPTED = "Preempted to accommodate a workload (UID: 1) due to prioritization in the ClusterQueue"


@dataclass
class Kueue:
    """`step` looks at every Job with the queue's label; `quota` of them run at a time."""

    cluster: FakeCluster
    quota: int = 1
    evicting: set[str] = field(default_factory=set)  # names of Jobs that have to make room for others
    admissions: list[str] = field(default_factory=list)  # names of Jobs

    def step(self) -> None:
        jobs = [raw for raw in self.cluster.find("Job") if QUEUE_LABEL in raw["metadata"]["labels"]]
        for job in jobs:
            if not _ended(job) and "deletionTimestamp" not in job["metadata"]:
                self._look(job)

    def workload(self, job: Raw) -> Raw | None:
        return self.cluster.objects.get(("Workload", NAMESPACE, f"job-{job['metadata']['name']}"))

    def _look(self, job: Raw) -> None:
        workload = self.workload(job) or self._make(job)
        conditions = _conditions(workload)
        admitted, active = conditions.get("Admitted") == "True", workload["spec"].get("active", True)
        if not active or job["metadata"]["name"] in self.evicting:
            why = PREEMPTED if active else "The workload is deactivated"
            reason = "Preempted" if active else "Deactivated"
            self._say(workload, QuotaReserved=("False", "Pending", why), Admitted=("False", "NoReservation", why))
            if admitted:
                self._say(workload, Evicted=("True", reason, why))
            self._suspend(job, True)
        elif admitted:
            self._suspend(job, False)
        elif self._taken() < self.quota:
            words = ("True", "QuotaReserved", "Quota reserved in ClusterQueue all")
            self._say(workload, QuotaReserved=words, Admitted=("True", "Admitted", "The workload is admitted"))
            self._say(workload, Evicted=("False", "QuotaReserved", "Previously: Preempted"))
            self.admissions.append(job["metadata"]["name"])
            self._suspend(job, False)
        else:
            self._say(workload, QuotaReserved=("False", "Pending", NO_QUOTA))
            self._suspend(job, True)

    def _taken(self) -> int:
        jobs = [raw for raw in self.cluster.find("Job") if not _ended(raw)]
        found = [workload for job in jobs if (workload := self.workload(job)) is not None]
        return sum(_conditions(raw).get("Admitted") == "True" for raw in found)

    def _make(self, job: Raw) -> Raw:
        meta = job["metadata"]
        owner = {"kind": "Job", "name": meta["name"], "uid": meta["uid"], "controller": True}
        return self.cluster.add(
            {
                "kind": "Workload",
                "metadata": {
                    "name": f"job-{meta['name']}",
                    "namespace": NAMESPACE,
                    "labels": {QUEUED_JOB_LABEL: meta["uid"]},
                    "ownerReferences": [owner],
                },
                "spec": {"queueName": meta["labels"][QUEUE_LABEL], "active": True},
            }
        )

    def _say(self, workload: Raw, **conditions: tuple[str, str, str]) -> None:
        def edit(raw: Raw) -> None:
            kept = [item for item in raw.get("status", {}).get("conditions", ()) if item["type"] not in conditions]
            new = [
                {"type": kind, "status": status, "reason": reason, "message": message}
                for kind, (status, reason, message) in conditions.items()
            ]
            raw["status"] = {"conditions": [*kept, *new]}

        self.cluster.change("Workload", NAMESPACE, workload["metadata"]["name"], edit)

    def _suspend(self, job: Raw, suspend: bool) -> None:
        self.cluster.change("Job", NAMESPACE, job["metadata"]["name"], lambda raw: raw["spec"].update(suspend=suspend))


def _conditions(workload: Raw) -> dict[str, str]:
    return {item["type"]: item["status"] for item in workload.get("status", {}).get("conditions", ())}


def _ended(job: Raw) -> bool:
    return bool(job.get("status", {}).get("conditions"))
