"""What Kueue says of a Job in its queue: the Workload that it makes of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from embedding_operator.resource.labels import QUEUED_JOB_LABEL, SUSPENDED_ANNOTATION

WORKLOAD: Final = "Workload"
# In Kueue's words, of a request that no quota of the queue can hold, however empty the queue is.
_NEVER_FITS: Final = ("maximum capacity", "unavailable in ClusterQueue")
_INADMISSIBLE: Final = "Inadmissible"  # in Kueue's reason, of a queue that is not there, or is stopped


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadView:
    """A Workload of Kueue."""

    name: str
    job_uid: str
    queue: str
    active: bool  # false: it is not admitted, and evicted where it was, until somebody makes it active
    deactivated_by: int | None  # the revision whose spec.suspend made it inactive; None: the operator did not
    admitted: bool
    evicted: str  # why it was put out, in Kueue's words; empty when it was not, or goes again
    said: str  # why it has no quota, in Kueue's words
    hopeless: bool  # it gets none before somebody acts


def view_workload(raw: Mapping[str, Any]) -> WorkloadView:
    meta, spec = raw["metadata"], raw.get("spec") or {}
    found = {item["type"]: item for item in (raw.get("status") or {}).get("conditions") or ()}
    quota, evicted = found.get("QuotaReserved") or {}, found.get("Evicted") or {}
    said = _words(quota) if quota.get("status") == "False" else ""
    by = (meta.get("annotations") or {}).get(SUSPENDED_ANNOTATION, "")
    return WorkloadView(
        name=meta["name"],
        job_uid=(meta.get("labels") or {}).get(QUEUED_JOB_LABEL, ""),
        queue=str(spec.get("queueName", "")),
        active=spec.get("active") is not False,
        deactivated_by=int(by) if by.isdigit() else None,
        admitted=(found.get("Admitted") or {}).get("status") == "True",
        evicted=_words(evicted) if evicted.get("status") == "True" else "",
        said=said,
        hopeless=bool(said) and (quota.get("reason") == _INADMISSIBLE or any(words in said for words in _NEVER_FITS)),
    )


def _words(condition: Mapping[str, Any]) -> str:
    message, reason = str(condition.get("message", "")).strip(), str(condition.get("reason", ""))
    return message or reason
