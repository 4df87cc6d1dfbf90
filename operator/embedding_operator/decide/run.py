"""A Job whose pods run: its progress, its time, and a node that is lost meanwhile. Pure."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Final

from embedding_operator.decide.limits import left_s, overrun
from embedding_operator.decide.lost import lost_node, silent_node
from embedding_operator.decide.outcome import timed_out
from embedding_operator.decide.step import Step
from embedding_operator.decide.waiting import explain_overtime
from embedding_stages.contract import Progress, parse_progress

_POLL_S: Final = 10.0  # progress is read this often


def unreachable(step: Step) -> bool | None:
    """Say that a pod's node is lost. Its Job makes no other pod before the first is known to have ended."""
    wait = lost_node(step.last.pods, step.observed.now)
    if wait is None:
        return None
    step.wait(wait, step.last, ran_until=step.ran_until)
    return False


def over_limits(step: Step) -> bool | None:
    """End an attempt when the revision's run has used what it may."""
    job, status = step.last, step.draft.status
    over = overrun(status, step.spec, step.stage, step.spent)
    if over is None:
        left = left_s(status, step.spec, job, step.spent)
        if left is not None:
            step.draft.look_again_in(left)
        return None
    step.delete(job, f"{over.field} is used up")
    step.fail(job, over, final=True)
    return False


def overdue(step: Step) -> bool | None:
    """End an attempt that has run for longer than its stage may, counted from when the last of its pods started."""
    job = step.last
    going = [pod for pod in job.pods if pod.exit_code is None]
    if not job.all_started or job.suspended or not going:
        return None
    starts = [pod.running_since for pod in going if pod.running_since is not None]
    if not starts or step.observed.now < max(starts) + timedelta(seconds=step.pod.timeout_s):
        return None
    step.delete(job, f"it runs for longer than spec.stages.{step.stage}.timeoutSeconds")
    step.fail(job, timed_out(step.stage, step.spec), final=True)
    return False


def running(step: Step) -> bool | None:
    """Say how far the attempt has come."""
    job = step.last
    if not job.all_started or job.suspended:
        return None
    progress = parse_progress(step.observed.log_tails.get(job.name, ""))
    trouble = silent_node(job.pods) or explain_overtime(job, step.observed.now)
    if trouble is not None and step.entry.reason != trouble.reason:
        step.draft.event("Warning", trouble.reason, f"{step.stage}: {trouble.message}")
    message = f"attempt {job.attempt} is running" + (f" on {job.nodes} nodes" if job.nodes > 1 else "")
    step.entry = replace(
        step.of_job(job),
        state="Running",
        reason=trouble.reason if trouble is not None else "Running",
        message=trouble.message if trouble is not None else message,
        details={},
        broken=False,
        ran_until="",
        image_ids=(job.pod.image_id,) if job.pod is not None and job.pod.image_id else (),
        percent=progress.percent if progress else step.entry.percent,
        step=progress.step if progress else step.entry.step,
        total_steps=progress.total_steps if progress else step.entry.total_steps,
        eta_seconds=progress.eta_seconds if progress else None,
        loss=progress.loss if progress else step.entry.loss,
        rate=_rate(progress) if progress else step.entry.rate,
    )
    step.draft.look_again_in(_POLL_S)
    return False


def _rate(progress: Progress) -> str:
    return "" if progress.rate is None else f"{progress.rate:.5g} {progress.unit or 'steps'}/s"
