"""Additions to a stage's Job whose work several processes share, on one node or on several. Pure.

On several nodes it is an Indexed Job: its pods are hosts called `<Job>-<index>`, and a headless Service of the Job's
name gives them addresses. The pod of index 0 is the coordinator.
"""

from __future__ import annotations

from typing import Any

from embedding_operator.objects.manifests.common import Owner, metadata
from embedding_operator.resource.api import Workers
from embedding_operator.resource.labels import JOB_NAME_LABEL, STAGE_LABEL
from embedding_stages import contract
from embedding_stages.contract import Stage


def share_work(body: dict[str, Any], pod: dict[str, Any], workers: Workers, job: str) -> None:
    """Change the spec of a Job and of its pods so that `workers` share the work; one process needs no change."""
    if not workers.several:
        return
    container = pod["containers"][0]
    container["env"] += [{"name": name, "value": value} for name, value in _environment(workers, job).items()]
    # NCCL and the loader hand tensors over through shared memory; a container's 64 MiB of it are too few, and more
    # ends in a bus error. What is used counts as the container's memory, so it is bounded: 1 GiB for each process.
    shared = {"medium": "Memory", "sizeLimit": f"{workers.per_node}Gi"}
    pod["volumes"].append({"name": "shm", "emptyDir": shared})
    container["volumeMounts"].append({"name": "shm", "mountPath": "/dev/shm"})
    if workers.nodes == 1:
        return
    pod["subdomain"] = job
    # Preferred, not required: a cluster of one large node can run two pods as well.
    pod["topologySpreadConstraints"] = [
        {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": {JOB_NAME_LABEL: job}},
        }
    ]
    body |= {"completionMode": "Indexed", "completions": workers.nodes, "parallelism": workers.nodes}


def build_rendezvous_service(owner: Owner, job: str, stage: Stage) -> dict[str, Any]:
    """The headless Service of a Job of several nodes: it gives addresses to the Job's pods and serves no clients."""
    port = {"name": "coordinator", "port": contract.COORDINATOR_PORT, "targetPort": contract.COORDINATOR_PORT}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(owner, job, {STAGE_LABEL: stage.value}),
        "spec": {
            "type": "ClusterIP",
            "clusterIP": "None",
            # Pods look for each other before one of them is ready for anything.
            "publishNotReadyAddresses": True,
            "selector": {JOB_NAME_LABEL: job},
            "ports": [{**port, "protocol": "TCP"}],
        },
    }


def _environment(workers: Workers, job: str) -> dict[str, str]:
    found = {
        contract.ENV_NODES: str(workers.nodes),
        contract.ENV_PROCESSES: str(workers.per_node),
        contract.ENV_PARALLELISM: workers.parallelism,
    }
    if workers.nodes > 1:
        found[contract.ENV_COORDINATOR] = f"{job}-0.{job}:{contract.COORDINATOR_PORT}"
    return found
