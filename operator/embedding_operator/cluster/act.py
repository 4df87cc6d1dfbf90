"""Act: what a decision asks for, one action at a time. Each may be done again; what the API server answers is known at
once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, assert_never

from embedding_operator.cluster.cache import KINDS, UNWATCHED, Cache, Key
from embedding_operator.cluster.client import Cluster
from embedding_operator.cluster.errors import Conflict, NotTried
from embedding_operator.decide.decision import (
    Action,
    ActivateWorkload,
    Apply,
    CreateJob,
    CreatePod,
    DeleteObject,
    ForgetSuspension,
    SuspendJob,
    TryOut,
)
from embedding_operator.metrics import METRICS
from embedding_operator.objects.manifests.common import Owner

_POD_S: Final = 5.0  # for a pod that no work depends on


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """`written` grows by the versions that a pass makes of objects, by the key of its resource."""

    cluster: Cluster
    cache: Cache
    written: dict[Key, set[str]]

    def do(self, owner: Owner, action: Action, *, dry_runs_left_s: float) -> None:
        """Raises ClusterError; NotTried for a dry run when no time is left for those of this pass."""
        if not isinstance(action, TryOut):  # the rest are writes
            METRICS.action(type(action).__name__)
        match action:
            case CreateJob():
                self.keep("Job", owner, self.cluster.create_job(action.manifest))
            case CreatePod():
                self.keep("Pod", owner, self.cluster.create_pod(action.manifest, within_s=_POD_S))
            case Apply():
                self.keep(action.manifest["kind"], owner, self.cluster.apply(action.manifest))
            case DeleteObject():
                self._delete(owner, action)
            case TryOut():
                self._try_out(action.manifest, dry_runs_left_s)
            case SuspendJob():
                self._suspend(owner, action)
            case ActivateWorkload():
                self.cluster.activate_workload(
                    owner.namespace,
                    action.name,
                    active=action.active,
                    revision=action.revision,
                    version=action.version,
                )
            case ForgetSuspension():
                raw = self.cluster.forget_suspension(
                    action.kind, owner.namespace, action.name, resumed_in=action.resumed_in
                )
                self.keep(action.kind, owner, raw)
            case _:
                assert_never(action)

    def keep(self, kind: str, owner: Owner, raw: Mapping[str, Any] | None, *, as_of: float | None = None) -> None:
        """What the API server answered to a write: known at once, and when the watch tells of it, it is no news."""
        if raw is None or kind not in (*KINDS, *UNWATCHED):
            return
        key = (owner.namespace, owner.name)
        self.written.setdefault(key, set()).add(str(raw["metadata"].get("resourceVersion", "")))
        self.cache.put(kind, raw, as_of=as_of)

    def _delete(self, owner: Owner, action: DeleteObject) -> None:
        """Only the object that was looked at: of its name there may be another one by now, and a Job may have become
        complete, of which the watch may have told in the middle of the pass.
        """
        key = (owner.namespace, owner.name)
        uid = action.uid or self.cache.uid(action.kind, key, action.name)
        try:
            self.cluster.delete(action.kind, owner.namespace, action.name, uid=uid, version=action.version)
        except Conflict:
            self._read_again(owner, action.kind, action.name, uid)
            raise

    def _suspend(self, owner: Owner, action: SuspendJob) -> None:
        """As it was looked at: a queue may have stopped it since, and nobody lets run what another one has stopped."""
        try:
            raw = self.cluster.suspend_job(
                owner.namespace,
                action.name,
                suspend=action.suspend,
                revision=action.revision,
                version=action.version,
            )
        except Conflict:
            uid = self.cache.uid("Job", (owner.namespace, owner.name), action.name)
            self._read_again(owner, "Job", action.name, uid)
            raise
        self.keep("Job", owner, raw)

    def _read_again(self, owner: Owner, kind: str, name: str, uid: str) -> None:
        """What has changed since its watch told of it; one without a uid is not known."""
        if not uid:
            return
        key = (owner.namespace, owner.name)
        found = self.cluster.list(kind, owner.namespace, fields=f"metadata.name={name}")
        live = next((raw for raw in found if raw["metadata"].get("uid") == uid), None)
        if live is None:
            self.cache.forget(kind, key, name, uid)
        else:
            self.cache.put(kind, live)

    def _try_out(self, manifest: Mapping[str, Any], within_s: float) -> None:
        if within_s <= 0:
            where = (manifest["kind"], manifest["metadata"]["namespace"], manifest["metadata"]["name"])
            raise NotTried("try", *where, "the dry runs before it took all the time that a pass has for them")
        self.cluster.try_out(manifest, within_s=within_s)
