"""Before a Job's pods run: what has to go first, what is created, and what the Job waits for. Pure."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from embedding_operator.decide.decision import SuspendJob
from embedding_operator.decide.lost import held_job
from embedding_operator.decide.outcome import Failure
from embedding_operator.decide.queue import POLL_QUEUE_S, queue_wait
from embedding_operator.decide.step import Step
from embedding_operator.decide.waiting import Wait, explain_waits
from embedding_operator.objects.manifests.job import build_job, template_of


def superseded(step: Step) -> bool | None:
    """Remove Jobs of the stage that do other work: they use the same volume and perhaps the only GPU."""
    if not step.others:
        return None
    stop = step.observed.not_begun
    if stop is not None:
        message = f"Job {step.others[0].name} of an earlier revision goes on meanwhile"
        step.wait(Wait(reason=stop.reason, message=f"{stop.message}; {message}", broken=True))
        return False
    for job in step.others:
        if not job.deleting:
            step.delete(job, "its fingerprint is no longer wanted")
    message = "waiting for the Job of an older revision to end"
    held = held_job(step.others, step.observed.now)
    step.wait(held or Wait(reason="Superseding", message=message, broken=False))
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
    message = f"waiting for Job {step.last.name} to be gone"
    held = held_job([step.last], step.observed.now)
    step.wait(held or Wait(reason="JobDeleting", message=message, broken=False))
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
    """Resume a Job that spec.suspend suspended. One that somebody else suspended, or has a queue for, is theirs."""
    job = step.last
    if job.resuming:  # its start deadline counts from when its controller starts it, whatever it waited for before
        step.wait(Wait(reason="Resuming", message=f"Job {job.name} was resumed and starts", broken=False), job)
        return False
    if not job.suspended:
        return None
    if job.suspended_by is not None and job.uid not in step.observed.workloads:
        revision = step.draft.status.revision
        resume = SuspendJob(
            name=job.name, suspend=False, revision=revision, version=job.version, why="the resource is not suspended"
        )
        step.draft.actions.append(resume)
        step.wait(Wait(reason="Resuming", message=f"Job {job.name} was suspended and goes on", broken=False), job)
        return False
    queued = queue_wait(job, step.observed, step.entry)
    if queued is not None:
        step.wait(queued, job, poll_s=POLL_QUEUE_S)
        return False
    message = (
        f"Job {job.name} is suspended, and not by this operator: a person, or a controller that queues Jobs, has set "
        "its spec.suspend, and resumes it by setting that to false"
    )
    step.wait(Wait(reason="Suspended", message=message, broken=False), job, poll_s=POLL_QUEUE_S)
    return False


def waiting(step: Step) -> bool | None:
    """Say what the Job's pods wait for, until spec.runPolicy.startDeadlineSeconds."""
    job, now = step.last, step.observed.now
    # A suspended Job is started anew, and a pod that replaces a drained one has all the time of the first.
    times = (job.created, job.started, step.ran_until, *(pod.created for pod in job.pods))
    since = max(time for time in times if time is not None)
    wait = explain_waits(job, step.observed.warnings, step.spec)
    if now >= since + timedelta(seconds=step.spec.start_deadline_s):
        message = f"not started within {step.spec.start_deadline_s} s (spec.runPolicy.startDeadlineSeconds)"
        failure = Failure(kind="Stopped", reason="StartDeadlineExceeded", message=f"{message}: {wait.message}")
        step.end(job, failure)
        return False
    step.wait(wait, job, ran_until=step.ran_until)
    return False
