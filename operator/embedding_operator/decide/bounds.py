"""Do Jobs that run keep to their limits, however far the pass goes? Pure.

An edit may leave a training running while a stage before it waits or has failed, while the manifest is not valid, or
while its preflight is refused. The Job is left alone, because the edit may be taken back, but not for longer than the
run may go on that it belongs to: with the limits of the last manifest that was valid. Why it ends is on record first,
in `status.lastFailure`, since its stage may have no more to say than that it has not begun.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from embedding_operator.decide.decision import DeleteObject, Draft, Observed, delete_job
from embedding_operator.decide.limits import POLL_S, left_s, overrun_by
from embedding_operator.decide.lost import ENDED, lost_node
from embedding_operator.decide.outcome import Failure, failure_record, timed_out
from embedding_operator.decide.run import time_is_up_at
from embedding_operator.decide.usage import begun_at, charged, is_late, measured
from embedding_operator.objects.views import JobView
from embedding_operator.resource.frozen import mapping
from embedding_operator.resource.limits import RunLimits
from embedding_operator.resource.status import LIMITS, Status
from embedding_operator.resource.usage import Usage
from embedding_stages.contract import Stage


def keep_to_limits(draft: Draft, before: Status, observed: Observed) -> None:
    """Count what runs, and end what is over: note it in one pass, and delete the Job in the next. `before` is the
    status as it was read.

    Where the stage itself has judged its Job in this pass, the same follows from the same limits.
    """
    leaving = {item.name for item in draft.actions if isinstance(item, DeleteObject) and item.kind == "Job"}
    there = [job for job in observed.jobs if not (job.finished or job.deleting or job.name in leaving)]
    there = [job for job in there if not _may_be_a_look(draft.status, job) and _is_of_the_run(draft.status, job)]
    exact = draft.status
    for stage in Stage:
        if going := [job for job in there if job.stage is stage]:
            usage = _count(draft, going, stage, observed)
            exact = exact.with_stage(replace(exact.stage(stage), usage=usage))
    running = [job for job in there if _runs(job, observed.now)]
    found = [(job, _failure(draft, exact, job, observed.now, beside=len(running))) for job in running]
    over = [(job, failure) for job, failure in found if failure is not None]
    noted = [(job, failure) for job, failure in over if before.last_failure.get("job") == job.name]
    for job, failure in noted:
        draft.actions.append(delete_job(job, f"{failure.reason}: {failure.field} is used up"))
    if over and not noted:
        job, failure = over[0]
        _note(draft, job, failure, exact.stage(job.stage).usage, observed)
    if over:
        _ask_again_in(draft, POLL_S if noted else 1.0)  # a delete may be refused again and again


def _may_be_a_look(status: Status, job: JobView) -> bool:
    """Beside the inputs of a revision there are looks at the sources, which belong to no run."""
    look = status.schedule.look
    asked = look is not None and look.fingerprint == job.fingerprint
    return job.stage is Stage.INPUTS and (asked or status.stage(Stage.INPUTS).done)


def _is_of_the_run(status: Status, job: JobView) -> bool:
    """One of a later revision belongs to a run that no status tells of yet, and a stage that is done counts no more."""
    return job.revision <= status.revision and not status.stage(job.stage).done


def _count(draft: Draft, going: list[JobView], stage: Stage, observed: Observed) -> Usage:
    """What the stage has used to the second. The run pays for what it lets go on, whatever that works for."""
    entry, begun = draft.status.stage(stage), begun_at(draft.status)
    paid = charged(observed.jobs, stage, entry.fingerprint, draft.status.revision)
    jobs = [*paid, *(job for job in going if job not in paid)]
    told = measured(entry.usage, jobs, observed, begun)
    if is_late(entry.usage, told, jobs, observed.now):
        draft.status = draft.status.with_stage(replace(entry, usage=told))
    return measured(entry.usage, jobs, observed, begun, exact=True)


def _runs(job: JobView, now: datetime) -> bool:
    """Whether a pod of it runs, on a node that answers: of another one nobody knows."""
    running = (pod.running_since is not None and pod.exit_code is None and pod.phase not in ENDED for pod in job.pods)
    return any(running) and lost_node(job.pods, now) is None


def _failure(draft: Draft, exact: Status, job: JobView, now: datetime, *, beside: int) -> Failure | None:
    """Why it has to end; where it may go on, the pass in which that may change is asked for. `exact`: with what each
    stage has used to the second; so many run `beside` each other, itself counted, and use up the same limits.
    """
    resolved, spent = exact.resolved, exact.stage(job.stage).usage.spent
    limits = RunLimits.from_json(resolved.get(LIMITS))
    over = overrun_by(exact, limits, job, spent)
    if over is not None:
        return over
    left = left_s(exact, limits, job, spent)
    timeout_s = mapping(mapping(resolved.get("stages")).get(job.stage.value)).get("timeoutSeconds")
    lefts = [left / beside] if left is not None else []
    if isinstance(timeout_s, int) and (up_at := time_is_up_at(job, timeout_s)) is not None:
        if now >= up_at:
            return timed_out(job.stage, timeout_s)
        lefts.append((up_at - now).total_seconds())
    for seconds in lefts:
        _ask_again_in(draft, seconds)
    return None


def _ask_again_in(draft: Draft, seconds: float) -> None:
    """Also where everything else waits for somebody."""
    draft.look_again_in(seconds)
    draft.limits_s.append(max(1.0, seconds))


def _note(draft: Draft, job: JobView, failure: Failure, exact: Usage, observed: Observed) -> None:
    """A stage that tells of this Job has failed with it. An attempt of an earlier revision that was too slow is
    followed by one of this revision, as any that fails is.
    """
    known = draft.status.last_failure
    if (known.get("job"), known.get("reason")) != (job.name, failure.reason):
        draft.event("Warning", failure.reason, f"{job.stage}: {failure}")
    draft.status = replace(draft.status, last_failure=failure_record(job, failure, observed, known))
    entry = replace(draft.status.stage(job.stage), usage=exact)
    if entry.job_name == job.name and entry.state in ("Running", "Waiting"):
        revision = job.revision if failure.reason == "Timeout" else draft.status.revision
        said = replace(entry, reason=failure.reason, message=str(failure), revision=revision)
        entry = replace(said, state="Failed", percent=None)
    draft.status = draft.status.with_stage(entry)
