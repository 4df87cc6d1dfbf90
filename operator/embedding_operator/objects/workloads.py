"""What Kueue says of a Job in its queue: the Workload that it makes of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from embedding_operator.resource.labels import (
    QUEUED_JOB_LABEL,
    RESUMED_ANNOTATION,
    SUSPENDED_ANNOTATION,
    noted_revision,
)

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
    resumed_in: int | None  # the revision in spite of whose spec.suspend somebody else made it active
    admitted: bool
    evicted: str  # why it was put out, in Kueue's words; empty when it was not, or goes again
    said: str  # why it has no quota, in Kueue's words
    hopeless: bool  # it gets none before somebody acts
    version: str = ""


def view_workload(raw: Mapping[str, Any]) -> WorkloadView:
    meta, spec = raw["metadata"], raw.get("spec") or {}
    found = {item["type"]: item for item in (raw.get("status") or {}).get("conditions") or ()}
    quota, evicted = found.get("QuotaReserved") or {}, found.get("Evicted") or {}
    said = _words(quota) if quota.get("status") == "False" else ""
    notes: Mapping[str, str] = meta.get("annotations") or {}
    return WorkloadView(
        name=meta["name"],
        job_uid=(meta.get("labels") or {}).get(QUEUED_JOB_LABEL, ""),
        queue=str(spec.get("queueName", "")),
        active=spec.get("active") is not False,
        deactivated_by=noted_revision(notes, SUSPENDED_ANNOTATION),
        resumed_in=noted_revision(notes, RESUMED_ANNOTATION),
        admitted=(found.get("Admitted") or {}).get("status") == "True",
        evicted=_words(evicted) if evicted.get("status") == "True" else "",
        said=said,
        hopeless=bool(said) and (quota.get("reason") == _INADMISSIBLE or any(words in said for words in _NEVER_FITS)),
        version=str(meta.get("resourceVersion", "")),
    )


def _words(condition: Mapping[str, Any]) -> str:
    message, reason = str(condition.get("message", "")).strip(), str(condition.get("reason", ""))
    return message or reason
