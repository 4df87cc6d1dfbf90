"""What a fault proxy is told to do: rules as data, and what they are matched with."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from embedding_operator.resource.labels import STAGE_LABEL

Raw = dict[str, Any]
_PATH = re.compile(
    r"/apis?(?:/[^/]+)?/v1[^/]*(?:/namespaces/(?P<namespace>[^/]+))?/(?P<plural>[a-z]+)(?:/(?P<name>[^/]+))?(?:/(?P<sub>.+))?$"
)
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


@dataclass(frozen=True, slots=True)
class Request:
    """One request of the operator, in the words of Kubernetes' audit log."""

    verb: str  # get | list | watch | create | update | patch | delete | try (a dry run)
    resource: str  # plural, with its subresource: embeddingfinetunes/status
    namespace: str
    name: str
    said: str = ""  # of a Job its stage, of an Event its reason

    @property
    def label(self) -> str:
        """What rules are matched with: `create jobs sdg`."""
        return f"{self.verb} {self.resource} {self.said}".strip()

    @property
    def writes(self) -> bool:
        """Leases are renewed as long as a process lives, whatever it does."""
        return self.verb in _VERBS.values() and self.resource != "leases"


def request_of(method: str, url: str, body: bytes) -> Request:
    split = urlsplit(url)
    query = dict(parse_qsl(split.query))
    found = _PATH.match(split.path)
    if found is None:
        return Request("get", split.path, "", "")
    name = found["name"] or ""
    verb = _VERBS.get(method) or ("get" if name else "watch" if query.get("watch") in ("true", "1") else "list")
    resource = "/".join(part for part in (found["plural"], found["sub"]) if part)
    sent = _sent(body) if method in ("POST", "PATCH") else {}
    meta = sent.get("metadata") or {}
    said = (meta.get("labels") or {}).get(STAGE_LABEL, "") if resource == "jobs" else ""
    if resource == "jobs" and not said and name:  # docs-finetune-...
        said = name.rsplit("-", 3)[0].rpartition("-")[2]
    if resource == "events":
        said = str(sent.get("reason", ""))
    verb = "try" if "dryRun" in query else verb
    return Request(verb, resource, found["namespace"] or "", name or str(meta.get("name", "")), said)


def _sent(body: bytes) -> Raw:
    try:
        found = json.loads(body or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


# What may happen to a request.


@dataclass(frozen=True, slots=True)
class Refuse:
    """Answered by the proxy; the API server never hears of it."""

    code: int
    retry_after: int = 0
    message: str = "the fault proxy says so"


@dataclass(frozen=True, slots=True)
class Lose:
    """Carried out, and the connection is cut before the answer."""


@dataclass(frozen=True, slots=True)
class Kill:
    """SIGKILL of the operator: before the API server hears of the request, or after it has answered."""

    when: str  # before | after


@dataclass(frozen=True, slots=True)
class Slow:
    """The answer takes its time."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Stale:
    """An answer that the same question had before: an API server that is behind."""


@dataclass(frozen=True, slots=True)
class Mutate:
    """What the operator sends is changed, as by an admission policy."""

    change: Callable[[Raw], object]


# What may happen to an event of a watch.


@dataclass(frozen=True, slots=True)
class Drop:
    """It never comes."""


@dataclass(frozen=True, slots=True)
class Twice:
    """It comes twice."""


@dataclass(frozen=True, slots=True)
class Later:
    """It comes after the next one, or after so many seconds when there is none."""

    seconds: float = 1.0


@dataclass(frozen=True, slots=True)
class Cut:
    """The stream breaks off."""


@dataclass(frozen=True, slots=True)
class Gone:
    """410: the stream ends with it, and what comes later has to be listed."""


@dataclass(frozen=True, slots=True)
class Silent:
    """The stream stays open and says nothing for so long."""

    seconds: float


Fault = Refuse | Lose | Kill | Slow | Stale | Mutate | Drop | Twice | Later | Cut | Gone | Silent
OF_EVENTS = (Drop, Twice, Later, Cut, Gone, Silent)


@dataclass(frozen=True, slots=True)
class Rule:
    """From the nth request that matches on, so many in a row meet the fault.

    `match` is a regular expression of a request's label; of an event it is `event jobs ADDED`.
    """

    match: str
    fault: Fault
    nth: int = 1
    times: int = 1


@dataclass(slots=True)
class Plan:
    """The rules of one namespace, and what has come of them."""

    rules: tuple[Rule, ...] = ()
    seen: dict[int, int] = field(default_factory=dict)  # rule -> how many matched
    met: list[str] = field(default_factory=list)  # label of each request that met its fault
    writes: list[Request] = field(default_factory=list)
    asked: list[Request] = field(default_factory=list)  # reads too, but for watches
    lifted: bool = False  # no rule holds any more

    def fault(self, label: str) -> Fault | None:
        """What happens now. Each rule counts for itself; the first whose turn it is decides."""
        found: Fault | None = None
        if self.lifted:
            return None
        for number, rule in enumerate(self.rules):
            if not re.fullmatch(rule.match, label):
                continue
            count = self.seen[number] = self.seen.get(number, 0) + 1
            if found is None and rule.nth <= count < rule.nth + rule.times:
                found = rule.fault
                self.met.append(label)
        return found

    def unmet(self) -> list[str]:
        """Rules whose moment never came: such a scenario has shown nothing."""
        return [rule.match for number, rule in enumerate(self.rules) if self.seen.get(number, 0) < rule.nth]


def merged(raw: Mapping[str, Any], patch: Mapping[str, Any]) -> Raw:
    """A JSON merge patch, carried out."""
    found = dict(raw)
    for key, value in patch.items():
        if value is None:
            found.pop(key, None)
        elif isinstance(value, Mapping):
            found[key] = merged(found.get(key) or {}, value)
        else:
            found[key] = value
    return found
