"""What must hold whatever happens, read from what the simulator told and from what the cluster holds. Pure."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Raw = Mapping[str, Any]
OWNER_UID = "embedding-operator.dev/owner-uid"


@dataclass(frozen=True, slots=True)
class Place:
    kind: str
    namespace: str
    name: str


def repeated(events: Iterable[Raw]) -> list[str]:
    """Work done again after it had been done, and work that two Jobs did at a time.

    A stage whose Job was removed before its end is begun again by right: the manifest was edited meanwhile.
    """
    done: dict[tuple[str, str, str], str] = {}
    under_way: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    work: dict[str, tuple[str, str, str]] = {}
    found = []
    for event in events:
        if event["what"] == "run" and event.get("fingerprint"):
            key = work[event["uid"]] = (event["owner"], event["stage"], event["fingerprint"])
            if done.get(key, event["uid"]) != event["uid"]:
                found.append(f"{event['namespace']}/{event['name']}: this work was done before")
            if under_way[key] - {event["uid"]}:
                found.append(f"{event['namespace']}/{event['name']}: another Job does this work")
            under_way[key].add(event["uid"])
        elif event["what"] in ("ended", "gone") and event.get("uid") in work:
            key = work[event["uid"]]
            under_way[key].discard(event["uid"])
            if event["what"] == "ended":
                done[key] = event["uid"]
    return found


def leaked(objects: Iterable[tuple[str, Raw]], alive: set[str]) -> set[Place]:
    """Objects of resources that are no more; `objects` are (kind, object), `alive` UIDs of resources."""
    found = set()
    for kind, raw in objects:
        meta = raw["metadata"]
        owner = (meta.get("labels") or {}).get(OWNER_UID)
        if owner is not None and owner not in alive:
            found.add(Place(kind, meta["namespace"], meta["name"]))
    return found


def tracebacks(lines: Iterable[str]) -> dict[str, int]:
    """The last lines of the log's tracebacks, and how often each occurs."""
    found: dict[str, int] = defaultdict(int)
    for line in lines:
        if "Traceback (most recent call last)" not in line:
            continue
        try:
            said = json.loads(line)
        except ValueError:
            found["a traceback outside of the log's format"] += 1
            continue
        text = str(said.get("exception") or said.get("message") or "")
        found[text.strip().splitlines()[-1][:200]] += 1
    return dict(found)
