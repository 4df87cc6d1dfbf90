"""An API server in memory: the `Cluster` of the simulation.

What it keeps of the real one: resourceVersions and conflicts, generations that only a spec moves, ownership and
garbage collection, server-side apply that removes what is no longer applied, defaulting, and a watch log. `hook` is
called before and after every request and may raise: that is how replies are lost and operators die.

Objects are never changed in place, so a reader may keep what it got.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from simulation.server_rules import add_defaults, merge_applied, patch, selects

from embedding_operator.cluster.answers import dry_run_error, error_of, must_be_ours
from embedding_operator.cluster.errors import Conflict, Forbidden, NotTried, Rejected, Unavailable
from embedding_operator.objects.corrections import corrections, keeping
from embedding_operator.resource.api import KIND
from embedding_operator.resource.labels import OWNER_LABEL, RESUMED_ANNOTATION, SUSPENDED_ANNOTATION

Raw = dict[str, Any]
Ref = tuple[str, str, str]  # kind, namespace, name
T = TypeVar("T")
NAMESPACE = "team-a"


class Crash(BaseException):
    """The operator's process ends here. Nothing in it may catch this."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request."""

    verb: str
    kind: str
    name: str

    @property
    def writes(self) -> bool:
        return self.verb not in ("get", "list", "log", "try")


def _accept(call: Call, when: str) -> None:
    """The hook of a cluster without faults."""


