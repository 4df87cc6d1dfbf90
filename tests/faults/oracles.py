"""What must hold after every scenario. Pure: each reads a record, and says what is wrong in it.

`history` has every event of a namespace in etcd's order, so a moment of it is the cluster as it was at that moment.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from faults.plans import Raw, Request
from faults.record import Entry, Record, request_in
from simulation.fake_cluster import NAMESPACE
from simulation.invariants import check_status

from embedding_operator.resource.api import KIND
from embedding_operator.resource.conditions import READY
from embedding_operator.resource.folding import written_out
from embedding_operator.resource.labels import (
    ATTEMPT_LABEL,
    JOB_NAME_LABEL,
    MANAGED_BY_LABEL,
    SERVING_LABEL,
    STAGE_LABEL,
)
from embedding_stages.contract import Artefact, Stage

# Status writes and Events follow what a pass happens to see; all other writes follow from the plan alone.
_BESIDE = ("embeddingfinetunes/status", "events")
_SLACK = 12  # of those two: states that one run saw and another one did not
_A_KILL = 4  # writes that the next life may do again
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z")
_JOB = re.compile(rf"(docs-(?:{'|'.join(Stage)}))-[0-9a-f]{{8}}-\d+")
_FOLDER = re.compile(r"docs-[0-9a-f]{8}/")  # of the resource in a volume that it may share
_HEX = re.compile(r"\b[0-9a-f]{8,}\b")
_OF_SERVER = ("clusterIP", "clusterIPs", "nodePort", "volumeName")
_NOISE = {
    "lastFailure",
    "attempt",
    "startedAt",
    "tookSeconds",
    "finishedAt",
    "jobName",
    "lastTransitionTime",
    "progress",
    "verifyReport",
}


def troubles(
    record: Record, golden: Golden, *, cost: int = 0, end: str = "all", strangers: bool = False, may_miss: bool = False
) -> list[str]:
    """All that is wrong. `cost`: writes beyond the golden run's. `end`: see `end_of`. `strangers`: others changed our
    objects, so that a moment of the history is not ours alone. `may_miss`: the fault need not have come.
    """
    if record.error:
        return [record.error]
    found = [] if may_miss else [*never_met(record)]
    found += [*twice(record), *leaked(record), *said(record)]
    found += end_differs(record, golden, end)
    found += too_many_writes(record, golden, cost)
    if not strangers:
        found += [*untrue(record), *unserved(record)]
    return found


LEVELS = ("all", "asked", "names")


@dataclass
class Golden:
    """The end of the same story without a fault, and the most that it wrote."""

    ends: dict[str, str]
    writes: int = 0  # of children
    beside: int = 0  # of status and Events
    sequence: list[Request] = field(default_factory=list)  # of writes
    reads: list[Request] = field(default_factory=list)  # and writes
    server: str = ""  # the Deployment's name

    @classmethod
    def of(cls, records: list[Record]) -> Golden:
        counted = [_counts(record.writes) for record in records]
        shortest = min(records, key=lambda record: len(record.writes))
        return cls(
            ends={level: end_of(records[0], level) for level in LEVELS},
            writes=max(one for one, _ in counted),
            beside=max(two for _, two in counted),
            sequence=shortest.writes,
            reads=shortest.asked,
            server=next(raw["metadata"]["name"] for raw in shortest.end if raw["kind"] == "Deployment"),
        )


# The end.


def end_of(record: Record, level: str = "all") -> str:
    """What is left, without times, attempts and what the server numbers.

    `all`: children with their specs, and the status. `asked`: without what tells how it came about: revisions,
    fingerprints, records, Jobs that have ended. `names`: which objects there are, and the conditions.
    """
    lines = set()
    for raw in record.end:
        meta, kind = raw["metadata"], raw["kind"]
        ours = kind == KIND or MANAGED_BY_LABEL in (meta.get("labels") or {})
        if not ours or kind == "Pod" or (level != "all" and kind in ("Job", "ConfigMap")):
            continue
        body: Raw = {"kind": kind, "name": meta["name"]}
        if level != "names":
            body["labels"] = _without(meta.get("labels"), (ATTEMPT_LABEL,))
        if kind == KIND:
            body |= {"status": _status(raw, level)}
        elif kind == "ConfigMap":
            body["data"] = sorted(raw.get("data") or ())
        elif kind == "Job":
            body["image"] = raw["spec"]["template"]["spec"]["containers"][0]["image"]
        elif level != "names":
            body["spec"] = _without(raw["spec"], _OF_SERVER)
        text = json.dumps(body, sort_keys=True, indent=1)
        text = _JOB.sub(r"\1-<job>", _TIME.sub("<time>", text).replace(record.uid, "<uid>"))
        text = _FOLDER.sub("<folder>/", text).replace(meta["namespace"], "<namespace>")
        lines.add(text if level == "all" else _HEX.sub("<hex>", text))
    return "\n".join(sorted(lines))


def _status(raw: Raw, level: str) -> Raw:
    status = written_out(raw.get("status") or {})
    if level == "all":
        return dict(_without(status, _NOISE))
    conditions = {item["type"]: item["status"] for item in status["conditions"]}
    if level == "names":
        return {"phase": status["phase"], "conditions": conditions}
    settings = {name: item["settings"] for name, item in status["resolved"]["stages"].items()}
    return {"phase": status["phase"], "settings": settings, "conditions": conditions}


def _without(value: Any, keys: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without(item, keys) for key, item in value.items() if key not in keys}
    if isinstance(value, list):
        return [_without(item, keys) for item in value]
    if isinstance(value, str):
        return re.sub(r"\battempt \d+\b", "attempt <n>", value)
    return value


def end_differs(record: Record, golden: Golden, level: str = "all") -> Iterator[str]:
    wanted, found = golden.ends[level].split("\n"), end_of(record, level).split("\n")
    if wanted != found:
        missing, more = Counter(wanted) - Counter(found), Counter(found) - Counter(wanted)
        yield f"the end differs: missing {[*missing][:6]}, instead {[*more][:6]}"


# The way there.


def never_met(record: Record) -> Iterator[str]:
    """A scenario whose fault never came has shown nothing."""
    for rule in record.unmet:
        yield f"no request met the rule {rule}"


def twice(record: Record) -> Iterator[str]:
    """One stage, the same inputs, two pods that neither failed nor were stopped.

    Stopped: its Job was deleted before it was complete, as an edit asks for that makes an earlier stage run again.
    """
    last: dict[str, Entry] = {}
    stopped = set[str]()  # pods by uid, Jobs by name
    for entry in record.history:
        meta, gone = entry.raw["metadata"], entry.change == "DELETED"
        if entry.raw["kind"] == "Job" and (gone or "deletionTimestamp" in meta) and not _complete(entry.raw):
            stopped.add(meta["name"])
        if entry.raw["kind"] == "Pod" and STAGE_LABEL in (meta.get("labels") or {}):
            last[meta["uid"]] = entry if not gone or meta["uid"] not in last else last[meta["uid"]]
            if gone and _phase(entry.raw) not in ("Succeeded", "Failed"):
                stopped.add(meta["uid"])
    ran: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for uid, entry in last.items():
        request = request_in(entry.raw["spec"])
        stops = {uid, entry.raw["metadata"]["labels"].get(JOB_NAME_LABEL, "")} & stopped
        if request is not None and not stops and not _failed(entry.raw):
            owner = entry.raw["metadata"]["labels"]["embedding-operator.dev/owner-uid"]
            ran[owner, request.stage.value, request.fingerprint].append(entry.raw["metadata"]["name"])
    for (_, stage, fingerprint), pods in ran.items():
        if len(pods) > 1:
            yield f"{stage} ran twice for {fingerprint[:8]}: {pods}"


def too_many_writes(record: Record, golden: Golden, cost: int = 0) -> Iterator[str]:
    children, beside = _counts(record.writes)
    more = cost + record.kills * _A_KILL
    for what, count, most in (
        ("objects", children, golden.writes),
        ("status and Events", beside, golden.beside + _SLACK),
    ):
        if count > most + more:
            labels = Counter(request.label for request in record.writes)
            yield f"{count} writes of {what}, at most {most + more}: {labels.most_common(5)}"


def _counts(writes: list[Request]) -> tuple[int, int]:
    beside = sum(request.resource in _BESIDE for request in writes)
    return len(writes) - beside, beside


def leaked(record: Record) -> Iterator[str]:
    """Nothing is left after the resource; and each object names an owner that was there, so that nothing could be."""
    for name in record.leaked:
        yield f"{name} is left after the resource was deleted"
    uids = {raw["metadata"]["uid"] for raw in record.end}
    for raw in record.end:
        if MANAGED_BY_LABEL in (raw["metadata"].get("labels") or {}):
            owners = [ref["uid"] for ref in raw["metadata"].get("ownerReferences") or ()]
            if not set(owners) & uids:
                yield f"{raw['kind']} {raw['metadata']['name']} has no owner that is there: {owners}"


def said(record: Record) -> Iterator[str]:
    """Tracebacks, and errors of the operator, in its log."""
    for line in record.said.splitlines():
        try:
            told = json.loads(line)
        except ValueError:
            told = {"message": line}
        # Kopf says an error for each request that it repeats.
        ours = str(told.get("logger", "")).startswith("embedding_operator")
        if "exception" in told or "Traceback" in line or (ours and told.get("severity") in ("ERROR", "CRITICAL")):
            words = str(told.get("message", line))
            yield f"the log says: {words[:300]} ... {str(told.get('exception', ''))[-300:]}"


# Moments of the history.


class Moment:
    """The cluster as it was: the part of it that the simulation's invariants look at."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], Raw] = {}

    def find(self, kind: str) -> list[Raw]:
        return [raw for (found, _, _), raw in self.objects.items() if found == kind]

    def take_in(self, entry: Entry) -> None:
        kind, name = entry.key
        if entry.change == "DELETED":
            self.objects.pop((kind, NAMESPACE, name), None)
        else:
            self.objects[kind, NAMESPACE, name] = entry.raw


