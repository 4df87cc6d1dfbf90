"""What a stage's attempts have used in the run of a revision, as the status remembers it. Pure.

Pods come and go, and an operator may be away meanwhile. So the status keeps the part of each of the newest pods by the
pod's uid: what is observed of a pod replaces its part, and is never added to it. A pod that has ended and has a
successor is closed: its part joins the sum, and no pod that was created so early is looked at again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

_UID_CHARACTERS: Final = 13
_MOST_CHARACTERS: Final = 4096  # of the parts in the CRD: the newest 64 pods, one a node, in any case


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """An amount of each thing that is counted."""

    active_s: int = 0  # that pods ran; of several nodes the first alone
    gpu_s: int = 0
    llm_tokens: int = 0

    def __add__(self, other: Spent) -> Spent:
        return Spent(
            active_s=self.active_s + other.active_s,
            gpu_s=self.gpu_s + other.gpu_s,
            llm_tokens=self.llm_tokens + other.llm_tokens,
        )

    def beyond(self, other: Spent) -> Spent:
        """What is more than in the other, of each thing."""
        return Spent(
            active_s=max(0, self.active_s - other.active_s),
            gpu_s=max(0, self.gpu_s - other.gpu_s),
            llm_tokens=max(0, self.llm_tokens - other.llm_tokens),
        )

    def most(self, other: Spent) -> Spent:
        """Of each thing the larger amount."""
        return Spent(
            active_s=max(self.active_s, other.active_s),
            gpu_s=max(self.gpu_s, other.gpu_s),
            llm_tokens=max(self.llm_tokens, other.llm_tokens),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PodPart:
    """What one pod has used; `created` is in seconds since 1970."""

    uid: str
    created: int
    spent: Spent


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """`closed` holds every pod that was created before `since`."""

    closed: Spent = field(default_factory=Spent)
    since: int = 0
    parts: tuple[PodPart, ...] = ()  # the oldest first

    @property
    def spent(self) -> Spent:
        return total((self.closed, *(part.spent for part in self.parts)))

    def to_json(self) -> dict[str, Any]:
        spent = self.spent
        body = {"activeSeconds": spent.active_s, "gpuSeconds": spent.gpu_s, "llmTokens": spent.llm_tokens}
        found: dict[str, Any] = {key: value for key, value in body.items() if value}
        return found | ({"pods": self._text()} if self.since else {})

    def begun_anew(self) -> Usage:
        """For another run: nothing is used. What a pod that goes on has told of tokens so far is taken off again."""
        parts = tuple(replace(part, spent=Spent(llm_tokens=part.spent.llm_tokens)) for part in self.parts)
        told = total(part.spent for part in parts).llm_tokens
        return Usage(closed=Spent(llm_tokens=-told), since=self.since, parts=parts)

    def bounded(self) -> Usage:
        """With as many parts as the status takes; of more the oldest are closed, all of a second at once.

        A stage has one Job at a time, so of those a pod that still runs is on its way out, and uses little more.
        """
        found = self
        while len(found._text()) > _MOST_CHARACTERS:
            first, last = found.parts[0].created, found.parts[-1].created
            since = next((part.created for part in found.parts if part.created > first), last + 1)
            closed = total((found.closed, *(part.spent for part in found.parts if part.created < since)))
            found = Usage(closed=closed, since=since, parts=tuple(p for p in found.parts if p.created >= since))
        return found

    def to_list(self) -> list[int]:
        """Of a stage that is done, in the record: active seconds, GPU seconds, tokens, and how far all is closed."""
        spent = self.spent
        return [spent.active_s, spent.gpu_s, spent.llm_tokens, self.since] if spent != Spent() else []

    def settled(self) -> Usage:
        """Of a stage that is done: every pod is closed."""
        return replace(
            self, closed=self.spent, since=self.parts[-1].created + 1 if self.parts else self.since, parts=()
        )

    def _text(self) -> str:
        """One line of `kubectl describe`: how far all is closed, and each pod with its part."""
        parts = (
            f"{item.uid},{item.created},{item.spent.active_s},{item.spent.gpu_s},{item.spent.llm_tokens}"
            for item in self.parts
        )
        return ";".join([str(self.since), *parts])

    @classmethod
    def from_json(cls, raw: Any) -> Usage:
        """Nothing where somebody made something else of it: the stage's work is not forgotten for that."""
        try:
            if isinstance(raw, list) and raw:
                active, gpu, tokens, since = (int(item) for item in raw)
                return cls(closed=Spent(active_s=active, gpu_s=gpu, llm_tokens=tokens), since=since)
            return cls._read(raw if isinstance(raw, Mapping) else {})
        except (ValueError, TypeError):
            return cls()

    @classmethod
    def _read(cls, raw: Mapping[str, Any]) -> Usage:
        whole = Spent(
            active_s=int(raw.get("activeSeconds", 0)),
            gpu_s=int(raw.get("gpuSeconds", 0)),
            llm_tokens=int(raw.get("llmTokens", 0)),
        )
        since, *texts = str(raw.get("pods", "0")).split(";")
        parts = tuple(map(_part, texts))
        open_ = total(part.spent for part in parts)
        closed = Spent(
            active_s=whole.active_s - open_.active_s,
            gpu_s=whole.gpu_s - open_.gpu_s,
            llm_tokens=whole.llm_tokens - open_.llm_tokens,
        )
        return cls(closed=closed, since=int(since), parts=parts)


def total(amounts: Iterable[Spent]) -> Spent:
    found = Spent()
    for amount in amounts:
        found += amount
    return found


def short(uid: str) -> str:
    """As much of a pod's uid as tells it from the stage's other pods."""
    return uid[:_UID_CHARACTERS]


def _part(text: str) -> PodPart:
    uid, created, active, gpu, tokens = text.split(",")
    return PodPart(
        uid=uid,
        created=int(created),
        spent=Spent(active_s=int(active), gpu_s=int(gpu), llm_tokens=int(tokens)),
    )
