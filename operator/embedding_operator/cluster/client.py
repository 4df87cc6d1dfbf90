"""The operator's view of Kubernetes.

`Cluster` is the narrow interface that the rest uses (and that the simulation implements); `KubeCluster` speaks to an
API server with raw JSON: models of the official client are slow to build and drop fields that they do not know.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from datetime import datetime
from typing import Any, Final, Protocol

from kubernetes import client

from embedding_operator.cluster.answers import dry_run_error, misses_owner, must_be_ours
from embedding_operator.cluster.errors import Conflict, Forbidden, NotTried, Rejected, Unavailable
from embedding_operator.cluster.requests import NO_ANSWER, Requests, connected
from embedding_operator.cluster.tenure import Tenure
from embedding_operator.objects.corrections import corrections, keeping
from embedding_operator.objects.manifests.job import CONTAINER
from embedding_operator.objects.workloads import WORKLOAD
from embedding_operator.resource.api import API_VERSION, KIND, MANAGER
from embedding_operator.resource.labels import OWNER_LABEL, RESUMED_ANNOTATION, SUSPENDED_ANNOTATION

Raw = dict[str, Any]
# A log is read through the kubelet, which may hang: it is nice to have, and everything else waits for it.
_LOG_TIMEOUT_S: Final = 3
_CHUNK: Final = 250  # a page is decoded at once
_CHUNK_OF_RESOURCES: Final = 50  # of up to 20 KiB
_METADATA: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"  # of a Secret nothing else
_METADATA_LIST: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_DRY_RUN: Final = {"dryRun": "All"}


class Cluster(Protocol):
    """Everything that the operator asks of a cluster. All methods raise `ClusterError`."""

    def now(self) -> datetime:
        """The API server's time, to the second: every timestamp of an object is by that clock."""

    def get(self, kind: str, namespace: str, name: str) -> Raw | None:
        """The object, or None when there is none."""

    def list(self, kind: str, namespace: str | None = None, *, labels: str = "", fields: str = "") -> list[Raw]:
        """All objects that match the selectors; every namespace when `namespace` is None."""

    def each(
        self, kind: str, namespace: str | None = None, *, labels: str = "", fields: str = ""
    ) -> Generator[Raw, None, str]:
        """The same one by one: no more than a page of them is held at a time. Returns the version of the list."""

    def versions(self, kind: str, namespace: str | None = None, *, labels: str = "") -> Generator[Raw, None, str]:
        """The same with metadata alone: enough to see whether something was missed."""

    def create_job(self, manifest: Mapping[str, Any]) -> Raw:
        """Create the Job, or adopt the one of that name if it is ours; ForeignObject, NotYetGone or DeletionStuck."""

    def create_pod(self, manifest: Mapping[str, Any], *, within_s: float) -> Raw | None:
        """Create a pod that no work depends on; None where there is one of its name. NotTried when refused."""

    def apply(self, manifest: Mapping[str, Any]) -> Raw:
        """Make the object say what the manifest says; ForeignObject, NotYetGone or DeletionStuck."""

    def try_out(self, manifest: Mapping[str, Any], *, within_s: float) -> None:
        """Create or apply the object in a dry run; also ForeignObject where its name is taken, NotTried.

        Of a Secret it is only looked whether there is one; Rejected when not. After `within_s` seconds NotTried.
        """

    def delete(self, kind: str, namespace: str, name: str, *, uid: str = "", version: str = "") -> None:
        """Delete with its dependents; an object that is gone already is fine.

        Conflict where it has another uid, or has changed since `version`.
        """

    def suspend_job(self, namespace: str, name: str, *, suspend: bool, revision: int, version: str) -> Raw | None:
        """Set `spec.suspend`, and note for which revision it was suspended; None when the Job is gone.

        Conflict where it has changed since `version`: somebody else may have suspended or resumed it.
        """

    def activate_workload(self, namespace: str, name: str, *, active: bool, revision: int, version: str) -> None:
        """Make a Workload of Kueue active or not, and note for which revision it is not; fine when it is gone.

        Conflict where it has changed since `version`.
        """

    def forget_suspension(self, kind: str, namespace: str, name: str, *, resumed_in: int | None) -> Raw | None:
        """Take the note of either off, or note that somebody else let it run in a revision that is suspended. Nothing
        else is written: whether it runs is somebody else's word by now.
        """

    def write_status(self, resource: Mapping[str, Any], status: Mapping[str, Any], *, dry_run: bool = False) -> Raw:
        """Replace the status if nobody wrote since `resource` was read; Conflict otherwise. `dry_run`: ask only."""

    def post_event(self, resource: Mapping[str, Any], event_type: str, reason: str, message: str, time: str) -> None:
        """Post an Event about the resource."""

    def log_tail(self, namespace: str, pod: str, *, lines: int) -> str | None:
        """The end of the log of a pod's stage container; empty when there is none, None when nobody answers soon."""


