"""Which parameters an endpoint takes: what it refuses is left out or named otherwise, and remembered. Thread-safe."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

REFUSALS: Final = frozenset({400, 422, 501})  # statuses of a request that has something that is not taken
_NEEDED: Final = frozenset({"model", "messages"})
# The limit of an answer has two names: servers take the one, the other or both.
_TWINS: Final = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}
_TOO_LONG: Final = re.compile(r"context[ _-]?(?:length|window|size)", re.IGNORECASE)  # this request with its limit
_ALSO_CALLED: Final = {"response_format": r"json[_ -]?(?:mode|object)|structured[_ ]outputs?"}
_SYSTEM: Final = "system"  # a role that some models' templates do not have
_SYSTEM_REFUSED: Final = re.compile(r"system[\W_]+(?:role|message|prompt|instruction)|role[\W_]+system", re.IGNORECASE)
_LONGEST_WAIT_S: Final = 1.0
_BARE_TRIES: Final = 3  # of a request that was refused without a word on what


@dataclass(slots=True)
class Changes:
    """What is changed in a request before it is sent."""

    left_out: set[str] = field(default_factory=set)
    renamed: dict[str, str] = field(default_factory=dict)
    once: set[str] = field(default_factory=set)  # left out of this request alone

    def applied_to(self, body: Mapping[str, Any]) -> dict[str, Any]:
        left_out = self.left_out | self.once
        changed = {self.renamed.get(key, key): value for key, value in body.items() if key not in left_out}
        if _SYSTEM in self.renamed:
            changed["messages"] = _without_system(body["messages"])
        return changed

    def join(self, other: Changes) -> None:
        """Make those of another request too; where the two disagree, as that one has it."""
        self.left_out |= other.left_out
        renamed = self.renamed | other.renamed
        self.renamed = {one: to for one, to in renamed.items() if one not in self.left_out}

    def copy(self) -> Changes:
        return Changes(set(self.left_out), dict(self.renamed), set(self.once))

    def to_json(self) -> dict[str, Any]:
        """Empty when nothing is changed."""
        body: dict[str, Any] = {}
        if self.left_out:
            body["leftOut"] = sorted(self.left_out)
        if self.renamed:
            body["renamed"] = dict(sorted(self.renamed.items()))
        return body

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Changes:
        """Raises TypeError, ValueError or AttributeError when it is none."""
        names = {str(one) for one in raw.get("leftOut", [])}
        return cls(names - _NEEDED, {str(one): str(other) for one, other in raw.get("renamed", {}).items()})


class Dialect:
    """What is known of an endpoint. A change is remembered once the endpoint took a request that had it."""

    def __init__(self, known: Changes | None = None) -> None:
        self._lock = threading.Lock()
        self._changes = known or Changes()
        self._first = threading.Lock()
        self._takes_all = False  # as it is sent now
        self._bare_tries = 0

    def known(self) -> Changes:
        with self._lock:
            return self._changes.copy()

    @contextmanager
    def one_at_a_time(self) -> Iterator[None]:
        """Until the endpoint has taken a request: what one of them finds out, the others need not ask in vain.

        A refusal comes at once and an answer takes its time, so nobody waits for long.
        """
        is_first = not self._is_known() and self._first.acquire(timeout=_LONGEST_WAIT_S)
        try:
            if is_first and self._is_known():
                self._first.release()
                is_first = False
            yield
        finally:
            if is_first:
                self._first.release()

    def _is_known(self) -> bool:
        with self._lock:
            return self._takes_all

    def accepted(self, changes: Changes) -> None:
        """A request with these changes was taken."""
        with self._lock:
            self._changes.join(changes)
            self._takes_all = True

    def after_refusal(
        self, said: str, body: Mapping[str, Any], changes: Changes, own: Collection[str]
    ) -> Changes | None:
        """Further changes to a request that was refused with the words `said`; None when they point at none.

        `body` is the request without changes, `own` are the parameters in it that nobody asked for: they go all at once
        where the endpoint does not say which one it refuses.
        """
        newer = self._newer_than(changes)
        if newer is not None:
            return newer
        sent = changes.applied_to(body)
        name = _named_in(said, {key: [key, *_other_name(key, changes)] for key in sent if key not in _NEEDED})
        further = changes.copy()
        if name in _TWINS and _TOO_LONG.search(said):
            further.once |= {name, _TWINS[name]}
            return further
        if name is not None:
            _give_up(name, further, body, sent)
            return further
        if _SYSTEM_REFUSED.search(said) and _SYSTEM not in changes.renamed and _has_system(body["messages"]):
            further.renamed[_SYSTEM] = "user"
            return further
        optional = set(own) & sent.keys() - _NEEDED
        with self._lock:
            if not optional or self._takes_all or self._bare_tries == _BARE_TRIES:
                return None
            self._bare_tries += 1
        further.left_out |= optional
        return further

    def _newer_than(self, changes: Changes) -> Changes | None:
        """With what another request has found out since."""
        known = self.known()
        both = changes.copy()
        both.join(known)
        return None if both == changes else both


def _give_up(name: str, changes: Changes, body: Mapping[str, Any], sent: Mapping[str, Any]) -> None:
    original = next((one for one, other in changes.renamed.items() if other == name and one != _SYSTEM), name)
    twin = _TWINS.get(name)
    if twin is not None and original == name and twin not in sent and twin not in body:
        changes.renamed[name] = twin
        return
    changes.renamed.pop(original, None)
    changes.left_out.add(original)


def _other_name(key: str, changes: Changes) -> list[str]:
    """Of a parameter that was renamed the refusal may still say the first name."""
    return [one for one, other in changes.renamed.items() if other == key]


def _named_in(said: str, names: Mapping[str, Collection[str]]) -> str | None:
    """The parameter that the refusal is about: the one that a field names, else the one that the text names first.

    `names` has, by parameter, what it may be called.
    """
    try:
        pointers = [*_pointers(json.loads(said))]
    except (ValueError, RecursionError):
        pointers = []
    for text in (*pointers, said):
        called = ((name, one) for name, all_of_it in names.items() for one in all_of_it)
        places = {match.start(): name for name, one in called if (match := _pattern(one).search(text))}
        if places:
            return places[min(places)]
    return None


def _pattern(name: str) -> re.Pattern[str]:
    """The name as a word of its own, also as other languages write it: response_format, responseFormat."""
    spelled = "[_ -]?".join(re.escape(part) for part in name.split("_"))
    also = f"|{_ALSO_CALLED[name]}" if name in _ALSO_CALLED else ""
    return re.compile(rf"(?<![A-Za-z0-9_])(?:{spelled}{also})(?![A-Za-z0-9_])", re.IGNORECASE)


def _pointers(value: Any, depth: int = 6) -> Iterator[str]:
    """Fields that say what an error is about: OpenAI's `param`, FastAPI's `loc`."""
    if not depth:
        return
    if isinstance(value, list):
        for item in value:
            yield from _pointers(item, depth - 1)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key in ("param", "loc", "field") and item:
                yield json.dumps(item)
            elif isinstance(item, dict | list):
                yield from _pointers(item, depth - 1)


def _has_system(messages: Any) -> bool:
    return any(message["role"] == _SYSTEM for message in messages)


def _without_system(messages: Any) -> list[dict[str, str]]:
    """The system's message in front of the first one of the user."""
    texts = [message["content"] for message in messages if message["role"] == _SYSTEM]
    first, *others = [message for message in messages if message["role"] != _SYSTEM]
    return [{**first, "content": "\n\n".join([*texts, first["content"]])}, *others]
