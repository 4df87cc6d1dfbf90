"""The workspace volume that a resource's stages share. Pure."""

from __future__ import annotations

from typing import Any

from embedding_operator.objects.manifests.common import Owner, metadata, workspace_claim
from embedding_operator.resource.api import Spec


def build_workspace(owner: Owner, spec: Spec) -> dict[str, Any]:
    """A PersistentVolumeClaim; only for a resource without `storage.existingClaim`."""
    storage = spec.storage
    body: dict[str, Any] = {
        "accessModes": list(storage.access_modes),
        "resources": {"requests": {"storage": storage.size}},
    }
    if storage.storage_class is not None:
        body["storageClassName"] = storage.storage_class
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata(owner, workspace_claim(owner, spec)),
        "spec": body,
    }
