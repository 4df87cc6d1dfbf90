"""Pods that mount a claim, as the operator writes them, but with nothing to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from e2e.kube import NAMESPACE

OWNER_LABEL = "embedding-operator.dev/owner-uid"
CLAIM_LABEL = "embedding-operator.dev/workspace"
OWNER = "00000000-0000-0000-0000-000000000001"


def consumer(
    name: str,
    claim: str,
    *,
    affinity: bool = True,
    requests: Mapping[str, str],
    limits: Mapping[str, str] | None = None,
    node_selector: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """A pod that mounts the claim until there is a file /tmp/end in it."""
    labels = {OWNER_LABEL: OWNER, CLAIM_LABEL: claim}
    term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": labels}}
    container = {
        "name": "main",
        "command": ["/bin/busybox", "sh", "-c", "until [ -e /tmp/end ]; do /bin/busybox sleep 1; done"],
        "resources": {"requests": dict(requests), "limits": dict(limits or {})},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "workspace", "mountPath": "/workspace"}, {"name": "tmp", "mountPath": "/tmp"}],
    }
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "fsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [
            {"name": "workspace", "persistentVolumeClaim": {"claimName": claim}},
            {"name": "tmp", "emptyDir": {}},
        ],
    }
    if affinity:
        spec["affinity"] = {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    if node_selector:
        spec["nodeSelector"] = dict(node_selector)
    metadata = {"name": name, "namespace": NAMESPACE, "labels": labels}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
