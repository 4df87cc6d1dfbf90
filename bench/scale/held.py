"""Thousands of finished resources in a minute: copies of one that the operator brought to Ready, written to etcd.

The API server decodes JSON as well as its own encoding, so a copy is what it served for the original, under another
name, namespace and UID. A Deployment's annotation hashes the manifest with its owner: the operator's code computes it.
"""

from __future__ import annotations

import base64
import http.client
import json
import sys
import time
import uuid
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from bench.scale.api import LOOPBACK, Raw
from bench.scale.kinds import HELD_LABEL, MADE_LABEL
from bench.scale.plane import NAMESPACES, Plane, namespace_of
from bench.scale.process import ROOT

_WRITERS = 3
_A_TRANSACTION = 100  # objects
_GROUP: Final = "embedding-operator.dev"
# Kind: path under /apis or /api, and where etcd keeps it.
_PLACES: Final = {
    "EmbeddingFineTune": (
        f"/apis/{_GROUP}/v1alpha1/namespaces/{{}}/embeddingfinetunes",
        f"{_GROUP}/embeddingfinetunes",
    ),
    "Job": ("/apis/batch/v1/namespaces/{}/jobs", "jobs"),
    "Pod": ("/api/v1/namespaces/{}/pods", "pods"),
    "Deployment": ("/apis/apps/v1/namespaces/{}/deployments", "deployments"),
    "Service": ("/api/v1/namespaces/{}/services", "services/specs"),
    "PersistentVolumeClaim": ("/api/v1/namespaces/{}/persistentvolumeclaims", "persistentvolumeclaims"),
    "ConfigMap": ("/api/v1/namespaces/{}/configmaps", "configmaps"),
}
_VERSIONS: Final = {"EmbeddingFineTune": f"{_GROUP}/v1alpha1", "Job": "batch/v1", "Deployment": "apps/v1"}


@dataclass(frozen=True)
class Copy:
    """What one original becomes under another name."""

    namespace: str
    name: str
    uid: str


def originals(plane: Plane, namespace: str, name: str, *, with_jobs: bool) -> list[Raw]:
    """The resource first, then all that belongs to it; without Jobs and their pods, which are removed after a day."""
    first = plane.api.must("GET", f"{_PLACES['EmbeddingFineTune'][0].format(namespace)}/{name}")
    found = [{"kind": "EmbeddingFineTune", **first}]
    for kind, (path, _) in list(_PLACES.items())[1:]:
        selector = f"?labelSelector={_GROUP}/owner-uid={first['metadata']['uid']}"
        for item in plane.api.items(path.format(namespace) + selector):
            labels = item["metadata"].get("labels") or {}
            if with_jobs or not (kind == "Job" or "batch.kubernetes.io/job-name" in labels):
                found.append({"kind": kind, **item})
    for item in found:
        item["apiVersion"] = _VERSIONS.get(item["kind"], "v1")
        item["metadata"].pop("resourceVersion", None)
        labels = item["metadata"].setdefault("labels", {})
        labels[HELD_LABEL] = "true"
        labels.pop(MADE_LABEL, None)
        if item["kind"] == "Service":  # without an address of its own, or the API server repairs every allocation
            item["spec"] |= {"clusterIP": "None", "clusterIPs": ["None"]}
    return found


