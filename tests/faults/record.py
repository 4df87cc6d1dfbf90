"""What a scenario leaves behind, for the oracles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from faults.plans import Raw, Request

from embedding_stages.contract import ENV_REQUEST, StageRequest


@dataclass(frozen=True, slots=True)
class Entry:
    """One event of a watch. `version` is etcd's revision: entries of all kinds have one order."""

    version: int
    change: str  # ADDED | MODIFIED | DELETED
    raw: Raw

    @property
    def key(self) -> tuple[str, str]:
        return self.raw["kind"], self.raw["metadata"]["name"]


@dataclass
class Record:
    """Of one namespace."""

    name: str
    uid: str = ""  # of the resource that was there at the end
    end: list[Raw] = field(default_factory=list)  # objects before the resource was deleted
    history: list[Entry] = field(default_factory=list)
    writes: list[Request] = field(default_factory=list)
    asked: list[Request] = field(default_factory=list)  # reads too
    unmet: list[str] = field(default_factory=list)  # rules whose moment never came
    met: list[str] = field(default_factory=list)
    kills: int = 0
    said: str = ""  # the operator's log
    leaked: list[str] = field(default_factory=list)  # after the deletion
    error: str = ""  # it did not get to its end


def request_in(pod_spec: Mapping[str, Raw]) -> StageRequest | None:
    """What a stage's pod is asked to do."""
    for item in pod_spec["containers"][0].get("env") or ():
        if item["name"] == ENV_REQUEST:
            return StageRequest.from_json(item["value"].replace("$$", "$"))
    return None
