"""A Deployment that is not what was applied: restored ever less often, and said when that does not help. Pure.

An admission policy or another controller may change a Deployment back for ever. Each restoration then makes its pods
anew, or changes nothing at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from embedding_operator.decide.waiting import Wait
from embedding_operator.objects.compare import difference
from embedding_operator.objects.views import DeploymentView, parse_time
from embedding_operator.resource.api import MANAGER
from embedding_operator.resource.labels import TEMPLATE_ANNOTATION
from embedding_operator.resource.status import StageStatus

DRIFT_NOT_CORRECTED: Final = "DriftNotCorrected"
_TRIES: Final = 4
_FIRST_S: Final = 3
_MOST_S: Final = 600
_FORGOTTEN_S: Final = 3600  # a restoration that has held for so long has helped


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """What to do about a Deployment in this pass."""

    entry: StageStatus  # of the deploy stage, with its restorations counted
    apply: bool = False
    stale: bool = False  # what its status counts is of another Deployment than the one that was asked for
    first: bool = False  # somebody changed it, and it is restored for the first time
    wait: Wait | None = None  # restoring it does not help


def drift_of(entry: StageStatus, live: DeploymentView, desired: Mapping[str, Any], now: datetime) -> Drift:
    """Compare, and restore when it is time to."""
    field = difference(desired, live.raw)
    if not field:
        return Drift(entry=entry)
    if _asked_for(live.raw) not in ("", _asked_for(desired)):  # the manifest asks for something new
        return Drift(entry=entry, apply=True, stale=True)
    restored_at = parse_time(entry.restored_at)
    tries = entry.restores
    if restored_at is None or now >= restored_at + timedelta(seconds=_FORGOTTEN_S):
        restored_at, tries = None, 0
    delay_s = min(_MOST_S, _FIRST_S * 2 ** max(0, tries - 1))
    due = restored_at is None or now >= restored_at + timedelta(seconds=delay_s)
    wait = _lasting(live, field) if tries >= _TRIES else None
    if not due:
        return Drift(entry=entry, stale=True, wait=wait)
    counted = replace(entry, restores=tries + 1, restored_at=f"{now:%Y-%m-%dT%H:%M:%SZ}")
    return Drift(entry=counted, apply=True, stale=True, first=tries == 0, wait=wait)


def _lasting(live: DeploymentView, field: str) -> Wait:
    managers = {str(item.get("manager", "")) for item in live.raw["metadata"].get("managedFields") or ()}
    others = sorted(managers - {MANAGER, "kube-controller-manager", ""})
    who = f"changed by {', '.join(others)}, or by" if others else "changed by"
    message = (
        f"{live.kind} {live.name} does not stay as it was applied: {field} is {who} an admission policy; exempt the "
        f"{live.kind} from it. It is restored at most every ten minutes until it stays"
    )
    return Wait(reason=DRIFT_NOT_CORRECTED, message=message, broken=True)


def _asked_for(raw: Mapping[str, Any]) -> str:
    """The hash of the manifest that a Deployment was last applied from."""
    return str((raw["metadata"].get("annotations") or {}).get(TEMPLATE_ANNOTATION, ""))
