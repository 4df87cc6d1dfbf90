"""What each revision was made of is written down, so that it can be served again without training. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from embedding_operator.decide.decision import Apply, DeleteObject, Draft, Observed
from embedding_operator.decide.refusals import RETRY_S, not_written, refusal_wait
from embedding_operator.objects.manifests.common import Owner
from embedding_operator.objects.manifests.records import STAGES_KEY, build_record, record_name
from embedding_operator.resource.api import Spec, SpecError
from embedding_operator.resource.pipeline import BY_STAGE
from embedding_operator.resource.status import PINNED, StageStatus, Status, decimal_text
from embedding_stages.contract import BEFORE_SERVING, Artefact, Stage
from embedding_stages.contract import settings as tables

PINNED_MISSING: Final = "PinnedRevisionMissing"
PINNED_NOT_EXPORTED: Final = "PinnedRevisionNotExported"
_FIELD: Final = "spec.stages.deploy.pinRevision"
_DIGEST_CHARACTERS: Final = 19  # sha256: and 12 digits
# Of a stage that is done this much is needed to serve its work again, and to say what it measured.
_RECORDED: Final = (
    "name",
    "fingerprint",
    "image",
    "revision",
    "finishedAt",
    "artefacts",
    "counts",
    "details",
    "metrics",
)


def record_revision(draft: Draft, owner: Owner, spec: Spec, observed: Observed) -> None:
    """Keep what the active revision was made of, once; the oldest record goes when there are too many."""
    if spec.deploy.pinned:
        return
    revision = draft.status.served.active_revision
    if not any(item.get("revision") == revision for item in draft.status.history):
        _record(draft, owner, observed, revision)
    kept, history = spec.retention.revisions, draft.status.history
    for old in history[:-kept]:
        name = record_name(owner.name, int(old["revision"]))
        draft.actions.append(DeleteObject(kind="ConfigMap", name=name, why=f"{kept} newer revisions are recorded"))
    if refusal_wait(observed) is None:  # else those that are still there would be forgotten
        draft.status = replace(draft.status, history=tuple(history[-kept:]))


def _record(draft: Draft, owner: Owner, observed: Observed, revision: int) -> None:
    stages = [_recorded(draft.status.stage(stage)) for stage in BEFORE_SERVING]
    draft.actions.append(Apply(manifest=build_record(owner, revision, stages), why="it can be pinned later"))
    if not_written(observed, record_name(owner.name, revision)):
        draft.look_again_in(RETRY_S["record"])
        return
    history = (*draft.status.history, _summary(draft.status, revision))
    draft.status = replace(draft.status, history=history)


def _recorded(entry: StageStatus) -> dict[str, Any]:
    raw = entry.to_json()
    return {key: raw[key] for key in _RECORDED if key in raw}


def _summary(status: Status, revision: int) -> dict[str, Any]:
    """One line of `status.history`."""
    found: dict[str, Any] = {"revision": revision, "vectorSpace": status.served.vector_space}
    evaluated = status.stage(Stage.EVAL)
    tuned = evaluated.metrics.get("fineTuned", {})
    if "ndcg@10" not in tuned:
        return found
    # Figures of two sets cannot be compared, so each is told with its own.
    digest = str(evaluated.details.get(Artefact.EVALUATION_SET.value, ""))[:_DIGEST_CHARACTERS]
    return {
        **found,
        "ndcg@10": decimal_text(tuned["ndcg@10"]),
        "queries": evaluated.counts.get("queries", 0),
        **({"evaluationSet": digest} if digest else {}),
    }


def pinned_stages(spec: Spec, status: Status, observed: Observed) -> Sequence[StageStatus]:
    """The entries of the revision that the manifest pins; none where it pins none. `status` is as it was read. Raises
    SpecError when that revision cannot be served again.
    """
    if spec.deploy.pinned is None:
        return ()
    entries = _pinned_stages(spec, status, observed)
    if found := {entry.name: entry for entry in entries}:
        if found[Stage.FINETUNE].details.get("side") == tables.QUERY_SIDE and not spec.deploy.profile.maps_queries:
            raise SpecError(
                "spec.stages.deploy.backend",
                f"of revision {spec.deploy.pinned} queries alone were trained (finetune.side), which a server of "
                f"backend {spec.deploy.backend} cannot serve; take backend onnx or torch, pin another revision, or "
                "remove pinRevision",
            )
        trained = found[Stage.FINETUNE].artefacts[Artefact.CHECKPOINT]
        exported = found[Stage.EXPORT].artefacts[Artefact.SERVING_MODEL]
        if exported == trained and not spec.deploy.serves_checkpoint:
            raise SpecError(
                "spec.stages.deploy.backend",
                f"revision {spec.deploy.pinned} was served from its checkpoint, so there is no exported model that "
                f"{spec.deploy.backend} could serve; name the backend that served it, pin another revision, or remove "
                "pinRevision",
                reason=PINNED_NOT_EXPORTED,
            )
        return entries
    told = (item.get("revision") for item in status.history)
    known = ", ".join(str(revision) for revision in told if revision != spec.deploy.pinned)
    raise SpecError(
        _FIELD,
        f"revision {spec.deploy.pinned} is not recorded; pin one of status.history "
        f"({known or 'none was Ready yet'}), or remove pinRevision",
        reason=PINNED_MISSING,
    )


def take_pinned(draft: Draft, spec: Spec, pinned: Sequence[StageStatus]) -> None:
    """Every stage before deploy is what the pinned revision's was; nothing runs."""
    for entry in pinned:
        message = f"revision {spec.deploy.pinned} is pinned: {entry.name} is not run"
        known = draft.status.stage(entry.name)
        taken = replace(
            entry,
            state="Skipped",
            reason=PINNED,
            message=message,
            reused_from=spec.deploy.pinned,
            attempt=known.attempt,
            distrusted=known.distrusted,
            took_s=known.took_s,
        )
        if entry.name is Stage.EXPORT and spec.deploy.serves_checkpoint:
            checkpoint = draft.status.stage(Stage.FINETUNE).artefacts[Artefact.CHECKPOINT]
            taken = replace(taken, artefacts={Artefact.SERVING_MODEL: checkpoint}, details={})
        draft.status = draft.status.with_stage(taken)


def _pinned_stages(spec: Spec, status: Status, observed: Observed) -> Sequence[StageStatus]:
    """The entries of the pinned revision's record. Where it is none, or was changed beyond reading, those that were
    taken from it when the revision was pinned; else none.
    """
    try:
        raw = json.loads((observed.pinned or {})["data"][STAGES_KEY])
        found = [StageStatus.from_json(item) for item in raw]
    except (KeyError, TypeError, ValueError, AttributeError):
        found = []
    if _are_whole(found):
        return found
    taken = [status.stage(name) for name in BEFORE_SERVING]
    of_it = all(item.reason == PINNED and item.reused_from == spec.deploy.pinned for item in taken)
    return taken if of_it and _are_whole(taken) else ()


def _are_whole(found: Sequence[StageStatus]) -> bool:
    whole = all(name in item.artefacts for item in found for name in BY_STAGE[item.name].outputs)
    return whole and [item.name for item in found] == list(BEFORE_SERVING)