class FakeCluster:
    """Implements `Cluster`; the methods in the second half are for the world around the operator."""

    def __init__(self, clock: Callable[[], datetime], *, foreground: bool = True) -> None:
        self.clock = clock
        self.foreground = foreground  # a deleted object stays, marked, until its dependents are gone
        self.objects: dict[Ref, Raw] = {}
        self.watch: list[tuple[str, str, Raw]] = []  # ADDED | MODIFIED | DELETED, kind, object
        self.calls: list[Call] = []
        self.created_jobs: list[str] = []
        self.logs: dict[str, str] = {}
        self.hook: Callable[[Call, str], None] = _accept
        self.admit: Callable[[Raw], object] = lambda raw: None  # an admission policy that changes Deployments
        self.policies: dict[str, Callable[[Raw], object]] = {}  # the same of other kinds
        self.has_nim_operator = False  # whether the CRD of NIMServices is installed
        self.swapped = ""  # weights that servers answer with, whatever lies on the volume
        self.on_status: list[Callable[[Raw], None]] = []
        self._version = 0
        self._applied: dict[Ref, Raw] = {}

    # The operator's side.

    def now(self) -> datetime:
        return self.clock()

    def get(self, kind: str, namespace: str, name: str) -> Raw | None:
        return self._call(Call("get", kind, name), lambda: self.objects.get((kind, namespace, name)))

    def list(self, kind: str, namespace: str | None = None, *, labels: str = "", fields: str = "") -> list[Raw]:
        def found() -> list[Raw]:
            return [
                raw
                for (its_kind, its_namespace, _), raw in self.objects.items()
                if its_kind == kind and namespace in (None, its_namespace) and selects(raw, labels, fields)
            ]

        return self._call(Call("list", kind, ""), found)

    def each(
        self, kind: str, namespace: str | None = None, *, labels: str = "", fields: str = ""
    ) -> Generator[Raw, None, str]:
        yield from self.list(kind, namespace, labels=labels, fields=fields)
        return str(self._version)

    def versions(self, kind: str, namespace: str | None = None, *, labels: str = "") -> Generator[Raw, None, str]:
        yield from ({"metadata": raw["metadata"]} for raw in self.list(kind, namespace, labels=labels))
        return str(self._version)

    def create_job(self, manifest: Mapping[str, Any]) -> Raw:
        name, namespace = manifest["metadata"]["name"], manifest["metadata"]["namespace"]

        def create() -> Raw:
            existing = self.objects.get(("Job", namespace, name))
            if existing is not None:
                must_be_ours("Job", manifest, existing, self.clock())
                return existing
            self.created_jobs.append(name)
            return self.add(manifest)

        return self._call(Call("create", "Job", name), create)

    def create_pod(self, manifest: Mapping[str, Any], *, within_s: float) -> Raw | None:
        ref = _ref(manifest)
        try:
            return self._call(
                Call("create", "Pod", ref[2]), lambda: None if ref in self.objects else self.add(manifest)
            )
        except (Rejected, Forbidden, Unavailable) as error:
            raise NotTried("create", *ref, error.detail) from error

    def apply(self, manifest: Mapping[str, Any]) -> Raw:
        ref = _ref(manifest)

        def apply() -> Raw:
            self._know(ref)
            existing = self.objects.get(ref)
            if existing is None:
                self._applied[ref] = dict(manifest)
                return self.add(manifest)
            must_be_ours(ref[0], manifest, existing, self.clock())
            if undone := corrections(manifest, existing):
                existing = self.change(*ref, lambda raw: patch(raw, undone)) or existing
            applied = dict(keeping(manifest, existing))
            before, self._applied[ref] = self._applied.get(ref, {}), applied
            return self.change(*ref, lambda raw: merge_applied(raw, before, applied)) or existing

        return self._call(Call("apply", ref[0], ref[2]), apply)

    def try_out(self, manifest: Mapping[str, Any], *, within_s: float) -> None:
        ref = _ref(manifest)

        def try_out() -> None:
            self._know(ref)
            existing = self.objects.get(ref)
            if ref[0] == "Secret" and existing is None:
                raise Rejected("find", *ref, "it does not exist")
            if existing is not None and ref[0] not in ("Job", "Secret"):
                must_be_ours(ref[0], manifest, existing, self.clock())

        try:
            self._call(Call("try", ref[0], ref[2]), try_out)
        except (Rejected, Forbidden, Unavailable) as error:
            raise dry_run_error(error) from error

    def _know(self, ref: Ref) -> None:
        if ref[0] == "NIMService" and not self.has_nim_operator:
            raise error_of(404, "patch", ref, {}, b"404 page not found")

    def delete(self, kind: str, namespace: str, name: str, *, uid: str = "", version: str = "") -> None:
        def delete() -> None:
            live = self.objects.get((kind, namespace, name))
            if uid and live is not None and live["metadata"]["uid"] != uid:
                raise Conflict("delete", kind, namespace, name, "the uid in the precondition is another one")
            if version and live is not None and live["metadata"]["resourceVersion"] != version:
                raise Conflict("delete", kind, namespace, name, "the resourceVersion is another one")
            self.mark_deleted(kind, namespace, name)

        self._call(Call("delete", kind, name), delete)

    def suspend_job(self, namespace: str, name: str, *, suspend: bool, revision: int, version: str) -> Raw | None:
        ref = ("Job", namespace, name)

        def edit(raw: Raw) -> None:
            _must_be_of(version, raw, "suspend", ref)
            if not suspend and raw["spec"].get("suspend"):
                assert SUSPENDED_ANNOTATION in raw["metadata"].get("annotations", {}), f"not its to resume: {name}"
            raw["spec"].update(suspend=suspend)
            _note(raw, suspended_by=revision if suspend else None)

        return self._call(Call("suspend", "Job", name), lambda: self.change(*ref, edit))

    def activate_workload(self, namespace: str, name: str, *, active: bool, revision: int, version: str) -> None:
        ref = ("Workload", namespace, name)

        def edit(raw: Raw) -> None:
            _must_be_of(version, raw, "activate", ref)
            if active and not raw["spec"]["active"]:
                assert SUSPENDED_ANNOTATION in raw["metadata"].get("annotations", {}), f"not its to activate: {name}"
            raw["spec"].update(active=active)
            _note(raw, suspended_by=None if active else revision)

        self._call(Call("activate", "Workload", name), lambda: self.change(*ref, edit))

    def forget_suspension(self, kind: str, namespace: str, name: str, *, resumed_in: int | None) -> Raw | None:
        def edit(raw: Raw) -> None:
            _note(raw, resumed_in=resumed_in)

        return self._call(Call("forget", kind, name), lambda: self.change(kind, namespace, name, edit))

    def write_status(self, resource: Mapping[str, Any], status: Mapping[str, Any], *, dry_run: bool = False) -> Raw:
        meta = resource["metadata"]
        ref = (KIND, meta["namespace"], meta["name"])

        def write() -> Raw:
            live = self.objects.get(ref)
            if live is None or live["metadata"]["resourceVersion"] != meta["resourceVersion"]:
                raise Conflict("update", *ref, "the object has been modified")
            written = self.change(*ref, lambda raw: raw.update(status=_copy(status)))
            assert written is not None, f"a status was written that changes nothing: {meta['name']}"
            for check in self.on_status:
                check(written)
            return written

        if dry_run:
            self.hook(Call("status", KIND, meta["name"]), "before")
            if self.objects[ref]["metadata"]["resourceVersion"] != meta["resourceVersion"]:
                raise Conflict("update", *ref, "the object has been modified")
            return dict(resource)
        return self._call(Call("status", KIND, meta["name"]), write)

    def post_event(self, resource: Mapping[str, Any], event_type: str, reason: str, message: str, time: str) -> None:
        meta = resource["metadata"]
        event = {
            "kind": "Event",
            "metadata": {"name": f"{meta['name']}.{len(self.calls)}", "namespace": meta["namespace"]},
            "involvedObject": {"kind": KIND, "name": meta["name"], "uid": meta["uid"]},
            "type": event_type,
            "reason": reason,
            "message": message,
            "lastTimestamp": time,
        }
        self._call(Call("event", "Event", meta["name"]), lambda: self.add(event))

    def log_tail(self, namespace: str, pod: str, *, lines: int) -> str:
        return self._call(Call("log", "Pod", pod), lambda: self.logs.get(pod, ""))

    def _call(self, call: Call, act: Callable[[], T]) -> T:
        self.hook(call, "before")
        self.calls.append(call)
        answer = act()
        self.hook(call, "after")
        return answer

    # The world's side.

    def fork(self, clock: Callable[[], datetime]) -> FakeCluster:
        """A copy without hooks that goes its own way."""
        twin = FakeCluster(clock, foreground=self.foreground)
        twin.objects, twin.watch, twin.calls = dict(self.objects), list(self.watch), list(self.calls)
        twin.created_jobs, twin.logs = list(self.created_jobs), dict(self.logs)
        twin.admit, twin.has_nim_operator, twin.policies = self.admit, self.has_nim_operator, dict(self.policies)
        twin._version, twin._applied = self._version, dict(self._applied)
        return twin

    def find(self, kind: str) -> list[Raw]:
        return [raw for ref, raw in self.objects.items() if ref[0] == kind]

    def object(self, kind: str, name: str) -> Raw:
        return self.objects[kind, NAMESPACE, name]

    def add(self, manifest: Mapping[str, Any]) -> Raw:
        raw = _copy(manifest)
        self._version += 1
        raw["metadata"] |= {
            "uid": f"{self._version:08d}-uid",
            "generation": 1,
            "creationTimestamp": f"{self.clock():%Y-%m-%dT%H:%M:%SZ}",
        }
        self._default(raw)
        return self._put("ADDED", raw)

    def change(self, kind: str, namespace: str, name: str, edit: Callable[[Raw], object]) -> Raw | None:
        """Edit a copy and store it; None when the object is gone or the edit changes nothing."""
        old = self.objects.get((kind, namespace, name))
        if old is None:
            return None
        new = _copy(old)
        edit(new)
        self._default(new)
        if new == old:
            return None
        if new.get("spec") != old.get("spec"):
            new["metadata"]["generation"] += 1
        return self._put("MODIFIED", new)

    def _default(self, raw: Raw) -> None:
        if raw["kind"] == "Deployment":
            self.admit(raw)
        if raw["kind"] in self.policies:
            self.policies[raw["kind"]](raw)
        add_defaults(raw)

    def _put(self, event: str, raw: Raw) -> Raw:
        self._version += 1
        raw["metadata"]["resourceVersion"] = str(self._version)
        old, self.objects[_ref(raw)] = self.objects.get(_ref(raw)), raw
        self.watch.append(self._told(event, old, raw))
        return raw

    def _told(self, event: str, old: Raw | None, new: Raw) -> tuple[str, str, Raw]:
        """A watch by label takes an object without it for one that is gone, and tells of it as it was before."""
        before, after = _is_labelled(old), _is_labelled(new)
        if old is not None and before and not after:
            version = new["metadata"]["resourceVersion"]
            return "DELETED", new["kind"], {**old, "metadata": {**old["metadata"], "resourceVersion": version}}
        return "ADDED" if after and not before else event, new["kind"], new

    def mark_deleted(self, kind: str, namespace: str, name: str) -> None:
        ref = (kind, namespace, name)
        if ref not in self.objects:
            return
        kept = self.objects[ref]["metadata"].get("finalizers")
        if kept or (self.foreground and self._dependents(self.objects[ref])):
            now = f"{self.clock():%Y-%m-%dT%H:%M:%SZ}"
            self.change(*ref, lambda raw: raw["metadata"].setdefault("deletionTimestamp", now))
        else:
            self.remove(*ref)

    def remove(self, kind: str, namespace: str, name: str) -> None:
        raw = self.objects.pop((kind, namespace, name), None)
        self._applied.pop((kind, namespace, name), None)
        if raw is not None:
            self._version += 1
            last = {**raw, "metadata": {**raw["metadata"], "resourceVersion": str(self._version)}}
            self.watch.append(("DELETED", kind, last))

    def collect_garbage(self) -> None:
        """Remove what belongs to nothing any more, then what waited for its dependents."""
        while True:
            uids = {raw["metadata"].get("uid") for raw in self.objects.values() if not _deleting(raw)}
            orphans = [ref for ref, raw in self.objects.items() if (owners := _owners(raw)) and not owners & uids]
            waiting = [
                ref
                for ref, raw in self.objects.items()
                if _deleting(raw) and not self._dependents(raw) and not raw["metadata"].get("finalizers")
            ]
            for ref in [*orphans, *waiting]:
                self.remove(*ref)
            if not orphans and not waiting:
                return

    def _dependents(self, raw: Raw) -> list[Raw]:
        return [other for other in self.objects.values() if raw["metadata"].get("uid") in _owners(other)]


