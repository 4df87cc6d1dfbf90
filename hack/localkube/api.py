"""The few calls to the Kubernetes API that starting a cluster takes."""

from __future__ import annotations

import http.client
import json
import ssl
from dataclasses import dataclass
from typing import Any

from pki import ADMIN, Pki
from shell import LocalkubeError

FIELD_MANAGER = "localkube"
PLURALS = {
    "ClusterRole": "clusterroles",
    "ClusterRoleBinding": "clusterrolebindings",
    "ConfigMap": "configmaps",
    "Deployment": "deployments",
    "Node": "nodes",
    "Service": "services",
    "ServiceAccount": "serviceaccounts",
    "StorageClass": "storageclasses",
}


class ApiError(LocalkubeError):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Api:
    """The API server as its administrator sees it."""

    host: str
    port: int
    pki: Pki

    @property
    def server(self) -> str:
        return f"https://{self.host}:{self.port}"

    def request(self, method: str, path: str, body: object = None, content_type: str = "application/json") -> str:
        connection = http.client.HTTPSConnection(self.host, self.port, timeout=15, context=self._identity())
        try:
            payload = None if body is None else json.dumps(body)
            connection.request(method, path, body=payload, headers={"Content-Type": content_type})
            response = connection.getresponse()
            text = response.read().decode("utf-8", "replace")
        except (OSError, http.client.HTTPException) as error:
            raise ApiError(0, f"{method} {self.server}{path}: {error}") from error
        finally:
            connection.close()
        if response.status >= 300:
            raise ApiError(response.status, f"{method} {path}: {response.status} {text[:500]}")
        return text

    def _identity(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=str(self.pki.authority))
            context.load_cert_chain(self.pki.certificate(ADMIN), self.pki.key(ADMIN))
        except OSError as error:
            keys = self.pki.folder
            message = f"cannot read the administrator's keys in {keys} (run `up` first, as the same user): {error}"
            raise ApiError(0, message) from error
        return context

    def get(self, path: str) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.request("GET", path))
        return document

    def is_ready(self) -> bool:
        try:
            self.request("GET", "/readyz")
        except ApiError:
            return False
        return True

    def apply(self, manifest: dict[str, Any]) -> None:
        """Server-side apply: the same call creates and heals."""
        path = f"{object_path(manifest)}?fieldManager={FIELD_MANAGER}&force=true"
        self.request("PATCH", path, manifest, "application/apply-patch+yaml")


def object_path(manifest: dict[str, Any]) -> str:
    version, metadata = manifest["apiVersion"], manifest["metadata"]
    prefix = f"/apis/{version}" if "/" in version else f"/api/{version}"
    namespace = f"/namespaces/{metadata['namespace']}" if "namespace" in metadata else ""
    return f"{prefix}{namespace}/{PLURALS[manifest['kind']]}/{metadata['name']}"