def untrue(record: Record) -> Iterator[str]:
    """A status that was not so when it was written; Ready above all. The invariants are the simulation's."""
    moment, before = Moment(), Raw()
    for entry in record.history:
        moment.take_in(entry)
        if entry.raw["kind"] != KIND or entry.change == "DELETED":
            continue
        status = entry.raw.get("status") or {}
        if status != before and status.get("conditions"):
            try:
                check_status(moment, entry.raw)  # type: ignore[arg-type]
            except (AssertionError, KeyError, StopIteration) as error:
                ready = [item for item in status["conditions"] if item["type"] == READY]
                yield f"the status was not true at {entry.version}: {error!r}; {ready}"[:1500]
        before = status


def unserved(record: Record) -> Iterator[str]:
    """The clients' Service points at what was verified and is there, from its first day to the resource's end."""
    moment, verified, led = Moment(), set[str](), ""
    for entry in record.history:
        kind, name = entry.key
        moment.take_in(entry)
        if kind == KIND and (entry.change == "DELETED" or "deletionTimestamp" in entry.raw["metadata"]):
            return
        request = request_in(entry.raw["spec"]["template"]["spec"]) if kind == "Job" and _complete(entry.raw) else None
        if request is not None and request.stage is Stage.VERIFY:
            verified.add(request.inputs[Artefact.SERVING_MODEL].digest)
        if (kind, name) == ("Service", "docs") and MANAGED_BY_LABEL in (entry.raw["metadata"].get("labels") or {}):
            led = "" if entry.change == "DELETED" else entry.raw["spec"]["selector"].get(SERVING_LABEL, "?")
            if entry.change == "DELETED":
                yield f"the clients' Service was deleted at {entry.version}"
        if led and kind in ("Service", "Deployment"):
            digests = [_digest(raw) for raw in moment.find("Deployment") if _serving(raw) == led]
            if not digests:
                yield f"clients are led to {led}, and there is no such server at {entry.version}"
            elif not set(digests) <= verified:
                yield f"clients are led to {led} at {entry.version}, which was not verified"


def _serving(deployment: Raw) -> str:
    if "deletionTimestamp" in deployment["metadata"]:
        return ""
    return str(deployment["metadata"]["labels"].get(SERVING_LABEL, ""))


def _digest(deployment: Raw) -> str:
    return str(deployment["spec"]["template"]["spec"]["initContainers"][0]["command"][-1])


def _complete(job: Raw) -> bool:
    conditions = (job.get("status") or {}).get("conditions") or ()
    return any(item["type"] == "Complete" and item["status"] == "True" for item in conditions)


def _failed(pod: Raw) -> bool:
    """Also one that ended without a word: its work counts for nothing."""
    ended = [item["state"].get("terminated") for item in (pod.get("status") or {}).get("containerStatuses") or ()]
    return _phase(pod) == "Failed" or any(item is not None and not item.get("message") for item in ended)


def _phase(pod: Raw) -> str:
    return str((pod.get("status") or {}).get("phase", ""))
