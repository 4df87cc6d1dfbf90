"""The state of one stage's step in one pass: what is known, and the stage's entry as it will be written. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any, Final

from embedding_operator.decide.attempts import kept_s, micro_batch
from embedding_operator.decide.decision import CreateJob, Draft, Observed, delete_job
from embedding_operator.decide.limits import overrun
from embedding_operator.decide.outcome import NODE_LOST, Failure, failure_record
from embedding_operator.decide.refusals import RETRY_S, refusal_wait
from embedding_operator.decide.waiting import A_MOMENT, LONG_WAITS, UNREMARKABLE, Wait
from embedding_operator.decide.words import as_told
from embedding_operator.objects.manifests.common import Owner
from embedding_operator.objects.manifests.job import build_job, job_name
from embedding_operator.objects.views import JobView
from embedding_operator.resource.api import PodSettings, Spec
from embedding_operator.resource.status import StageStatus
from embedding_operator.resource.times import noted_time, stamp
from embedding_operator.resource.usage import Spent
from embedding_stages.contract import Artefact, ArtefactRef, Stage, StageRequest

JOB_CREATED: Final = "JobCreated"
_POLL_WAITING_S: Final = 3.0


@dataclass(kw_only=True)
class Step:
    """The checks of start.py, run.py and retry.py read it; the one that applies writes its entry and its actions."""

    draft: Draft
    spec: Spec
    owner: Owner
    observed: Observed
    entry: StageStatus
    inputs: Mapping[Artefact, ArtefactRef]
    settings: Mapping[str, Any]  # what the stage's code is told beside the manifest's settings
    spent: Spent  # by the stage in this run, to the second

    @property
    def stage(self) -> Stage:
        return self.entry.name

    @property
    def pod(self) -> PodSettings:
        return self.spec.stages[self.stage].pod

    @cached_property
    def mine(self) -> Sequence[JobView]:
        """Jobs that do this very work, oldest attempt first. Of distrusted attempts no result is taken."""
        believed = (
            job
            for job in self.observed.jobs
            if job.stage is self.stage
            and job.fingerprint == self.entry.fingerprint
            and job.attempt > self.entry.distrusted
        )
        return sorted(believed, key=lambda job: job.attempt)

    @cached_property
    def others(self) -> Sequence[JobView]:
        """Jobs of the stage that do other work, or work that is not believed, and have not ended."""
        return [
            job
            for job in self.observed.jobs
            if job.stage is self.stage
            and not job.finished
            and (job.fingerprint != self.entry.fingerprint or job.attempt <= self.entry.distrusted)
        ]

    @property
    def last(self) -> JobView:
        """The newest attempt; only to be asked for once there is one."""
        return self.mine[-1]

    @property
    def ran_until(self) -> datetime | None:
        """When the newest Job was last seen running: one that loses a pod after hours has not failed to start. On a
        lost node it may run until it is known to have ended.
        """
        if self.entry.job_name != self.last.name:
            return None
        runs = self.entry.state == "Running" or self.entry.reason == NODE_LOST
        return self.observed.now if runs else self.noted_until

    @property
    def noted_until(self) -> datetime | None:
        """The same as the status tells it; no later than now, whatever the clock was then."""
        noted = noted_time(self.entry.ran_until)
        return min(noted, self.observed.now) if noted is not None else None

    def create(self, why: str, failed: Sequence[tuple[JobView, Failure]] = ()) -> None:
        """Create the next attempt's Job, or say what refuses it. Where the run is over its limits, there is none."""
        over = overrun(self.draft.status, self.spec, self.stage, self.spent)
        if over is not None:
            self.draft.event("Warning", over.reason, f"{self.stage}: {over}")
            self.entry = self._failed(self.entry, over)
            return
        attempt = max([self.entry.attempt, *(job.attempt for job in self.mine)]) + 1
        request = self.request(attempt, failed)
        manifest = build_job(self.owner, self.spec, request, kept_s=kept_s(self.spec, self.stage))
        self.draft.actions.append(CreateJob(manifest=manifest, why=why))
        refused = refusal_wait(self.observed)
        if refused is not None:
            self.wait(refused, poll_s=RETRY_S["quota"])
            return
        self.entry = replace(
            self.entry,
            state="Pending",
            reason=JOB_CREATED,
            message=f"attempt {attempt}: {why}",
            job_name=job_name(self.owner, request),
            attempt=attempt,
            revision=self.draft.status.revision,
            image=self.pod.image,
            reused_from=None,
            percent=None,
            started_at="",
            broken=False,
            ran_until="",
        )
        self.draft.look_again_in(_POLL_WAITING_S)

    def request(self, attempt: int, failed: Sequence[tuple[JobView, Failure]] = ()) -> StageRequest:
        """What an attempt is asked to do; `failed` are the attempts before it."""
        settings = {**self.spec.stages[self.stage].settings, **self.settings}
        if "microBatchSize" in settings:
            settings["microBatchSize"] = micro_batch(settings["microBatchSize"], failed)
        return StageRequest(
            stage=self.stage,
            fingerprint=self.entry.fingerprint,
            attempt=attempt,
            revision=self.draft.status.revision,
            image=self.pod.image,
            settings=settings,
            inputs=self.inputs,
            base_model=_base_model(self.spec) if self.stage is Stage.FINETUNE else {},
        )

    def wait(
        self,
        wait: Wait,
        job: JobView | None = None,
        *,
        ran_until: datetime | None = None,
        poll_s: float = _POLL_WAITING_S,
    ) -> None:
        """`ran_until` is when the Job was last seen running.

        What needs somebody to act, or may last for hours, is told in an Event, once.
        """
        if wait.reason in UNREMARKABLE and job is not None and self._just_created(job):
            self.draft.look_again_in(poll_s)  # most pods start in a moment, and that is not worth a write
            return
        if job is None or job.name == self.entry.job_name:
            wait = as_told(wait, self.entry, self.draft.status, self.observed.now, poll_s=poll_s)
        told = wait.broken or wait.reason in LONG_WAITS
        new = self.entry.reason != wait.reason or (wait.broken and not self.entry.broken)
        if told and new and self.observed.stopped is None:
            self.draft.event("Warning", wait.reason, f"{self.stage}: {wait.message}")
        entry = self.of_job(job) if job is not None else self.entry
        self.entry = replace(
            entry,
            state="Waiting",
            reason=wait.reason,
            message=wait.message,
            details={},
            broken=wait.broken,
            ran_until=stamp(ran_until) if ran_until else "",
            image_ids=(),
        )
        self.draft.look_again_in(poll_s)

    def _just_created(self, job: JobView) -> bool:
        noted = self.entry.reason == JOB_CREATED and self.entry.job_name == job.name
        return noted and self.observed.now < job.created + A_MOMENT

    def fail(self, job: JobView, failure: Failure, *, final: bool) -> None:
        """Record a failed attempt; `final`: there is no other one, so the stage has failed."""
        known = self.draft.status.last_failure
        if known.get("job") != job.name or known.get("reason") != failure.reason:
            self.draft.event("Warning", failure.reason, f"{self.stage}: {failure}")
        record = failure_record(job, failure, self.observed, known)
        self.draft.status = replace(self.draft.status, last_failure=record)
        if final:
            self.entry = self._failed(self.of_job(job), failure)

    def _failed(self, entry: StageStatus, failure: Failure) -> StageStatus:
        return replace(
            entry,
            state="Failed",
            reason=failure.reason,
            message=str(failure),
            revision=self.draft.status.revision,
            percent=None,
        )

    def of_job(self, job: JobView) -> StageStatus:
        return entry_of(self.entry, job)

    def end(self, job: JobView, failure: Failure) -> None:
        """Give up an attempt that was too slow; one of an earlier revision is followed by this one's, as any that
        fails is.
        """
        if job.revision == self.draft.status.revision:
            self.give_up(job, failure)
            return
        if (stop := self.observed.not_begun) is not None:
            message = f"{stop.message}; Job {job.name} of an earlier revision goes on meanwhile"
            self.wait(Wait(reason=stop.reason, message=message, broken=True))
            return
        self.delete(job, f"it was too slow, and an edit gives {self.stage} all of its attempts again")
        self.wait(Wait(reason="Superseding", message=f"{failure}; another attempt follows", broken=False))

    def give_up(self, job: JobView, failure: Failure) -> None:
        """Fail for good. The Job goes once that is on record: one that is gone without a result would run again."""
        self.fail(job, failure, final=True)
        self.draft.look_again_in(1.0)

    def delete(self, job: JobView, why: str) -> None:
        self.draft.actions.append(delete_job(job, why))


def entry_of(entry: StageStatus, job: JobView) -> StageStatus:
    """The entry, saying which Job does the work.

    What its controller says of its start a moment later than the operator is no news.
    """
    started = job.started or job.created
    known = noted_time(entry.started_at) if entry.job_name == job.name else None
    if known is not None and abs(started - known) < A_MOMENT:
        started = known
    return replace(entry, job_name=job.name, attempt=job.attempt, revision=job.revision, started_at=stamp(started))


def _base_model(spec: Spec) -> dict[str, str]:
    """What the manifest calls it, as far as it says so."""
    told = spec.stages[Stage.INPUTS].settings.get("baseModel") or {}
    return {key: str(told[key]) for key in ("name", "revision") if told.get(key)}
