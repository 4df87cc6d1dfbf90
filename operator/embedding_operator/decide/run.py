"""A Job whose pods run: its progress. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from embedding_operator.decide.step import Step
from embedding_operator.decide.waiting import explain_overtime
from embedding_stages.contract import parse_progress

_POLL_S: Final = 10.0  # progress is read this often


def running(step: Step) -> bool | None:
    """Say how far the attempt has come."""
    job = step.last
    if not job.all_started or job.suspended:
        return None
    progress = parse_progress(step.observed.log_tails.get(job.name, ""))
    if step.entry.state != "Running":
        step.draft.event("Normal", "Running", f"{step.stage}: attempt {job.attempt} started")
    overtime = explain_overtime(job, step.observed.now)
    if overtime is not None and step.entry.reason != overtime.reason:
        step.draft.event("Warning", overtime.reason, f"{step.stage}: {overtime.message}")
    message = f"attempt {job.attempt} is running" + (f" on {job.nodes} nodes" if job.nodes > 1 else "")
    step.entry = replace(
        step.of_job(job),
        state="Running",
        reason=overtime.reason if overtime is not None else "Running",
        message=overtime.message if overtime is not None else message,
        details={},
        broken=False,
        ran_until="",
        image_ids=(job.pod.image_id,) if job.pod is not None and job.pod.image_id else (),
        percent=progress.percent if progress else step.entry.percent,
        step=progress.step if progress else step.entry.step,
        total_steps=progress.total_steps if progress else step.entry.total_steps,
        eta_seconds=progress.eta_seconds if progress else None,
    )
    step.draft.look_again_in(_POLL_S)
    return False
