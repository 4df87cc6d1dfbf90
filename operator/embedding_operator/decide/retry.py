"""A Job that ended: take its result, try again, or fail. Pure."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from embedding_operator.decide.attempts import BACKOFF_MAX_S, retry_at
from embedding_operator.decide.outcome import Failure, outcome_of
from embedding_operator.decide.step import Step, entry_of
from embedding_operator.objects.views import JobView
from embedding_operator.resource.stage_status import StageStatus
from embedding_operator.resource.times import stamp
from embedding_stages.contract import StageResult


def ended(step: Step) -> bool | None:
    """Judge the newest attempt once it has ended."""
    job = step.last
    if not job.finished:
        return None
    outcome = outcome_of(job, step.spec)
    if isinstance(outcome, StageResult):
        _succeed(step, job, outcome)
        return True
    failed = _failed_in_this_revision(step)
    if not failed or failed[-1][0].name != job.name:
        step.create(f"attempt {job.attempt} of an older revision: {outcome.reason}")
        return False
    due = retry_at(failed, step.pod.retries)
    step.fail(job, outcome, final=due is None)
    if due is None:
        return False
    # The end is by another clock than the pass. One that is much ahead, or was, makes nobody wait for it.
    latest = step.observed.now + timedelta(seconds=2 * BACKOFF_MAX_S)
    if step.observed.now < due <= latest:
        step.draft.look_again_in((due - step.observed.now).total_seconds())
        message = f"{outcome}; next attempt at {due:%H:%M:%S}"
        step.entry = replace(step.entry, state="Waiting", reason=outcome.reason, message=message)
        return False
    step.create(f"attempt {job.attempt} failed: {outcome.reason}", failed)
    return False


def _failed_in_this_revision(step: Step) -> list[tuple[JobView, Failure]]:
    """Only these count against the retries: an edit gives a stage all of its attempts again."""
    ends = [
        (job, outcome_of(job, step.spec))
        for job in step.mine
        if job.finished and job.revision == step.draft.status.revision
    ]
    return [(job, outcome) for job, outcome in ends if isinstance(outcome, Failure)]


def _succeed(step: Step, job: JobView, result: StageResult) -> None:
    step.entry = with_result(step.entry, job, result, step.draft.status.revision, step.observed.now)
    step.draft.event("Normal", "Completed", f"{step.stage}: {step.entry.message}")


def with_result(entry: StageStatus, job: JobView, result: StageResult, revision: int, now: datetime) -> StageStatus:
    """The entry of a stage that is done: its Job did what `revision` asks for."""
    reused = job.revision != revision
    return replace(
        entry_of(entry, job),
        state="Reused" if reused else "Succeeded",
        reason="Reused" if reused else result.reason[:64] or "Completed",
        message=result.message or f"attempt {job.attempt} completed",
        reused_from=job.revision if reused else None,
        finished_at=stamp(job.ended or now),
        percent=None,
        step=0,
        total_steps=0,
        eta_seconds=None,
        usage=entry.usage.settled(),
        loss=None,
        rate="",
        artefacts=result.artefacts,
        counts=result.counts,
        details=result.details,
        broken=False,
        ran_until="",
        image_ids=(),
        metrics={kind: {k: round(v, 5) for k, v in values.items()} for kind, values in result.metrics.items()},
    )