class Copies:
    def __init__(self, plane: Plane, namespace: str, name: str, *, with_jobs: bool) -> None:
        self.plane, self.namespace, self.name = plane, namespace, name
        self.found = originals(plane, namespace, name, with_jobs=with_jobs)
        self.texts = [json.dumps(item) for item in self.found]
        self.uids = [item["metadata"]["uid"] for item in self.found]
        self.hashed = _Hashed(self.found)
        was = next(item for item in self.found if item["kind"] == "Deployment")["metadata"]["annotations"]
        wanted = self.hashed.annotations(Copy(namespace, name, self.uids[0]))
        if not wanted.items() <= was.items():
            raise RuntimeError(f"the operator annotates Deployments in another way: {wanted} is not in {was}")

    @property
    def kib_each(self) -> float:
        return sum(map(len, self.texts)) / 1024

    def _pairs(self, number: int) -> Iterable[tuple[str, str]]:
        """Keys and values of one copy."""
        copy = Copy(namespace_of(number % NAMESPACES), f"held-{number:05d}", "")
        new = [str(uuid.uuid5(uuid.NAMESPACE_OID, f"{number}/{uid}")) for uid in self.uids]
        changes = [
            *zip(self.uids, new, strict=True),
            (self.uids[0][:8], new[0][:8]),
            (self.name, copy.name),
            (self.namespace, copy.namespace),
        ]
        for item, original in zip(self.found, self.texts, strict=True):
            text = original
            for old, other in changes:
                text = text.replace(old, other)
            if item["kind"] == "Deployment":
                raw = json.loads(text)
                raw["metadata"]["annotations"] |= self.hashed.annotations(Copy(copy.namespace, copy.name, new[0]))
                text = json.dumps(raw)
            name = item["metadata"]["name"].replace(self.name, copy.name)
            yield f"/registry/{_PLACES[item['kind']][1]}/{copy.namespace}/{name}", text

    def write(self, first: int, last: int) -> float:
        """Copies `first` to `last` - 1; the seconds that it took."""
        began = time.monotonic()
        batch = max(1, _A_TRANSACTION // len(self.found))

        def put(start: int) -> None:
            numbers = range(start, min(start + batch, last))
            _transaction(self.plane, [pair for number in numbers for pair in self._pairs(number)])

        with ThreadPoolExecutor(_WRITERS) as pool:
            list(pool.map(put, range(first, last, batch)))
        return time.monotonic() - began


def _transaction(plane: Plane, pairs: list[tuple[str, str]]) -> None:
    def encode(text: str) -> str:
        return base64.b64encode(text.encode()).decode()

    puts = [{"requestPut": {"key": encode(key), "value": encode(value)}} for key, value in pairs]
    context = plane.etcd_client.context()
    connection = http.client.HTTPSConnection(LOOPBACK, plane.ports.client, timeout=60, context=context)
    try:
        connection.request("POST", "/v3/kv/txn", json.dumps({"success": puts}))
        answer = connection.getresponse()
        text = answer.read().decode()
    finally:
        connection.close()
    if answer.status != 200 or not json.loads(text).get("succeeded"):
        raise RuntimeError(f"etcd: {answer.status} {text[:300]}")


class _Hashed:
    """The annotations of a Deployment that depend on whose it is."""

    def __init__(self, found: list[Raw]) -> None:
        sys.path[:0] = [part for part in (str(ROOT / "operator"), str(ROOT / "stage_images")) if part not in sys.path]
        from embedding_operator.resource.api import TORCH_SERVER
        from embedding_operator.resource.spec import parse_spec
        from embedding_operator.resource.status import Status
        from embedding_stages.contract import Stage

        first = found[0]
        status = Status.from_json(first["status"])
        export = next(item for item in status.stages if item.name is Stage.EXPORT)
        self.spec = parse_spec(first["spec"], dict.fromkeys((*Stage, TORCH_SERVER), "image:1"))
        self.serving, self.vector_space = status.served.active_fingerprint, status.served.vector_space
        (self.model,) = export.artefacts.values()

    def annotations(self, copy: Copy) -> dict[str, Any]:
        from embedding_operator.objects.manifests.common import Owner
        from embedding_operator.objects.manifests.serving import build_deployment

        owner = Owner(namespace=copy.namespace, name=copy.name, uid=copy.uid)
        made = build_deployment(
            owner, self.spec, self.serving, self.model, check_image="image:1", vector_space=self.vector_space
        )
        return dict(made["metadata"]["annotations"])
