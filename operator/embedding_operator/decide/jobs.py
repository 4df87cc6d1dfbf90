"""One stage, one step further: reuse, create, wait, take the result, retry, or fail. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from embedding_operator.decide.decision import Draft, Observed, delete_job
from embedding_operator.decide.retry import ended
from embedding_operator.decide.run import over_limits, overdue, running, unreachable
from embedding_operator.decide.start import absent, leaving, outdated, superseded, suspended, waiting
from embedding_operator.decide.step import Step
from embedding_operator.decide.usage import begun_at, charged, is_late, measured
from embedding_operator.objects.manifests.common import Owner
from embedding_operator.resource.api import Spec
from embedding_operator.resource.pipeline import fingerprint, inputs_of
from embedding_operator.resource.status import StageStatus
from embedding_stages.contract import Stage

# The first check that applies decides. True: the stage is done; False: not yet; None: ask the next one.
_CHECKS: Final[tuple[Callable[[Step], bool | None], ...]] = (
    superseded,
    absent,
    leaving,
    ended,
    unreachable,
    over_limits,
    overdue,
    running,
    outdated,
    suspended,
    waiting,
)


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
    inputs = inputs_of(stage, spec, draft.status)
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
            usage=entry.usage,
            took_s=entry.took_s,
        )
    elif entry.done or (entry.finished_at and entry.artefacts):
        if not entry.done:
            _reuse(draft, entry)
        _stop_others(draft, entry, observed)
        return True
    elif entry.state == "Failed" and entry.revision == draft.status.revision:
        _end(draft, entry, observed)
        return False
    jobs = charged(observed.jobs, stage, wanted, draft.status.revision)
    begun = begun_at(draft.status)
    told, exact = measured(entry.usage, jobs, observed, begun), measured(entry.usage, jobs, observed, begun, exact=True)
    step = Step(
        draft=draft,
        spec=spec,
        owner=owner,
        observed=observed,
        entry=replace(entry, usage=told),
        inputs=inputs,
        settings=settings or {},
        spent=exact.spent,
    )
    done = take(step)
    if replace(step.entry, usage=entry.usage) == entry and not is_late(entry.usage, told, jobs, observed.now):
        step.entry = entry  # what is used is told with the next news
    if step.entry.state == "Failed":  # it is not looked at again
        step.entry = replace(step.entry, usage=exact)
    draft.status = draft.status.with_stage(step.entry)
    return done


def take(step: Step) -> bool:
    """The first check that applies takes the step; whether the stage is done."""
    return next(answer for check in _CHECKS if (answer := check(step)) is not None)


def _end(draft: Draft, entry: StageStatus, observed: Observed) -> None:
    """Delete the Job of a stage that has failed if it still runs, now that this is on record, until it is gone."""
    for job in observed.jobs:
        mine = job.stage is entry.name and job.fingerprint == entry.fingerprint and job.attempt <= entry.attempt
        if mine and not job.finished and not job.deleting:
            draft.actions.append(delete_job(job, "its stage has failed"))


def _stop_others(draft: Draft, entry: StageStatus, observed: Observed) -> None:
    """Jobs of a stage that is done which do other work: an edit asked for it, was taken back, and no status told of it.

    The work of inputs is also that of looks at the sources, which schedule.py ends.
    """
    for job in observed.jobs if entry.name is not Stage.INPUTS else ():
        other = job.stage is entry.name and job.fingerprint != entry.fingerprint
        if other and not job.finished and not job.deleting:
            why = "its fingerprint is no longer wanted"
            draft.actions.append(delete_job(job, why))


def _reuse(draft: Draft, entry: StageStatus) -> None:
    if entry.revision == draft.status.revision:  # done in this very revision, and found unchanged after a detour
        again = replace(entry, state="Succeeded", reason="Completed", message="completed, unchanged since")
        draft.status = draft.status.with_stage(again)
        return
    message = f"unchanged since revision {entry.revision}"
    draft.status = draft.status.with_stage(
        replace(entry, state="Reused", reason="Reused", message=message, reused_from=entry.revision)
    )
    draft.reused.append(entry.name)
