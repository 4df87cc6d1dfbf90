"""Queues of Kueue with quota for a number of pods, and Jobs that take it."""

from __future__ import annotations

from typing import Any

from apiserver.api import Api

API = "kueue.x-k8s.io/v1beta1"
QUEUE = "team"
LOW, HIGH = "low", "high"


def make_queues(api: Api, namespace: str, pods: int = 1) -> str:
    """The name of the LocalQueue."""
    quota = {"cpu": "100", "memory": "1000Gi", "ephemeral-storage": "1000Gi", "nvidia.com/gpu": 8, "pods": pods}
    covered = list(quota)
    quotas = [{"name": name, "nominalQuota": amount} for name, amount in quota.items()]
    for name, value in ((LOW, 10), (HIGH, 1000)):
        api.apply({"apiVersion": API, "kind": "WorkloadPriorityClass", "metadata": {"name": name}, "value": value})
    api.apply({"apiVersion": API, "kind": "ResourceFlavor", "metadata": {"name": "default-flavor"}})
    flavors = [{"name": "default-flavor", "resources": quotas}]
    spec: dict[str, Any] = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "preemption": {"withinClusterQueue": "LowerPriority"},
        "resourceGroups": [{"coveredResources": covered, "flavors": flavors}],
    }
    api.apply({"apiVersion": API, "kind": "ClusterQueue", "metadata": {"name": namespace}, "spec": spec})
    meta = {"name": QUEUE, "namespace": namespace}
    api.apply({"apiVersion": API, "kind": "LocalQueue", "metadata": meta, "spec": {"clusterQueue": namespace}})
    return QUEUE


def take_quota(api: Api, namespace: str, name: str = "other") -> None:
    """A Job of somebody else's, of a high priority, that runs on."""
    labels = {"kueue.x-k8s.io/queue-name": QUEUE, "kueue.x-k8s.io/priority-class": HIGH}
    security = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": True}
    container = {
        "name": "other",
        "image": "other:1",
        "resources": {"requests": {"cpu": "1"}},
        "securityContext": {**security, "seccompProfile": {"type": "RuntimeDefault"}},
    }
    template = {"spec": {"restartPolicy": "Never", "containers": [container]}}
    body = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "labels": labels}}
    api.make(f"/apis/batch/v1/namespaces/{namespace}/jobs", {**body, "spec": {"suspend": True, "template": template}})


def give_back(api: Api, namespace: str, name: str = "other") -> None:
    api.kubectl("delete", "job", name, "-n", namespace)
