"""What controllers asked of the API server, and how soon: read from its audit log (level Metadata)."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})
# What the simulator writes as field manager where something ends, so that the log tells which write was the end.
POD_ENDED, JOB_ENDED, AVAILABLE = "pod-ended", "job-ended", "available"
_LEASES = "leases"
Place = tuple[str, str]  # namespace, name


@dataclass(frozen=True, slots=True)
class Request:
    """One request; `start` when it was received, `end` when it was answered (a watch: when it began to answer)."""

    user: str
    verb: str
    resource: str  # with its subresource: jobs/status
    namespace: str
    name: str
    code: int
    start: float
    end: float
    manager: str  # fieldManager of its address
    agent: str
    is_dry: bool = False  # dryRun=All: asked, and nothing kept

    @property
    def is_write(self) -> bool:
        return self.verb in WRITES and not self.is_dry

    @property
    def is_read(self) -> bool:
        return self.verb not in WRITES

    @property
    def is_lease(self) -> bool:
        return self.resource == _LEASES

    @property
    def place(self) -> Place:
        return (self.namespace, self.name)


def parse(line: bytes | str) -> Request | None:
    """A line of the log; None for the second line of a request that has two (a watch that ends)."""
    raw = json.loads(line)
    is_watch = raw["verb"] == "watch"
    if is_watch != (raw["stage"] == "ResponseStarted"):
        return None
    ref = raw.get("objectRef") or {}
    address = urlsplit(raw.get("requestURI", ""))
    resource = ref.get("resource") or address.path
    if ref.get("subresource"):
        resource += f"/{ref['subresource']}"
    query = parse_qs(address.query)
    return Request(
        user=raw["user"]["username"],
        verb=raw["verb"],
        resource=resource,
        namespace=ref.get("namespace", ""),
        name=ref.get("name", ""),
        code=int((raw.get("responseStatus") or {}).get("code", 0)),
        start=_seconds(raw["requestReceivedTimestamp"]),
        end=_seconds(raw["stageTimestamp"]),
        manager=query.get("fieldManager", [""])[0],
        agent=raw.get("userAgent", ""),
        is_dry="dryRun" in query,
    )


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """From the end of one thing to the request that makes the next."""

    seconds: float
    ended: float  # Unix time


@dataclass
class Log:
    """Reads on from where it was. The API server writes in batches: read a few seconds after what matters."""

    path: Path
    offset: int = 0
    requests: list[Request] = field(default_factory=list)

    def read(self) -> list[Request]:
        """All requests since the last `forget`."""
        if self.path.exists():
            with self.path.open("rb") as log:
                log.seek(self.offset)
                for line in log:
                    if not line.endswith(b"\n"):
                        break
                    self.offset += len(line)
                    found = parse(line)
                    if found is not None:
                        self.requests.append(found)
        return self.requests

    def forget(self) -> None:
        self.read()
        self.requests = []


def of(requests: Iterable[Request], user: str, begin: float = 0.0, end: float = float("inf")) -> Iterator[Request]:
    """One user's requests of a time, without those that keep a lease."""
    return (item for item in requests if item.user == user and begin <= item.start < end and not item.is_lease)


def counts(requests: Iterable[Request]) -> Counter[tuple[str, str]]:
    """Requests by verb and resource."""
    return Counter((f"{item.verb} (dry run)" if item.is_dry else item.verb, item.resource) for item in requests)


def transitions(requests: Iterable[Request], user: str, chains: Mapping[Place, str]) -> dict[str, list[Transition]]:
    """From each end to what `user` made next in the same chain, by kind: `job to job`, `pod to job`...

    `chains` says which chain a Job, Pod or Deployment belongs to. An end that nothing follows is not counted.
    """
    made: dict[str, list[tuple[float, str, Place]]] = defaultdict(list)
    ends: list[tuple[str, float, float, Place]] = []
    applied: set[Place] = set()
    for item in requests:
        if item.code >= 300:
            continue
        if item.manager in _ENDS:
            ends.append((_ENDS[item.manager], item.start, item.end, item.place))
        elif item.user == user and (kind := _made(item)) and item.place in chains:
            if kind == "deployment" and item.place in applied:
                continue
            applied.add(item.place)
            made[chains[item.place]].append((item.start, kind, item.place))
    for steps in made.values():
        steps.sort()
    found: dict[str, list[Transition]] = defaultdict(list)
    for what, asked, answered, place in ends:
        steps = made.get(chains.get(place, ""), [])
        # The watch may tell of a write before its own answer has gone out.
        position = bisect_left(steps, (asked, "", ("", "")))
        if position < len(steps):
            began, kind, _ = steps[position]
            found[f"{what} to {kind}"].append(Transition(seconds=began - answered, ended=answered))
    return dict(found)


_ENDS: Mapping[str, str] = {POD_ENDED: "pod", JOB_ENDED: "job", AVAILABLE: "deployment"}


def _made(item: Request) -> str:
    if item.is_dry:
        return ""
    if item.verb == "create" and item.resource in ("jobs", "pods"):
        return item.resource[:-1]
    if item.verb in ("create", "patch") and item.resource == "deployments":
        return "deployment"
    return ""
