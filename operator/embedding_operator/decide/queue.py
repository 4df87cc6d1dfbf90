"""A Job in Kueue's queue: what it waits for, and how the resource's own suspension goes beside Kueue's. Pure.

Kueue suspends and resumes the Jobs in its queue. A Job of it that the operator suspended would be resumed at once, and
one that the operator resumed would be suspended at once. So spec.suspend makes its Workload inactive, which is what
Kueue itself has for that, and what the operator did not make inactive it never makes active.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from embedding_operator.decide.decision import ActivateWorkload, Draft, ForgetSuspension, Observed, SuspendJob
from embedding_operator.decide.waiting import WAITING_FOR_QUOTA, Wait
from embedding_operator.objects.views import JobView
from embedding_operator.objects.workloads import WorkloadView
from embedding_operator.resource.status import StageStatus

NOBODY_ADMITS: Final = "NobodyAdmits"
DEACTIVATED: Final = "WorkloadDeactivated"
QUEUED: Final = "Queued"
POLL_QUEUE_S: Final = 15.0  # that the Job goes on is told by its watch; Kueue's words are asked for this often
_MADE_AFTER_S: Final = 120  # by then Kueue has made a Workload of a Job


def suspend_jobs(draft: Draft, observed: Observed) -> None:
    """Stop each Job once a revision: who lets it run afterwards is not fought, and stops it again as somebody else."""
    revision, why, resumed = draft.status.revision, "spec.suspend is true", "somebody else has resumed it"
    for job in observed.jobs:
        if job.finished or job.deleting:
            continue
        workload = observed.workloads.get(job.uid)
        if workload is not None:
            if not workload.active or workload.resumed_in == revision:
                continue
            if workload.deactivated_by == revision:
                note = ForgetSuspension(kind="Workload", name=workload.name, why=resumed, resumed_in=revision)
                draft.actions.append(note)
            else:
                draft.actions.append(_activate(workload, False, revision, why))
        elif not job.suspended and job.resumed_in != revision:
            if job.suspended_by == revision:
                note = ForgetSuspension(kind="Job", name=job.name, why=resumed, resumed_in=revision)
                draft.actions.append(note)
            else:
                stop = SuspendJob(name=job.name, suspend=True, revision=revision, version=job.version, why=why)
                draft.actions.append(stop)


def forget_suspensions(draft: Draft, observed: Observed, *, suspended: bool) -> None:
    """Take the notes off what somebody else lets run: whoever stops that from now on lets it run again.

    `suspended` is what the manifest says, valid or not.
    """
    why = "it was resumed, and spec.suspend is no longer true"
    for job in observed.jobs:
        if suspended or job.finished or job.deleting:
            continue
        workload = observed.workloads.get(job.uid)
        if workload is not None and _is_let_run(workload.active, workload.deactivated_by, workload.resumed_in):
            draft.actions.append(ForgetSuspension(kind="Workload", name=workload.name, why=why))
        if _is_let_run(not job.suspended, job.suspended_by, job.resumed_in):
            draft.actions.append(ForgetSuspension(kind="Job", name=job.name, why=why))


def _is_let_run(runs: bool, suspended_by: int | None, resumed_in: int | None) -> bool:
    """Whether somebody else resumed what the operator had stopped; who stops it afterwards is somebody else as well."""
    return resumed_in is not None or (runs and suspended_by is not None)


def resume_workloads(draft: Draft, observed: Observed) -> None:
    """Make active what the operator made inactive. A Job that it suspended is resumed by its stage; see start.py."""
    for job in observed.jobs:
        workload = observed.workloads.get(job.uid)
        if job.finished or job.deleting or workload is None:
            continue
        if not workload.active and workload.deactivated_by is not None:
            why = "spec.suspend is no longer true"
            draft.actions.append(_activate(workload, True, draft.status.revision, why))


def _activate(workload: WorkloadView, active: bool, revision: int, why: str) -> ActivateWorkload:
    return ActivateWorkload(name=workload.name, active=active, revision=revision, version=workload.version, why=why)


def queue_wait(job: JobView, observed: Observed, entry: StageStatus) -> Wait | None:
    """Why a suspended Job of Kueue's does not run yet; None for one that Kueue knows nothing of."""
    workload = observed.workloads.get(job.uid)
    queue = job.queue or (workload.queue if workload is not None else "")
    if workload is None:
        return _unknown(job, observed, entry) if job.queue else None
    where = f"Job {job.name} waits in Kueue's queue {queue!r}"
    if not workload.active:
        return _inactive(workload, where)
    evicted = f"evicted: {workload.evicted}" if workload.evicted else ""
    if workload.admitted or not (workload.said or evicted):
        return Wait(reason=QUEUED, message=f"{where} and starts when Kueue admits it", broken=False)
    repeated = workload.said in ("", workload.evicted)
    words = evicted if repeated and evicted else "; ".join(part for part in (workload.said, evicted) if part)
    return Wait(reason=WAITING_FOR_QUOTA, message=f"{where}: {words}"[:1000], broken=workload.hopeless)


def _inactive(workload: WorkloadView, where: str) -> Wait:
    if workload.deactivated_by is not None:
        return Wait(reason="Resuming", message=f"{where} and is made active again", broken=False)
    message = (
        f"{where}: its Workload {workload.name} is not active, and not by this operator "
        f"({workload.evicted or 'it was made inactive'}); it is admitted again once somebody makes it active"
    )
    return Wait(reason=DEACTIVATED, message=message, broken=True)


def _unknown(job: JobView, observed: Observed, entry: StageStatus) -> Wait:
    where = f"Job {job.name} is suspended in Kueue's queue {job.queue!r}"
    if observed.workloads_unread:
        message = f"{where}, and starts when Kueue admits it; Kueue's words are not known: {observed.workloads_unread}"
        return Wait(reason=QUEUED, message=message, broken=False)
    since = _since(job)
    if entry.reason != NOBODY_ADMITS and (observed.now - since).total_seconds() < _MADE_AFTER_S:
        return Wait(reason=QUEUED, message=f"{where}, and starts when Kueue admits it", broken=False)
    message = (
        f"{where}, and nobody admits it: is Kueue installed, does it manage Jobs of this namespace, and is there a "
        f"LocalQueue {job.queue!r} in it? To run without a queue, remove spec.scheduling.queueName"
    )
    return Wait(reason=NOBODY_ADMITS, message=message, broken=True)


def _since(job: JobView) -> datetime:
    return max(time for time in (job.created, job.started) if time is not None)
