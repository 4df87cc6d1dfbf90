"""When the sources are looked at again, and what follows from what a look has found. Pure.

A look is the work of the inputs stage once more, beside the revision: its due time is part of its fingerprint, so no
look is taken for another one, and no Job's name is used twice. Its entry stands in `status.schedule`, not among the
stages, so conditions and phase know nothing of it. What it finds is compared by digest with what the revision has.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Final

from embedding_operator.decide.decision import CreateJob, Draft, Observed, delete_job
from embedding_operator.decide.jobs import take
from embedding_operator.decide.refusals import RETRY_S
from embedding_operator.decide.step import Step
from embedding_operator.objects.manifests.common import Owner
from embedding_operator.resource.api import Schedule, Spec
from embedding_operator.resource.frozen import data_identity
from embedding_operator.resource.limits import RunLimits
from embedding_operator.resource.pipeline import fingerprint
from embedding_operator.resource.schedule import next_due
from embedding_operator.resource.schedule_status import ScheduleStatus, drift_of
from embedding_operator.resource.status import StageStatus
from embedding_operator.resource.times import CLOCKS_DIFFER, is_ahead, noted_time, stamp
from embedding_operator.resource.usage import Spent
from embedding_stages.contract import LOOK, Artefact, Stage

SOURCES_CHANGED: Final = "SourcesChanged"
_WAITS_CHARACTERS: Final = 256
_GOING_S: Final = 15.0  # its watch tells sooner
_NOT_WHILE_PINNED: Final = "no looks while a revision is pinned"
_NOT_WHILE_SUSPENDED: Final = "no looks while spec.suspend is true"
_SAID: Final = {
    Artefact.CORPUS: "the documents",
    Artefact.BASE_MODEL: "the base model",
    Artefact.LABELLED_SET: "the labelled set",
    Artefact.GUARD_SETS: "the guards' sets",
}


def keep_schedule(draft: Draft, spec: Spec, owner: Owner, observed: Observed, *, over: bool) -> None:
    """Begin a look that is due, bring the one under way a step further, or ask for the pass in which one is due.

    `over`: the revision has come to its end, good or bad. Looks wait for it, and however many were due, one is made.
    """
    known, schedule = draft.status.schedule, spec.schedule
    if schedule is None:
        there = _give_up(draft, observed, "spec.schedule was removed")
        look = known.look if there else None
        draft.status = replace(draft.status, schedule=ScheduleStatus(revisions=known.revisions, look=look))
        return
    if known.look is not None and not known.asked:  # begun for a schedule that was removed, and has come back
        if _give_up(draft, observed, "spec.schedule was removed"):
            return
        known = replace(known, look=None)
    due, following = noted_time(known.next_look), next_due(schedule.cron, schedule.zone, observed.now)
    # It was later when the clock was ahead. One that goes back by seconds names a time anew that was looked at.
    latest = next_due(schedule.cron, schedule.zone, observed.now + CLOCKS_DIFFER)
    if known.asked != schedule.asked or due is None or due > latest:
        known = replace(known, asked=schedule.asked, next_look=stamp(following))
    looked = noted_time(known.last_look)
    if looked is not None and is_ahead(looked, observed.now):
        known = replace(known, last_look=stamp(observed.now))
    known = replace(_of_this_revision(known, draft.status.stage(Stage.INPUTS), observed.now), waits="")
    draft.status = replace(draft.status, schedule=known)
    if spec.deploy.pinned is not None:  # with it go the Jobs of every stage before the server
        draft.status = replace(draft.status, schedule=replace(known, due="", look=None, waits=_NOT_WHILE_PINNED))
    elif spec.suspend:
        draft.status = replace(draft.status, schedule=replace(known, waits=_NOT_WHILE_SUSPENDED))
    elif known.look is not None or _begins(draft, spec, schedule, observed, over=over):
        _go_on(draft, spec, owner, observed, over=over)


def _begins(draft: Draft, spec: Spec, schedule: Schedule, observed: Observed, *, over: bool) -> bool:
    """Begin a look when it is due, and the revision is at its end; whether one was begun."""
    known, now = draft.status.schedule, observed.now
    due = noted_time(known.next_look) or now
    if due > now:
        draft.look_again_in((due - now).total_seconds())
        return False
    inputs = draft.status.stage(Stage.INPUTS)
    read = noted_time(inputs.started_at) if inputs.done else None
    if read is not None and due <= read and not is_ahead(read, now):  # the revision itself has looked since
        following = next_due(schedule.cron, schedule.zone, now)
        draft.status = replace(draft.status, schedule=replace(known, next_look=stamp(following)))
        draft.look_again_in((following - now).total_seconds())
    elif over:
        _begin(draft, spec, schedule, due, now)
        return True
    else:
        why = f"it is due, and waits until revision {draft.status.revision} has come to its end"
        draft.status = replace(draft.status, schedule=replace(known, waits=why))
    return False


def _begin(draft: Draft, spec: Spec, schedule: Schedule, due: datetime, now: datetime) -> None:
    known, time = draft.status.schedule, stamp(due)
    entry = StageStatus(
        name=Stage.INPUTS,
        fingerprint=_work_of(draft, spec, time),
        image=spec.stages[Stage.INPUTS].pod.image,
    )
    following = stamp(next_due(schedule.cron, schedule.zone, max(due, now)))
    draft.status = replace(draft.status, schedule=replace(known, due=time, next_look=following, look=entry))


def _work_of(draft: Draft, spec: Spec, due: str) -> str:
    """The fingerprint of the look that is due then."""
    identity = data_identity(draft.status.resolved["data"]) | {"look": due}
    return fingerprint(Stage.INPUTS, spec, {}, extra=identity)


def end_stray_looks(draft: Draft, spec: Spec, observed: Observed) -> None:
    """Delete Jobs that look at the sources for nobody any more: two edits, or a status that was lost, have made a look
    be forgotten. One that is due may have begun in such a pass, and is found again.
    """
    inputs, known = draft.status.stage(Stage.INPUTS), draft.status.schedule
    if not inputs.done or spec.suspend or observed.not_begun is not None:
        return
    wanted = {inputs.fingerprint, known.look.fingerprint if known.look is not None else ""}
    if spec.schedule is not None:
        wanted.add(_work_of(draft, spec, known.next_look))
    for job in observed.jobs:
        stray = job.stage is Stage.INPUTS and job.fingerprint not in wanted
        if stray and not job.finished and not job.deleting:
            draft.actions.append(delete_job(job, "no look and no revision asks for its work any more"))


def _go_on(draft: Draft, spec: Spec, owner: Owner, observed: Observed, *, over: bool) -> None:
    """One step of the look that is under way, if any. What becomes of its Job is told of no stage of the revision."""
    known, inputs = draft.status.schedule, draft.status.stage(Stage.INPUTS)
    if known.look is None:
        return
    # On record by now.
    there = known.look.state == "Failed" and _give_up(draft, observed, "the look at the sources has failed")
    if not inputs.done and inputs.state != "Failed":
        draft.status = replace(draft.status, schedule=replace(known, due="", look=None, result="", drift={}))
        _say(draft, "the last look gave way to an edit, whose revision looks at the sources itself")
        return
    if not over:  # another revision is on its way by now, and must not be replaced in the middle
        why = f"what it has found waits until revision {draft.status.revision} has come to its end"
        draft.status = replace(draft.status, schedule=replace(known, waits=why))
        return
    if there:
        return
    if known.look.state == "Failed":
        _forget_last_job(draft, known, observed)
        _wait_for_next(draft, known, observed)
        _failed(draft, observed, f"({known.look.reason}): {known.look.message}")
        return
    if (away := observed.refusal("away")) is not None:
        waits = f"{away.tried}: the API server, or a webhook that it asks, does not answer"[:_WAITS_CHARACTERS]
        draft.status = replace(draft.status, schedule=replace(known, waits=waits))
        draft.look_again_in(RETRY_S["refused"])
        return
    if (refused := observed.refusal("look")) is not None:
        _wait_for_next(draft, known, observed)
        _failed(draft, observed, f"({refused.reason}): {refused.tried}: {refused.detail}")
        return
    aside = Draft(status=draft.status)
    told = {LOOK: _told(known, inputs)}
    step = Step(
        draft=aside,
        spec=replace(spec, limits=RunLimits()),  # a look is no part of the revision's run
        owner=owner,
        observed=observed,
        entry=known.look,
        inputs={},
        settings=told,
        spent=Spent(),
    )
    take(step)
    draft.actions += [replace(item, aside=True) if isinstance(item, CreateJob) else item for item in aside.actions]
    draft.events += aside.events
    entry = replace(step.entry, percent=None, step=0, total_steps=0, eta_seconds=None)
    if not entry.done and entry.state != "Failed":
        waits = f"{entry.reason}: {entry.message}"[:_WAITS_CHARACTERS] if entry.state == "Waiting" else ""
        draft.status = replace(draft.status, schedule=replace(known, look=entry, waits=waits))
        draft.requeue_s += aside.requeue_s
        return
    if not entry.done:  # its Job goes once that is on record: one that is gone without a result would run again
        draft.status = replace(draft.status, schedule=replace(known, look=entry))
        draft.look_again_in(1.0)
        return
    _forget_last_job(draft, known, observed)
    _wait_for_next(draft, known, observed)
    _found(draft, spec, entry, inputs)


def _wait_for_next(draft: Draft, known: ScheduleStatus, observed: Observed) -> None:
    following = noted_time(known.next_look)
    if following is not None:
        draft.look_again_in((following - observed.now).total_seconds())


def _failed(draft: Draft, observed: Observed, why: str) -> None:
    known = draft.status.schedule
    ended = replace(known, due="", look=None, last_look=stamp(observed.now), result="Failed", drift={})
    draft.status = replace(draft.status, schedule=ended)
    _say(draft, f"the sources could not be looked at {why}")


def _told(known: ScheduleStatus, inputs: StageStatus) -> dict[str, object]:
    """What the stage compares the documents with, and what an earlier look left that nothing needs any more."""
    trained = inputs.artefacts.get(Artefact.CORPUS)
    before = known.before if known.before.get("fingerprint") != inputs.fingerprint else {}
    return {"trained": trained.to_json() if trained is not None else None, "before": dict(before)}


def _found(draft: Draft, spec: Spec, entry: StageStatus, inputs: StageStatus) -> None:
    known, found = draft.status.schedule, _digests(entry)
    trained = _digests(inputs)
    changed = [_SAID[name] for name in _SAID if found.get(name.value) != trained.get(name.value)]
    another = bool(changed) and found != known.seen
    corpus = entry.artefacts[Artefact.CORPUS]
    ended = replace(
        known,
        due="",
        look=None,
        last_look=entry.finished_at,
        last_change=entry.finished_at if another else known.last_change,
        result="Changed" if changed else "Unchanged",
        message="",
        drift=drift_of(entry.details.get("drift")) if changed else {},
        seen=found,
        before={"fingerprint": entry.fingerprint, "corpus": corpus.path},
    )
    draft.status = replace(draft.status, schedule=ended)
    if not changed:
        return
    what = " and ".join(changed)
    if spec.schedule is not None and spec.schedule.runs:
        _run(draft, known.due, entry, what)
        return
    told = f"{what} changed since revision {draft.status.revision} looked at them"
    if not trained:
        told = f"{what} can be read, which revision {draft.status.revision} could not"
    _say(draft, f"{told}; another spec.corpus.version, or spec.schedule.onCorpusChange Run, makes a revision of them")
    if another:
        draft.event("Normal", SOURCES_CHANGED, told)


def _run(draft: Draft, due: str, entry: StageStatus, what: str) -> None:
    """A revision begins, for which the look has done the work of the inputs stage."""
    known, number = draft.status.schedule, draft.status.revision + 1
    resolved = {**draft.status.resolved, "data": {**draft.status.resolved["data"], "look": due}}
    status = draft.status.with_stage(replace(entry, revision=number, state="Succeeded", reused_from=None))
    draft.status = replace(status, resolved=resolved, schedule=replace(known, revisions=known.revisions + 1))
    _say(draft, f"{what} changed: revision {number}")
    draft.event("Normal", SOURCES_CHANGED, f"{what} changed: revision {number} begins")


def _of_this_revision(known: ScheduleStatus, inputs: StageStatus, now: datetime) -> ScheduleStatus:
    """Without what the last look found where the revision has the same by now: an edit looked at the sources."""
    read, looked = noted_time(inputs.started_at) if inputs.done else None, noted_time(known.last_look)
    if read is not None and is_ahead(read, now):
        return known
    if known.result in ("Changed", "Failed") and read is not None and looked is not None and read > looked:
        return replace(known, result="", message="", drift={})
    return known


def _digests(entry: StageStatus) -> dict[str, str]:
    return {name.value: ref.digest for name, ref in entry.artefacts.items()}


def _forget_last_job(draft: Draft, known: ScheduleStatus, observed: Observed) -> None:
    """Of looks the last one's Job is kept for people."""
    for job in observed.jobs:
        last = job.stage is Stage.INPUTS and job.fingerprint == known.before.get("fingerprint")
        if last and job.finished and not job.deleting:
            why = "a later look at the sources has ended"
            draft.actions.append(delete_job(job, why))


def _give_up(draft: Draft, observed: Observed, why: str) -> bool:
    """Whether the look's Job is still there. It is remembered for as long: its deletion may be refused, or be lost."""
    look = draft.status.schedule.look
    if look is None:
        return False
    for job in observed.jobs:
        if job.stage is Stage.INPUTS and job.fingerprint == look.fingerprint and not job.finished:
            draft.look_again_in(_GOING_S if job.deleting else 1.0)
            if not job.deleting:
                draft.actions.append(delete_job(job, why))
            return True
    return False


def _say(draft: Draft, message: str) -> None:
    draft.status = replace(draft.status, schedule=replace(draft.status.schedule, message=message))
