"""An object that is not what was applied: restored ever less often, and said when that does not help. Pure.

An admission policy or another controller may change an object back for ever. Each restoration of a Deployment then
makes its pods anew, one of a Service moves clients to and fro, or it changes nothing at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from embedding_operator.decide.decision import Draft, Observed
from embedding_operator.decide.refusals import refusal_wait
from embedding_operator.decide.waiting import Wait
from embedding_operator.objects.compare import difference
from embedding_operator.objects.managers import managers_of
from embedding_operator.resource.api import MANAGER
from embedding_operator.resource.labels import TEMPLATE_ANNOTATION
from embedding_operator.resource.restored import Restored
from embedding_operator.resource.times import is_ahead, noted_time, stamp
from embedding_stages.contract import fingerprint_of

DRIFT_CORRECTED: Final = "DriftCorrected"
DRIFT_NOT_CORRECTED: Final = "DriftNotCorrected"
_TRIES: Final = 4
_FIRST_S: Final = 3
_MOST_S: Final = 600
_FORGOTTEN_S: Final = 3600  # a restoration that has held for so long has helped
_NAMED: Final = 3  # managers, and characters of each: it is remembered in the status
_CHARACTERS: Final = 63
_UNNAMED: Final = "an admission policy, or somebody whom its metadata.managedFields does not name"
Raw = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """What to do about an object in this pass."""

    apply: bool = False
    stale: bool = False  # it was found otherwise than it was asked for: what depends on it is of another object
    wait: Wait | None = None  # restoring it does not help


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What somebody has changed of an object of ours."""

    kind: str
    name: str
    asked: str  # what tells what is asked for now from what was asked for before
    field: str  # empty: nothing
    managed: Sequence[Raw] = ()  # its metadata.managedFields
    before: str = ""  # what it was asked to be when it was last applied, where it tells

    @property
    def key(self) -> str:
        return f"{self.kind}/{fingerprint_of([self.name, self.asked])[:8]}"

    @property
    def over(self) -> frozenset[str]:
        """The keys under which nothing is remembered any more once this is: an edit and back is no drift."""
        return frozenset({self.key, replace(self, asked=self.before).key})

    @property
    def who(self) -> str:
        others = [item for item in self.managed if item.get("manager") != MANAGER]
        return ", ".join(name[:_CHARACTERS] for name in managers_of(others, self.field)[:_NAMED]) or _UNNAMED


def drift_of(draft: Draft, live: Raw | None, desired: Raw, observed: Observed, *, new: bool = False) -> Drift:
    """Compare, and restore when it is time to. `new`: what is desired may not have been applied yet."""
    if live is None:
        return Drift(apply=True, stale=True)
    field = difference(desired, live)
    if not field and not draft.status.restored:
        return Drift()
    change = Change(
        kind=desired["kind"],
        name=desired["metadata"]["name"],
        asked=asked_for(desired) or _hash(desired),
        field=field,
        managed=live["metadata"].get("managedFields") or (),
        before=asked_for(live),
    )
    return restore(draft, change, observed, new=new)


def restore(draft: Draft, change: Change, observed: Observed, *, new: bool = False) -> Drift:
    """Count a restoration when one is due, and say once that they do not help."""
    now, known = observed.now, draft.status.restored.get(change.key)
    if not change.field:
        if known is not None and (known.times == 0 or _is_forgotten(known, now)):
            _note(draft, change, None, now)
        return Drift()
    if known is not None and _is_forgotten(known, now):
        known = None
    times = known.times if known is not None else 0
    left_s = _left_s(known, now)
    said = known.said if known is not None else ""
    if times >= _TRIES:
        words = _lasting(change)
        if not said:
            draft.event("Warning", DRIFT_NOT_CORRECTED, words)
        said = words if words.startswith(said) else said  # a status that would be too large keeps the beginning
    wait = Wait(reason=DRIFT_NOT_CORRECTED, message=said, broken=True) if times >= _TRIES else None
    if left_s > 0:
        draft.look_again_in(left_s)
        if known is not None and known.said != said:
            _note(draft, change, replace(known, said=said), now)
        return Drift(stale=True, wait=wait)
    if refusal_wait(observed) is not None:  # it was not applied
        return Drift(apply=True, stale=True, wait=wait)
    times = 0 if known is None and new else times + 1
    if times == 1:
        message = f"{change.kind} {change.name} was changed by {change.who}: {change.field}; restored"
        draft.event("Warning", DRIFT_CORRECTED, message)
    applied = Restored(times=times, at=stamp(now), said=said)
    _note(draft, change, applied, now)
    if times:
        draft.look_again_in(_left_s(applied, now))
    return Drift(apply=True, stale=True, wait=wait)


def asked_for(raw: Raw) -> str:
    """The hash of the manifest that a server was last applied from; empty for other objects."""
    return str((raw["metadata"].get("annotations") or {}).get(TEMPLATE_ANNOTATION, ""))


def _hash(desired: Raw) -> str:
    return fingerprint_of({"labels": desired["metadata"].get("labels"), "spec": desired.get("spec")})


def _left_s(known: Restored | None, now: datetime) -> float:
    """Until it may be applied again."""
    at = noted_time(known.at) if known is not None else None
    if known is None or at is None or is_ahead(at, now):
        return 0
    delay_s = min(_MOST_S, _FIRST_S * 2 ** max(0, known.times - 1))
    return (at + timedelta(seconds=delay_s) - now).total_seconds()


def _is_forgotten(known: Restored, now: datetime) -> bool:
    at = noted_time(known.at)
    return at is None or is_ahead(at, now) or now >= at + timedelta(seconds=_FORGOTTEN_S)


def _note(draft: Draft, change: Change, new: Restored | None, now: datetime) -> None:
    """Only of what is recent: objects that are gone are forgotten with the rest."""
    known, over = draft.status.restored, change.over
    kept = {what: item for what, item in known.items() if what not in over and not _is_forgotten(item, now)}
    draft.status = replace(draft.status, restored=kept | ({change.key: new} if new is not None else {}))


def _lasting(change: Change) -> str:
    return (
        f"{change.kind} {change.name} does not stay as it was applied: {change.field} is changed by {change.who}; "
        f"exempt the {change.kind} from it. It is restored ever less often, in the end every ten minutes, until then"
    )
