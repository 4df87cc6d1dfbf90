"""`status.schedule` as a frozen value, to and from JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from embedding_operator.resource.stage_status import StageStatus, present

Result = Literal["", "Unchanged", "Changed", "Failed"]
_MESSAGE_CHARACTERS: Final = 1024
_COUNTED: Final = frozenset({"newDocuments", "goneDocuments"})
_SHARES: Final = frozenset({"newText", "unseenTerms"})
_MOST: Final = 1 << 53
_SHARE_CHARACTERS: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleStatus:
    """What looks at the sources have found, and the one that is under way."""

    asked: str = ""  # by which `next_look` was reckoned
    next_look: str = ""
    last_look: str = ""
    last_change: str = ""
    result: Result = ""
    message: str = ""
    waits: str = ""  # why the next look is not made, though it may be due
    drift: Mapping[str, Any] = field(default_factory=dict)
    revisions: int = 0  # that looks have begun: a revision's number is the generation and these
    due: str = ""  # the due time of the look that is under way: its identity
    look: StageStatus | None = None  # how far it has come
    seen: Mapping[str, str] = field(default_factory=dict)  # digests that the last look found, by artefact
    before: Mapping[str, str] = field(default_factory=dict)  # fingerprint and path of the corpus of the last look

    def to_json(self) -> dict[str, Any]:
        return present(
            {
                "asked": self.asked,
                "nextLookTime": self.next_look,
                "lastLookTime": self.last_look,
                "lastChangeTime": self.last_change,
                "result": self.result,
                "message": self.message[:_MESSAGE_CHARACTERS],
                "waits": self.waits,
                "drift": dict(self.drift),
                "revisions": self.revisions or None,
                "due": self.due,
                "look": self.look.to_json() if self.look is not None else None,
                "seen": dict(self.seen),
                "before": dict(self.before),
            }
        )

    @classmethod
    def from_json(cls, raw: Any) -> ScheduleStatus:
        """What somebody made something else of is forgotten: the next look finds it again."""
        raw = raw if isinstance(raw, Mapping) else {}
        try:
            look = StageStatus.from_json(raw["look"]) if raw.get("look") else None
        except (KeyError, ValueError, TypeError, AttributeError):
            look = None
        texts = _texts(raw)
        return cls(
            asked=texts.get("asked", ""),
            next_look=texts.get("nextLookTime", ""),
            last_look=texts.get("lastLookTime", ""),
            last_change=texts.get("lastChangeTime", ""),
            result=raw.get("result", ""),
            message=texts.get("message", ""),
            waits=texts.get("waits", ""),
            drift=drift_of(raw.get("drift")),
            revisions=int(raw.get("revisions", 0)),
            due=texts.get("due", ""),
            look=look,
            seen=_texts(raw.get("seen")),
            before=_texts(raw.get("before")),
        )


def _texts(raw: Any) -> dict[str, str]:
    """Those values of an object that are texts."""
    return {key: value for key, value in raw.items() if isinstance(value, str)} if isinstance(raw, Mapping) else {}


def drift_of(told: Any) -> dict[str, Any]:
    """What a look has told of the drift, as far as the status can show it: its image may be anybody's."""
    told = told if isinstance(told, Mapping) else {}
    return {name: said for name, said in told.items() if _is_shown(name, said)}


def _is_shown(name: str, said: Any) -> bool:
    if name in _COUNTED:
        return isinstance(said, int) and not isinstance(said, bool) and 0 <= said <= _MOST
    return name in _SHARES and isinstance(said, str) and len(said) <= _SHARE_CHARACTERS
