"""Pods that mount a claim, placed by the operator's own builder, but with nothing to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from e2e.kube import NAMESPACE
from unit.operator.builders import a_spec

from embedding_operator.objects.manifests.common import Owner, pod_spec, workspace_label
from embedding_operator.resource.labels import WORKSPACE_LABEL
from embedding_operator.resource.placement import with_access_modes
from embedding_stages.contract import Stage

CLAIM_LABEL = WORKSPACE_LABEL
OWNER = Owner(namespace=NAMESPACE, name="two-nodes", uid="00000000-0000-0000-0000-000000000001")


def consumer(
    name: str,
    claim: str,
    *,
    mode: str = "ReadWriteOnce",
    requests: Mapping[str, str],
    limits: Mapping[str, str] | None = None,
    node_selector: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """A pod that mounts the claim until there is a file /tmp/end in it; `mode` is what the operator takes it to be."""
    manifest = {
        "storage": {"existingClaim": claim},
        "stages": {"finetune": {"nodeSelector": dict(node_selector or {})}},
    }
    resource = with_access_modes(a_spec(**manifest), [mode])
    container = {
        "name": "main",
        "command": ["/bin/busybox", "sh", "-c", "until [ -e /tmp/end ]; do /bin/busybox sleep 1; done"],
        "resources": {"requests": dict(requests), "limits": dict(limits or {})},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "workspace", "mountPath": "/workspace"}, {"name": "tmp", "mountPath": "/tmp"}],
    }
    spec: dict[str, Any] = {
        **pod_spec(OWNER, resource, Stage.FINETUNE),
        "restartPolicy": "Never",
        "containers": [container],
        "volumes": [
            {"name": "workspace", "persistentVolumeClaim": {"claimName": claim}},
            {"name": "tmp", "emptyDir": {}},
        ],
    }
    metadata = {"name": name, "namespace": NAMESPACE, "labels": workspace_label(OWNER, resource)}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
