"""A Job whose pods run: its progress, its time, and a node that is lost meanwhile. Pure."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from embedding_operator.decide.limits import left_s, overrun
from embedding_operator.decide.lost import ENDED, lost_node, silent_node
from embedding_operator.decide.outcome import timed_out
from embedding_operator.decide.step import Step
from embedding_operator.decide.waiting import explain_overtime
from embedding_operator.objects.views import JobView
from embedding_operator.resource.stage_status import StageStatus
from embedding_operator.resource.times import is_ahead, noted_time, stamp
from embedding_stages.contract import Progress, parse_progress

_POLL_S: Final = 10.0  # progress is read this often
# And written far more seldom: each write is one to etcd, and an event for everybody who watches.
_LEAST_S: Final = 60
_STEP_PERCENT: Final = 5
_MOST_S: Final = 600  # something is said this often, however slow it is


def unreachable(step: Step) -> bool | None:
    """Say that a pod's node is lost. Its Job makes no other pod before the first is known to have ended."""
    wait = lost_node(step.last.pods, step.observed.now)
    if wait is None:
        return None
    since = step.noted_until if step.entry.reason == wait.reason else step.ran_until
    step.wait(wait, step.last, ran_until=since)
    return False


def over_limits(step: Step) -> bool | None:
    """End an attempt when the revision's run has used what it may."""
    job, status = step.last, step.draft.status
    over = overrun(status, step.spec, step.stage, step.spent)
    if over is None:
        left = left_s(status, step.spec.limits, job, step.spent)
        if left is not None:
            step.draft.look_again_in(left)
        return None
    step.give_up(job, over)
    return False


def overdue(step: Step) -> bool | None:
    """End an attempt that has run for longer than its stage may, counted from when the last of its pods started."""
    up_at = time_is_up_at(step.last, step.pod.timeout_s)
    if up_at is None or step.observed.now < up_at:
        return None
    step.end(step.last, timed_out(step.stage, step.pod.timeout_s))
    return False


def time_is_up_at(job: JobView, timeout_s: int) -> datetime | None:
    """When an attempt has run for as long as it may; None where it does not run, or not with all its pods."""
    # Of a pod on a lost node Kubernetes says at last that it has failed, and that its containers run.
    going = [pod for pod in job.pods if pod.exit_code is None and pod.phase not in ENDED]
    starts = [pod.running_since for pod in going if pod.running_since is not None]
    if not job.all_started or job.suspended or not starts:
        return None
    return max(starts) + timedelta(seconds=timeout_s)


def running(step: Step) -> bool | None:
    """Say how far the attempt has come."""
    job = step.last
    if not job.all_started or job.suspended:
        return None
    trouble = silent_node(job.pods) or explain_overtime(job, step.observed.now)
    if trouble is not None and step.entry.reason != trouble.reason:
        step.draft.event("Warning", trouble.reason, f"{step.stage}: {trouble.message}")
    message = f"attempt {job.attempt} is running" + (f" on {job.nodes} nodes" if job.nodes > 1 else "")
    before = step.entry
    entry = replace(
        step.of_job(job),
        state="Running",
        reason=trouble.reason if trouble is not None else "Running",
        message=trouble.message if trouble is not None else message,
        details={},
        broken=False,
        ran_until="",
        image_ids=(job.pod.image_id,) if job.pod is not None and job.pod.image_id else (),
    )
    progress = parse_progress(step.observed.log_tails.get(job.name, ""))
    if progress is not None and (entry != before or _worth_a_write(before, progress, job, step.observed.now)):
        entry = _with_progress(entry, progress, step.observed.now)
    step.entry = entry
    step.draft.look_again_in(_POLL_S)
    return False


def _worth_a_write(entry: StageStatus, progress: Progress, job: JobView, now: datetime) -> bool:
    """Whether the progress is to be written though nothing else has changed."""
    told = entry.percent is not None
    known = (entry.percent or 0, entry.step) if told else (0, 0)
    since = noted_time(entry.progress_at) if told else None
    since = None if since is not None and is_ahead(since, now) else since
    since_s = (now - (since or job.started or job.created)).total_seconds()
    if since_s < _LEAST_S or (progress.percent, progress.step) == known:
        return False
    return abs(progress.percent - known[0]) >= _STEP_PERCENT or since_s >= _MOST_S


def _with_progress(entry: StageStatus, progress: Progress, now: datetime) -> StageStatus:
    return replace(
        entry,
        percent=progress.percent,
        step=progress.step,
        total_steps=progress.total_steps,
        eta_seconds=progress.eta_seconds,
        loss=progress.loss,
        rate=_rate(progress),
        progress_at=stamp(now),
    )


def _rate(progress: Progress) -> str:
    return "" if progress.rate is None else f"{progress.rate:.5g} {progress.unit or 'steps'}/s"