class KubeCluster:
    """`Cluster` over HTTP."""

    def __init__(self, api: client.ApiClient, tenure: Tenure | None = None) -> None:
        self._http = Requests(api, tenure or Tenure.without_end())

    @classmethod
    def connect(cls, *, connections: int, tenure: Tenure | None = None) -> KubeCluster:
        """In a pod with its ServiceAccount, elsewhere with the current kubeconfig."""
        return cls(connected(connections), tenure)

    def close(self) -> None:
        """End its connections."""
        self._http.close()

    def now(self) -> datetime:
        return self._http.now()

    def get(self, kind: str, namespace: str, name: str) -> Raw | None:
        return self._http.call("get", kind, namespace, name, missing_ok=True)

    def list(self, kind: str, namespace: str | None = None, *, labels: str = "", fields: str = "") -> list[Raw]:
        return [*self.each(kind, namespace, labels=labels, fields=fields)]

    def each(
        self, kind: str, namespace: str | None = None, *, labels: str = "", fields: str = ""
    ) -> Generator[Raw, None, str]:
        most = _CHUNK_OF_RESOURCES if kind == KIND else _CHUNK
        return self._http.pages(kind, namespace, labels, fields, most)

    def versions(self, kind: str, namespace: str | None = None, *, labels: str = "") -> Generator[Raw, None, str]:
        return self._http.pages(kind, namespace, labels, "", _CHUNK, accept=_METADATA_LIST, slim=_version_of)

    def create_job(self, manifest: Mapping[str, Any]) -> Raw:
        meta = manifest["metadata"]
        try:
            return self._http.call("create", "Job", meta["namespace"], "", body=manifest) or {}
        except Conflict:
            existing = self.get("Job", meta["namespace"], meta["name"])
            if existing is None:  # deleted in between: the next pass decides anew
                raise
            must_be_ours("Job", manifest, existing, self.now())
            return existing

    def create_pod(self, manifest: Mapping[str, Any], *, within_s: float) -> Raw | None:
        meta = manifest["metadata"]
        try:
            return self._http.call(
                "create", "Pod", meta["namespace"], "", body=manifest, ends=time.monotonic() + within_s
            )
        except Conflict:  # the watch tells whether it is ours
            return None
        except (Rejected, Forbidden, Unavailable) as error:
            raise NotTried("create", "Pod", meta["namespace"], meta["name"], error.detail) from error

    def apply(self, manifest: Mapping[str, Any]) -> Raw:
        meta, kind = manifest["metadata"], manifest["kind"]
        existing = self.get(kind, meta["namespace"], meta["name"])
        if existing is None:
            return self._merge(manifest)
        must_be_ours(kind, manifest, existing, self.now())
        undone = corrections(manifest, existing)
        if undone:
            read = {"op": "add", "path": "/metadata/resourceVersion", "value": existing["metadata"]["resourceVersion"]}
            where, content_type = (kind, meta["namespace"], meta["name"]), "application/json-patch+json"
            existing = self._http.call("patch", *where, body=[read, *undone], content_type=content_type) or existing
        return self._merge(keeping(manifest, existing))

    def try_out(self, manifest: Mapping[str, Any], *, within_s: float) -> None:
        meta, kind = manifest["metadata"], manifest["kind"]
        ends = time.monotonic() + within_s
        try:
            if kind == "Secret":
                where = (kind, meta["namespace"], meta["name"])
                if self._http.call("get", *where, missing_ok=True, accept=_METADATA, ends=ends) is None:
                    raise Rejected("find", *where, "it does not exist")
                return
            if kind in ("Job", "Pod"):
                self._try_to_create(manifest, ends)
                return
            existing = self._http.call("get", kind, meta["namespace"], meta["name"], missing_ok=True, ends=ends)
            if existing is not None:
                must_be_ours(kind, manifest, existing, self.now())
            self._merge(manifest, _DRY_RUN, ends=ends)
        except Conflict:  # an object of that name tells the same
            return
        except (Rejected, Forbidden, Unavailable) as error:
            raise dry_run_error(error) from error

    def _try_to_create(self, manifest: Mapping[str, Any], ends: float) -> None:
        """A webhook may look for what a pod belongs to, which a dry run has not made: it is then asked without."""
        meta, kind = manifest["metadata"], manifest["kind"]
        where, query = ("create", kind, meta["namespace"], ""), _DRY_RUN
        try:
            self._http.call(*where, body=manifest, query=query, ends=ends)
        except (Rejected, Forbidden) as error:
            if kind != "Pod" or not misses_owner(manifest, error.detail):
                raise
            alone = {key: value for key, value in meta.items() if key != "ownerReferences"}
            try:
                self._http.call(*where, body={**manifest, "metadata": alone}, query=query, ends=ends)
            except (Rejected, Forbidden):  # perhaps for belonging to nothing
                raise NotTried("create", kind, meta["namespace"], meta["name"], error.detail) from error

    def _merge(
        self, manifest: Mapping[str, Any], beside: Mapping[str, str] | None = None, ends: float | None = None
    ) -> Raw:
        """Server-side apply as field manager `embedding-operator`; `beside` joins the query."""
        meta = manifest["metadata"]
        where = (manifest["kind"], meta["namespace"], meta["name"])
        query = {"fieldManager": MANAGER, "force": "true", **(beside or {})}
        content_type = "application/apply-patch+yaml"
        return self._http.call("patch", *where, body=manifest, query=query, content_type=content_type, ends=ends) or {}

    def delete(self, kind: str, namespace: str, name: str, *, uid: str = "", version: str = "") -> None:
        # Foreground: the object stays until its pods are gone, so "it is gone" means that the GPU and the volume are
        # free. A plain delete would orphan a Job's pods.
        options: Raw = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Foreground"}
        if uid:
            options["preconditions"] = {"uid": uid} | ({"resourceVersion": version} if version else {})
        self._http.call("delete", kind, namespace, name, body=options, missing_ok=True)

    def suspend_job(self, namespace: str, name: str, *, suspend: bool, revision: int, version: str) -> Raw | None:
        meta = _noted(suspended_by=revision if suspend else None) | {"resourceVersion": version}
        return self._patch("Job", namespace, name, {"metadata": meta, "spec": {"suspend": suspend}})

    def activate_workload(self, namespace: str, name: str, *, active: bool, revision: int, version: str) -> None:
        meta = _noted(suspended_by=None if active else revision) | {"resourceVersion": version}
        self._patch(WORKLOAD, namespace, name, {"metadata": meta, "spec": {"active": active}})

    def forget_suspension(self, kind: str, namespace: str, name: str, *, resumed_in: int | None) -> Raw | None:
        return self._patch(kind, namespace, name, {"metadata": _noted(resumed_in=resumed_in)})

    def _patch(self, kind: str, namespace: str, name: str, body: Raw) -> Raw | None:
        content_type = "application/merge-patch+json"
        return self._http.call("patch", kind, namespace, name, body=body, content_type=content_type, missing_ok=True)

    def write_status(self, resource: Mapping[str, Any], status: Mapping[str, Any], *, dry_run: bool = False) -> Raw:
        meta = resource["metadata"]
        body = {"apiVersion": API_VERSION, "kind": KIND, **resource, "status": dict(status)}
        # A CRD of an earlier release would drop a field in silence, and with it what is remembered: refused instead.
        query = {"fieldValidation": "Strict", **({"dryRun": "All"} if dry_run else {})}
        where = (KIND, meta["namespace"], meta["name"])
        return self._http.call("update", *where, body=body, query=query, subresource="status") or {}

    def post_event(self, resource: Mapping[str, Any], event_type: str, reason: str, message: str, time: str) -> None:
        meta = resource["metadata"]
        reference = {key: meta[key] for key in ("namespace", "name", "uid", "resourceVersion") if key in meta}
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{meta['name']}.", "namespace": meta["namespace"]},
            "involvedObject": {"apiVersion": API_VERSION, "kind": KIND, **reference},
            "type": event_type,
            "reason": reason,
            "message": message,
            "source": {"component": MANAGER},
            "reportingComponent": MANAGER,
            "firstTimestamp": time,
            "lastTimestamp": time,
            "count": 1,
        }
        self._http.call("create", "Event", meta["namespace"], "", body=body)

    def read_lease(self, namespace: str, name: str, *, within_s: float) -> Raw | None:
        return self._http.call("get", "Lease", namespace, name, missing_ok=True, ends=time.monotonic() + within_s)

    def write_lease(self, lease: Mapping[str, Any], *, within_s: float) -> Raw:
        meta, ends = lease["metadata"], time.monotonic() + within_s
        if "resourceVersion" not in meta:
            return self._http.call("create", "Lease", meta["namespace"], "", body=lease, ends=ends) or {}
        return self._http.call("update", "Lease", meta["namespace"], meta["name"], body=lease, ends=ends) or {}

    def log_tail(self, namespace: str, pod: str, *, lines: int) -> str | None:
        path = f"/api/v1/namespaces/{namespace}/pods/{pod}/log"
        query = {"container": CONTAINER, "tailLines": str(lines), "limitBytes": "16384"}
        try:
            status, _, data = self._http.send("GET", path, query, None, "application/json", timeout_s=_LOG_TIMEOUT_S)
        except NO_ANSWER:  # a log is no reason to fail
            return None
        # The API server does not reach the kubelet (500), or serves nobody now, or not this token.
        if status in (401, 408, 429) or status >= 500:
            return None
        return data.decode(errors="replace") if status == 200 else ""


def _noted(*, suspended_by: int | None = None, resumed_in: int | None = None) -> Raw:
    """Metadata with the note of a suspension, or of its end; what is None is taken off."""
    notes = {SUSPENDED_ANNOTATION: suspended_by, RESUMED_ANNOTATION: resumed_in}
    return {"annotations": {key: None if revision is None else str(revision) for key, revision in notes.items()}}


def child_selector(owner_name: str = "") -> str:
    """Label selector of one resource's children, or of every resource's."""
    return f"{OWNER_LABEL}={owner_name}" if owner_name else OWNER_LABEL


def _version_of(raw: Raw) -> Raw:
    """Which object it is, whose, and its version: others' entries of who manages which field are most of the rest."""
    meta = raw["metadata"]
    owner = (meta.get("labels") or {}).get(OWNER_LABEL)
    told = {name: meta[name] for name in ("namespace", "name", "uid", "resourceVersion") if name in meta}
    return {"metadata": told | ({"labels": {OWNER_LABEL: owner}} if owner is not None else {})}
