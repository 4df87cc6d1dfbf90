"""The stages before the server, one after the other. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from embedding_operator.decide.compared import note_active
from embedding_operator.decide.decision import Draft, Observed, delete_job
from embedding_operator.decide.gates import gate_of
from embedding_operator.decide.jobs import advance
from embedding_operator.decide.records import take_pinned
from embedding_operator.decide.serving import drop_candidates
from embedding_operator.decide.settle import settle
from embedding_operator.objects.manifests.common import Owner
from embedding_operator.resource.api import Spec
from embedding_operator.resource.frozen import data_identity
from embedding_operator.resource.served import check_takes
from embedding_operator.resource.status import TAKEN, StageStatus
from embedding_stages.contract import BEFORE_SERVING, Artefact, Stage, fingerprint_of


def run_pipeline(
    draft: Draft,
    spec: Spec,
    owner: Owner,
    observed: Observed,
    images: Mapping[str, str],
    pinned: Sequence[StageStatus],
) -> bool:
    """Whether every stage before the server is done; `images` are the default images of this release by stage,
    `pinned` the entries of a revision that is pinned. Raises SpecError when the server would not take the model.
    """
    if spec.deploy.pinned is not None:
        _stop_all(draft, observed)
        take_pinned(draft, spec, pinned)
        return True
    for stage in BEFORE_SERVING:
        # Documents, models and labelled sets may change in place: every edit of what is read looks again.
        identity = data_identity(draft.status.resolved["data"]) if stage is Stage.INPUTS else None
        if stage is Stage.EXPORT and spec.deploy.serves_checkpoint:
            _skip_export(draft, spec, observed)
            continue
        spec = settle(draft, stage, spec, observed, images, identity=identity)
        if not advance(draft, stage, spec, owner, observed, identity=identity):
            _stop_obsolete(draft, observed, after=stage)
            if stage is not Stage.INPUTS:  # which also runs in a revision that changes no server
                drop_candidates(draft, observed.deployments)
            return False
        if stage is Stage.INPUTS and draft.status.served.active_revision != draft.status.revision:
            encoder = draft.status.stage(stage).details.get("encoder") or {}
            check_takes(spec, encoder, draft.status.resolved.get(TAKEN))
        if stage is Stage.EVAL:
            note_active(draft, spec)
        if stage is Stage.EVAL and gate_blocks(draft, spec):
            _stop_obsolete(draft, observed, after=stage)
            drop_candidates(draft, observed.deployments)
            return False
    return True


def gate_blocks(draft: Draft, spec: Spec) -> bool:
    """Whether the evaluated model is not good enough to be exported."""
    return gate_of(draft.status, spec).blocks


def _stop_all(draft: Draft, observed: Observed) -> None:
    """With a revision pinned nothing is trained."""
    for job in observed.jobs:
        if job.stage in BEFORE_SERVING and not job.finished and not job.deleting:
            draft.actions.append(delete_job(job, "a revision is pinned"))


def _skip_export(draft: Draft, spec: Spec, observed: Observed) -> None:
    """The server reads the checkpoint itself: that is the serving model."""
    for job in observed.jobs:
        if job.stage is Stage.EXPORT and not job.finished and not job.deleting:
            draft.actions.append(delete_job(job, "nothing is to be exported any more"))
    checkpoint = draft.status.stage(Stage.FINETUNE).artefacts[Artefact.CHECKPOINT]
    named = f"the server (backend {spec.deploy.profile.said})"
    known = draft.status.stage(Stage.EXPORT)
    entry = StageStatus(
        name=Stage.EXPORT,
        attempt=known.attempt,
        distrusted=known.distrusted,
        state="Skipped",
        reason="ProfileServesCheckpoint",
        message=f"{named} reads the checkpoint, nothing is to be exported",
        fingerprint=fingerprint_of({"skipped": checkpoint.digest}),
        revision=draft.status.revision,
        artefacts={Artefact.SERVING_MODEL: checkpoint},
    )
    draft.status = draft.status.with_stage(entry)


def _stop_obsolete(draft: Draft, observed: Observed, after: Stage) -> None:
    """A stage that runs again makes Jobs of later stages useless: they would burn a GPU for an old input."""
    if draft.status.stage(after).attempt == 0 or after is Stage.INPUTS:
        return
    order = list(Stage)
    for job in observed.jobs:
        if order.index(job.stage) > order.index(after) and not job.finished and not job.deleting:
            draft.actions.append(delete_job(job, f"{after} runs again before it"))
