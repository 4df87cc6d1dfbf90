"""Objects that were deleted and do not go: whose finalizers keep them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from embedding_operator.resource.times import stamp

DELETION_STUCK: Final = "DeletionStuck"
# Kubernetes' own: they end with the pods that they wait for, and those have minutes to end in.
_OF_KUBERNETES: Final = frozenset({"foregroundDeletion", "orphan", "kubernetes.io/pvc-protection"})
_PATIENCE: Final = timedelta(seconds=30)
_PATIENCE_WITH_KUBERNETES: Final = timedelta(seconds=300)


def deleted_at(meta: Mapping[str, Any]) -> datetime | None:
    """When an object was to be gone; None for one that stays. `meta` is its metadata."""
    text = meta.get("deletionTimestamp")
    return datetime.fromisoformat(text) if text else None


def stuck_deletion(since: datetime | None, finalizers: Sequence[str], now: datetime) -> str:
    """Why an object is still there that was to be gone at `since`; empty while that is nothing to wonder about."""
    if since is None:
        return ""
    others = [name for name in finalizers if name not in _OF_KUBERNETES]
    if now <= since + (_PATIENCE if others else _PATIENCE_WITH_KUBERNETES):
        return ""
    kept = f"finalizers keep it: {', '.join(others or finalizers)}" if finalizers else "it is not gone"
    cure = "let what set them finish, or take them off" if others else "look at the pods that belong to it"
    return f"it is being deleted since {stamp(since)}, and {kept}; {cure}"
