"""What a Job in Kueue's queue waits for, in Kueue's words."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from unit.operator.builders import NOON, a_job

from embedding_operator.decide.decision import Observed
from embedding_operator.decide.queue import queue_wait
from embedding_operator.objects.views import JobView
from embedding_operator.objects.workloads import WorkloadView, view_workload
from embedding_operator.resource.status import StageStatus
from embedding_stages.contract import Stage

BUSY = "couldn't assign flavors to pod set main: insufficient unused quota for cpu in flavor a, 2 more needed"
LARGE = "insufficient quota for cpu in flavor a, request > maximum capacity (8 > 4)"
NO_GPU = "couldn't assign flavors to pod set main: resource nvidia.com/gpu unavailable in ClusterQueue"
OUT = "Preempted to accommodate a workload"


def condition(kind: str, status: str, message: str, reason: str = "Pending") -> dict[str, str]:
    return {"type": kind, "status": status, "reason": reason, "message": message}


def workload(*conditions: dict[str, str], active: bool = True, by: str = "") -> WorkloadView:
    meta: dict[str, Any] = {"name": "w", "labels": {"kueue.x-k8s.io/job-uid": "u"}}
    if by:
        meta["annotations"] = {"embedding-operator.dev/suspended-by-revision": by}
    spec = {"queueName": "gpus", "active": active}
    return view_workload({"metadata": meta, "spec": spec, "status": {"conditions": list(conditions)}})


def queued(**fields: Any) -> JobView:
    return a_job(Stage.FINETUNE, uid="u", suspended=True, queue="gpus", **fields)


def said(view: WorkloadView | None, after_s: int = 0, unread: str = "") -> tuple[str, str, bool]:
    found = {"u": view} if view is not None else {}
    observed = Observed(now=NOON + timedelta(seconds=after_s), generation=1, workloads=found, workloads_unread=unread)
    wait = queue_wait(queued(), observed, StageStatus(name=Stage.FINETUNE))
    assert wait is not None
    return wait.reason, wait.message, wait.broken


NO_QUOTA = condition("QuotaReserved", "False", BUSY)
EVICTED = condition("Evicted", "True", OUT, "Preempted")
ADMITTED = (
    condition("QuotaReserved", "True", "Quota reserved", "QuotaReserved"),
    condition("Admitted", "True", "The workload is admitted", "Admitted"),
)


@pytest.mark.parametrize(
    ("view", "reason", "words", "broken"),
    [
        (workload(), "Queued", "starts when Kueue admits it", False),
        (workload(NO_QUOTA), "WaitingForQuota", BUSY, False),
        (workload(condition("QuotaReserved", "False", LARGE)), "WaitingForQuota", LARGE, True),
        (workload(condition("QuotaReserved", "False", NO_GPU)), "WaitingForQuota", NO_GPU, True),
        (
            workload(condition("QuotaReserved", "False", "LocalQueue gpus doesn't exist", "Inadmissible")),
            "WaitingForQuota",
            "LocalQueue gpus doesn't exist",
            True,
        ),
        (workload(condition("QuotaReserved", "False", OUT), EVICTED), "WaitingForQuota", f": evicted: {OUT}", False),
        (workload(NO_QUOTA, EVICTED), "WaitingForQuota", f"{BUSY}; evicted: {OUT}", False),
        (workload(*ADMITTED), "Queued", "starts when Kueue admits it", False),
        (workload(active=False), "WorkloadDeactivated", "not by this operator (it was made inactive)", True),
        (workload(active=False, by="3"), "Resuming", "made active again", False),
    ],
)
def test_kueues_words(view: WorkloadView, reason: str, words: str, broken: bool) -> None:
    found = said(view)
    assert (found[0], found[2]) == (reason, broken)
    assert words in found[1]


def test_nobody_admits_it() -> None:
    assert said(None, 60)[0] == "Queued"
    reason, message, broken = said(None, 120)
    assert (reason, broken) == ("NobodyAdmits", True)
    assert "is Kueue installed" in message
    assert "LocalQueue 'gpus'" in message


def test_a_right_that_is_missing_is_named_and_is_no_reason_to_doubt_kueue() -> None:
    reason, message, broken = said(None, 3600, unread="workloads is forbidden")
    assert (reason, broken) == ("Queued", False)
    assert "workloads is forbidden" in message
