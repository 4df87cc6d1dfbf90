"""Rendezvous Services: a multi-node Job has a headless Service by which its pods find each other. Pure."""

from __future__ import annotations

from dataclasses import replace

from embedding_operator.decide.decision import Action, Apply, CreateJob, DeleteObject, Draft, Observed
from embedding_operator.decide.drift import drift_of
from embedding_operator.decide.waiting import Wait
from embedding_operator.objects.manifests.common import Owner
from embedding_operator.objects.manifests.workers import build_rendezvous_service
from embedding_operator.resource.labels import STAGE_LABEL
from embedding_operator.resource.status import Status
from embedding_stages.contract import Stage


def keep_rendezvous_services(draft: Draft, owner: Owner, observed: Observed, *, before: Status) -> None:
    """Apply the rendezvous Service of each multi-node Job before the Job; delete those that no Job needs any more.

    `before` is the status as it was read.
    """
    needed = _needed(draft, observed)
    made: list[Action] = []
    for job, stage in needed.items():
        desired = build_rendezvous_service(owner, job, stage)
        drift = drift_of(draft, observed.services.get(job), desired, observed)
        if drift.apply:
            made.append(Apply(manifest=desired, why="its pods find each other by it"))
        if drift.wait is not None:
            _say(draft, stage, job, drift.wait, before)
    draft.actions[:0] = made
    for name, raw in observed.services.items():
        meta = raw["metadata"]
        ours = STAGE_LABEL in (meta.get("labels") or {}) and owner.owns(raw)
        if ours and name not in needed and "deletionTimestamp" not in meta:
            draft.actions.append(DeleteObject(kind="Service", name=name, why="no Job needs it any more"))


def _say(draft: Draft, stage: Stage, job: str, wait: Wait, before: Status) -> None:
    """That pods which have started may not find each other. Those that have told of progress have met before."""
    entry, known = draft.status.stage(stage), before.stage(stage)
    if entry.state != "Running" or entry.job_name != job or entry.percent is not None:
        return
    told = replace(entry, reason=wait.reason, message=wait.message, broken=True)
    if replace(told, usage=known.usage) == known:  # what is used is told with the next news
        told = known
    draft.status = draft.status.with_stage(told)


def _needed(draft: Draft, observed: Observed) -> dict[str, Stage]:
    """Jobs of several nodes that run, wait, are suspended or are about to be created, and the stages they do."""
    dropped = {action.name for action in draft.actions if isinstance(action, DeleteObject) and action.kind == "Job"}
    found = {
        job.name: job.stage
        for job in observed.jobs
        if job.nodes > 1 and not job.finished and not job.deleting and job.name not in dropped
    }
    for action in draft.actions:
        if isinstance(action, CreateJob) and action.manifest["spec"]["completions"] > 1:
            meta = action.manifest["metadata"]
            found[meta["name"]] = Stage(meta["labels"][STAGE_LABEL])
    return found