def _ref(raw: Mapping[str, Any]) -> Ref:
    return raw["kind"], raw["metadata"]["namespace"], raw["metadata"]["name"]


def _must_be_of(version: str, raw: Raw, verb: str, ref: Ref) -> None:
    if raw["metadata"]["resourceVersion"] != version:
        raise Conflict(verb, *ref, "the object has been modified")


def _note(raw: Raw, *, suspended_by: int | None = None, resumed_in: int | None = None) -> None:
    notes = raw["metadata"].setdefault("annotations", {})
    for key, revision in ((SUSPENDED_ANNOTATION, suspended_by), (RESUMED_ANNOTATION, resumed_in)):
        notes.pop(key, None)
        if revision is not None:
            notes[key] = str(revision)


def _is_labelled(raw: Raw | None) -> bool:
    return OWNER_LABEL in (((raw or {}).get("metadata") or {}).get("labels") or {})


def _owners(raw: Raw) -> set[str]:
    return {ref["uid"] for ref in raw["metadata"].get("ownerReferences") or ()}


def _deleting(raw: Raw) -> bool:
    return "deletionTimestamp" in raw["metadata"]


def _copy(raw: Mapping[str, Any]) -> Raw:
    copied: Raw = json.loads(json.dumps(raw))
    return copied
