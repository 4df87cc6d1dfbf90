"""One stage, one step further: reuse, create, wait, take the result, retry, or fail. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from embedding_operator.decide.decision import CreateJob, DeleteObject, Draft, Observed, SuspendJob
from embedding_operator.decide.outcome import Failure, failure_record, micro_batch, outcome_of, retry_at
from embedding_operator.decide.refusals import RETRY_S, refusal_wait
from embedding_operator.decide.waiting import explain_overtime, explain_waits
from embedding_operator.objects.manifests.common import Owner
from embedding_operator.objects.manifests.job import build_job, job_name, template_of
from embedding_operator.objects.views import JobView, parse_time
from embedding_operator.resource.api import Spec
from embedding_operator.resource.pipeline import fingerprint, inputs_of
from embedding_operator.resource.status import StageStatus
from embedding_stages.contract import Artefact, ArtefactRef, Stage, StageRequest, StageResult, parse_progress

_POLL_RUNNING_S: Final = 10.0  # progress is read this often
_POLL_WAITING_S: Final = 3.0


def advance(
    draft: Draft,
    stage: Stage,
    spec: Spec,
    owner: Owner,
    observed: Observed,
    *,
    identity: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> bool:
    """Bring one Job stage forward; True when it is done.

    `identity` is what else the stage's fingerprint depends on, `settings` what its code is told besides.
    """
    inputs = inputs_of(stage, draft.status)
    if inputs is None:
        return False
    wanted = fingerprint(stage, spec, inputs, extra=identity)
    entry = draft.status.stage(stage)
    if entry.fingerprint != wanted:
        entry = StageStatus(
            name=stage,
            fingerprint=wanted,
            image=spec.stages[stage].pod.image,
            attempt=entry.distrusted,
            distrusted=entry.distrusted,
        )
    elif entry.done:
        return True
    elif entry.finished_at and entry.artefacts:
        _reuse(draft, entry)
        return True
    elif entry.state == "Failed" and entry.revision == draft.status.revision:
        return False
    step = _Step(draft, spec, owner, observed, entry, inputs, settings or {})
    done = step.take()
    draft.status = draft.status.with_stage(step.entry)
    return done


def _reuse(draft: Draft, entry: StageStatus) -> None:
    if entry.revision == draft.status.revision:  # done in this very revision, and found unchanged after a detour
        again = replace(entry, state="Succeeded", reason="Completed", message="completed, unchanged since")
        draft.status = draft.status.with_stage(again)
        return
    message = f"unchanged since revision {entry.revision}"
    draft.status = draft.status.with_stage(
        replace(entry, state="Reused", reason="Reused", message=message, reused_from=entry.revision)
    )
    draft.event("Normal", "Reused", f"{entry.name}: {message}")


class _Step:
    """The state of one `advance`: what is known, and the stage's entry as it will be written."""

    def __init__(
        self,
        draft: Draft,
        spec: Spec,
        owner: Owner,
        observed: Observed,
        entry: StageStatus,
        inputs: Mapping[Artefact, ArtefactRef],
        settings: Mapping[str, Any],
    ) -> None:
        self.draft, self.spec, self.owner, self.observed = draft, spec, owner, observed
        self.entry, self.inputs, self.settings = entry, inputs, settings
        self.stage = entry.name
        of_stage = [job for job in observed.jobs if job.stage is self.stage]
        believed = (j for j in of_stage if j.fingerprint == entry.fingerprint and j.attempt > entry.distrusted)
        self.mine = sorted(believed, key=lambda j: j.attempt)
        self.others = [j for j in of_stage if j.fingerprint != entry.fingerprint and not j.finished]

    def take(self) -> bool:
        for job in self.others:
            if not job.deleting:
                self._delete(job, "its fingerprint is no longer wanted")
        if self.others:  # they use the same volume and perhaps the only GPU: wait until they are gone
            self._wait("Superseding", "waiting for the Job of an older revision to end")
            return False
        if not self.mine:
            self._create("first attempt" if self.entry.attempt == 0 else "the Job is gone without a result")
            return False
        last = self.mine[-1]
        if last.deleting:
            self._wait("JobDeleting", f"waiting for Job {last.name} to be gone")
            return False
        if last.finished:
            return self._finish(last)
        self._follow(last)
        return False

    def _finish(self, job: JobView) -> bool:
        outcome = outcome_of(job, self.spec)
        if isinstance(outcome, StageResult):
            self._succeed(job, outcome)
            return True
        failed = [
            (j, o)
            for j in self.mine
            if j.finished and j.revision == self.draft.status.revision
            for o in (outcome_of(j, self.spec),)
            if isinstance(o, Failure)
        ]
        if not failed or failed[-1][0].name != job.name:
            self._create(f"attempt {job.attempt} failed in an older revision")
            return False
        due = retry_at(failed, self.spec.stages[self.stage].pod.retries)
        self._record_failure(job, outcome, final=due is None)
        if due is None:
            return False
        if due > self.observed.now:
            self.draft.look_again_in((due - self.observed.now).total_seconds())
            self.entry = replace(
                self.entry,
                state="Waiting",
                reason=outcome.reason,
                message=f"{outcome}; next attempt at {due:%H:%M:%S}",
            )
            return False
        self._create(f"attempt {job.attempt} failed: {outcome.reason}", failed)
        return False

    def _follow(self, job: JobView) -> None:
        if job.all_started and not job.suspended:
            self._run(job)
            return
        request = replace(self._request(job.attempt), revision=job.revision)
        if job.template and job.template != template_of(build_job(self.owner, self.spec, request)):
            self._delete(job, "it has not started, and the manifest now asks for another pod")
            self._wait("Superseding", "the Job that could not start is replaced by one of the new manifest")
            return
        if job.suspended:
            self.draft.actions.append(SuspendJob(name=job.name, suspend=False, why="the resource is not suspended"))
            self._wait("Resuming", f"Job {job.name} was suspended and goes on", job)
            return
        # A suspended Job is started anew, and a pod that replaces a drained one has all the time of the first.
        ran = self._ran_until(job)
        times = (job.created, job.started, ran, *(pod.created for pod in job.pods))
        since = max(time for time in times if time is not None)
        deadline = since + timedelta(seconds=self.spec.start_deadline_s)
        wait = explain_waits(job, self.observed.warnings, self.spec)
        if self.observed.now >= deadline:
            self._delete(job, "it did not start before spec.runPolicy.startDeadlineSeconds")
            message = f"not started within {self.spec.start_deadline_s} s (spec.runPolicy.startDeadlineSeconds)"
            failure = Failure(kind="Stopped", reason="StartDeadlineExceeded", message=f"{message}: {wait.message}")
            self._record_failure(job, failure, final=True)
            return
        if wait.broken and self.entry.reason != wait.reason:
            self.draft.event("Warning", wait.reason, f"{self.stage}: {wait.message}")
        self._wait(wait.reason, wait.message, job, wait.details(ran))

    def _ran_until(self, job: JobView) -> datetime | None:
        """When the Job was last seen running: one that loses a pod after hours has not failed to start."""
        if self.entry.job_name != job.name:
            return None
        return self.observed.now if self.entry.state == "Running" else parse_time(self.entry.details.get("ranUntil"))

    def _run(self, job: JobView) -> None:
        progress = parse_progress(self.observed.log_tails.get(job.name, ""))
        if self.entry.state != "Running":
            self.draft.event("Normal", "Running", f"{self.stage}: attempt {job.attempt} started")
        overtime = explain_overtime(job, self.observed.now)
        if overtime is not None and self.entry.reason != overtime.reason:
            self.draft.event("Warning", overtime.reason, f"{self.stage}: {overtime.message}")
        running = f"attempt {job.attempt} is running" + (f" on {job.nodes} nodes" if job.nodes > 1 else "")
        pod_image = job.pod.image_id if job.pod is not None else ""
        self.entry = replace(
            self._of_job(job),
            state="Running",
            reason=overtime.reason if overtime is not None else "Running",
            message=overtime.message if overtime is not None else running,
            details={"imageID": pod_image} if pod_image else {},
            percent=progress.percent if progress else self.entry.percent,
            step=progress.step if progress else self.entry.step,
            total_steps=progress.total_steps if progress else self.entry.total_steps,
            eta_seconds=progress.eta_seconds if progress else None,
        )
        self.draft.look_again_in(_POLL_RUNNING_S)

    def _succeed(self, job: JobView, result: StageResult) -> None:
        reused = job.revision != self.draft.status.revision
        self.entry = replace(
            self._of_job(job),
            state="Reused" if reused else "Succeeded",
            reason="Reused" if reused else "Completed",
            message=result.message or f"attempt {job.attempt} completed",
            reused_from=job.revision if reused else None,
            finished_at=f"{job.ended or self.observed.now:%Y-%m-%dT%H:%M:%SZ}",
            percent=None,
            step=0,
            total_steps=0,
            eta_seconds=None,
            artefacts=result.artefacts,
            counts=result.counts,
            details=result.details,
            metrics={kind: {k: round(v, 5) for k, v in values.items()} for kind, values in result.metrics.items()},
        )
        self.draft.event("Normal", "Completed", f"{self.stage}: {self.entry.message}")

    def _record_failure(self, job: JobView, failure: Failure, *, final: bool) -> None:
        known = self.draft.status.last_failure
        if known.get("job") != job.name or known.get("reason") != failure.reason:
            self.draft.event("Warning", failure.reason, f"{self.stage}: {failure}")
        self.draft.status = replace(
            self.draft.status,
            last_failure=failure_record(job, failure, self.observed, known),
        )
        if final:
            self.entry = replace(
                self._of_job(job),
                state="Failed",
                reason=failure.reason,
                message=str(failure),
                revision=self.draft.status.revision,
                percent=None,
            )

    def _create(self, why: str, failed: Sequence[tuple[JobView, Failure]] = ()) -> None:
        attempt = max([self.entry.attempt, *(job.attempt for job in self.mine)]) + 1
        request = self._request(attempt, failed)
        self.draft.actions.append(CreateJob(manifest=build_job(self.owner, self.spec, request), why=why))
        refused = refusal_wait(self.observed)
        if refused is not None:
            self._wait(refused.reason, refused.message, details=refused.details(None), poll_s=RETRY_S["quota"])
            return
        self.entry = replace(
            self.entry,
            state="Pending",
            reason="JobCreated",
            message=f"attempt {attempt}: {why}",
            job_name=job_name(self.owner, request),
            attempt=attempt,
            revision=self.draft.status.revision,
            image=self.spec.stages[self.stage].pod.image,
            reused_from=None,
            percent=None,
            started_at="",
        )
        self.draft.look_again_in(_POLL_WAITING_S)

    def _request(self, attempt: int, failed: Sequence[tuple[JobView, Failure]] = ()) -> StageRequest:
        settings = {**self.spec.stages[self.stage].settings, **self.settings}
        if "microBatchSize" in settings:
            settings["microBatchSize"] = micro_batch(settings["microBatchSize"], failed)
        return StageRequest(
            stage=self.stage,
            fingerprint=self.entry.fingerprint,
            attempt=attempt,
            revision=self.draft.status.revision,
            image=self.spec.stages[self.stage].pod.image,
            settings=settings,
            inputs=self.inputs,
        )

    def _of_job(self, job: JobView) -> StageStatus:
        return replace(
            self.entry,
            job_name=job.name,
            attempt=job.attempt,
            revision=job.revision,
            started_at=f"{job.started or job.created:%Y-%m-%dT%H:%M:%SZ}",
        )

    def _wait(
        self,
        reason: str,
        message: str,
        job: JobView | None = None,
        details: Mapping[str, Any] | None = None,
        poll_s: float = _POLL_WAITING_S,
    ) -> None:
        entry = self._of_job(job) if job is not None else self.entry
        self.entry = replace(entry, state="Waiting", reason=reason, message=message, details=details or {})
        self.draft.look_again_in(poll_s)

    def _delete(self, job: JobView, why: str) -> None:
        self.draft.actions.append(DeleteObject(kind="Job", name=job.name, why=why))
