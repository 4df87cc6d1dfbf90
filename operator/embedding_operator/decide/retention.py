"""Jobs that ended go when spec.retention says so; the status remembers what they did. Pure.

Kubernetes removes a Job by one time, however it ended, and a Job that goes before its result was taken would be run
again. So that time is long (`kept_s` in outcome.py), and the shorter ones are the operator's.
"""

from __future__ import annotations

from datetime import timedelta

from embedding_operator.decide.decision import Draft, Observed, delete_job
from embedding_operator.objects.views import JobView
from embedding_operator.resource.api import Spec
from embedding_operator.resource.status import PINNED, Status
from embedding_operator.resource.times import stamp
from embedding_stages.contract import Stage


def remove_ended_jobs(draft: Draft, written: Status, spec: Spec, observed: Observed) -> None:
    """`written` is the status as it was read: what a pass has only just taken from a Job may not be on record yet."""
    for job in observed.jobs:
        kept_s = spec.retention.succeeded_s if job.succeeded else spec.retention.failed_s
        if kept_s is None or job.ended is None or job.deleting or not _is_judged(draft.status, job):
            continue
        if not _is_judged(written, job):
            draft.look_again_in(1.0)
            continue
        left_s = (job.ended + timedelta(seconds=kept_s) - observed.now).total_seconds()
        if left_s > 0:
            draft.look_again_in(left_s)
            continue
        how = "succeededSeconds" if job.succeeded else "failedSeconds"
        draft.actions.append(delete_job(job, f"it ended spec.retention.{how} ago"))


def _is_judged(status: Status, job: JobView) -> bool:
    """Whether its result was taken, and no later attempt counts it; or nobody can ask for it any more."""
    if not status.has_judged(job.stage, job.fingerprint, job.revision, job.created):
        return False
    known = status.done_by(job.stage, job.fingerprint).fingerprint == job.fingerprint
    return known or job.revision == status.revision or _is_over(status, job)


def _is_over(status: Status, job: JobView) -> bool:
    """Whether a later revision has begun other work of its stage. Until then the Job's work may be asked for again, and
    how it ended may not be on record: an edit may have come before that was written.
    """
    entry, schedule, created = status.stage(job.stage), status.schedule, stamp(job.created)
    if job.stage is Stage.INPUTS and schedule.next_look and created > schedule.last_look:  # perhaps a look's
        return entry.done and entry.started_at > created
    spared = entry.state == "Waiting" and not entry.job_name  # an edit that is refused leaves the Job alone
    return entry.state != "Pending" and entry.reason != PINNED and not spared
