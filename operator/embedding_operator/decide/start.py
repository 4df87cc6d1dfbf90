"""Before a Job's pods run: what has to go first, what is created, and what the Job waits for. Pure."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from embedding_operator.decide.decision import SuspendJob
from embedding_operator.decide.outcome import Failure
from embedding_operator.decide.step import Step
from embedding_operator.decide.waiting import Wait, explain_waits
from embedding_operator.objects.manifests.job import build_job, template_of
from embedding_operator.objects.views import JobView, parse_time


def superseded(step: Step) -> bool | None:
    """Remove Jobs of the stage that do other work: they use the same volume and perhaps the only GPU."""
    for job in step.others:
        if not job.deleting:
            step.delete(job, "its fingerprint is no longer wanted")
    if not step.others:
        return None
    message = "waiting for the Job of an older revision to end"
    step.wait(Wait(reason="Superseding", message=message, broken=False))
    return False


def absent(step: Step) -> bool | None:
    """Create the first Job, or one in the place of a Job that somebody removed."""
    if step.mine:
        return None
    step.create("first attempt" if step.entry.attempt == 0 else "the Job is gone without a result")
    return False


def leaving(step: Step) -> bool | None:
    """Wait for a Job that is being deleted."""
    if not step.last.deleting:
        return None
    step.wait(Wait(reason="JobDeleting", message=f"waiting for Job {step.last.name} to be gone", broken=False))
    return False


def outdated(step: Step) -> bool | None:
    """Replace a Job that has not started by one of the present manifest, which may ask for another pod."""
    job = step.last
    request = replace(step.request(job.attempt), revision=job.revision)
    if not job.template or job.template == template_of(build_job(step.owner, step.spec, request)):
        return None
    step.delete(job, "it has not started, and the manifest now asks for another pod")
    message = "the Job that could not start is replaced by one of the new manifest"
    step.wait(Wait(reason="Superseding", message=message, broken=False))
    return False


def suspended(step: Step) -> bool | None:
    """Resume a Job that was suspended."""
    job = step.last
    if not job.suspended:
        return None
    step.draft.actions.append(SuspendJob(name=job.name, suspend=False, why="the resource is not suspended"))
    step.wait(Wait(reason="Resuming", message=f"Job {job.name} was suspended and goes on", broken=False), job)
    return False


def waiting(step: Step) -> bool | None:
    """Say what the Job's pods wait for, until spec.runPolicy.startDeadlineSeconds."""
    job, now = step.last, step.observed.now
    ran_until = _ran_until(step, job)
    # A suspended Job is started anew, and a pod that replaces a drained one has all the time of the first.
    times = (job.created, job.started, ran_until, *(pod.created for pod in job.pods))
    since = max(time for time in times if time is not None)
    wait = explain_waits(job, step.observed.warnings, step.spec)
    if now >= since + timedelta(seconds=step.spec.start_deadline_s):
        step.delete(job, "it did not start before spec.runPolicy.startDeadlineSeconds")
        message = f"not started within {step.spec.start_deadline_s} s (spec.runPolicy.startDeadlineSeconds)"
        failure = Failure(kind="Stopped", reason="StartDeadlineExceeded", message=f"{message}: {wait.message}")
        step.fail(job, failure, final=True)
        return False
    if wait.broken and step.entry.reason != wait.reason:
        step.draft.event("Warning", wait.reason, f"{step.stage}: {wait.message}")
    step.wait(wait, job, ran_until=ran_until)
    return False


def _ran_until(step: Step, job: JobView) -> datetime | None:
    """When the Job was last seen running: one that loses a pod after hours has not failed to start."""
    if step.entry.job_name != job.name:
        return None
    return step.observed.now if step.entry.state == "Running" else parse_time(step.entry.ran_until)
