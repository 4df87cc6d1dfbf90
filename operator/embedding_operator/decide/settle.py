"""Which image and which code version a stage runs with: as settled, until it has to run anew. Pure.

`resource/frozen.py` carries what was settled from revision to revision. A stage that finds its work done, or being
done, stays with it. One that has to run takes the newest default image and the code version that belongs to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from embedding_operator.decide.decision import Draft, Observed
from embedding_operator.decide.handover import vector_space
from embedding_operator.decide.outcome import Failure, outcome_of
from embedding_operator.decide.serving import SettledServer, serving_model
from embedding_operator.objects.views import JobView
from embedding_operator.resource.api import Spec, StageSpec
from embedding_operator.resource.frozen import data_identity, mapping, shown
from embedding_operator.resource.pipeline import fingerprint, inputs_of, serving_fingerprint
from embedding_operator.resource.status import Status
from embedding_stages.contract import BEFORE_SERVING, Stage
from embedding_stages.contract.versions import CODE_VERSIONS

_SERVER_CHARACTERS: Final = 16  # of a serving fingerprint, as in labels


def settle(
    draft: Draft,
    stage: Stage,
    spec: Spec,
    observed: Observed,
    images: Mapping[str, str],
    *,
    identity: Mapping[str, Any] | None,
) -> Spec:
    """The spec with which `stage` goes on. `images` are the default images of this release by stage."""
    item, inputs = spec.stages[stage], inputs_of(stage, spec, draft.status)
    if item.settled_in == draft.status.revision or inputs is None:
        return spec
    if _is_done_or_runs(draft, stage, fingerprint(stage, spec, inputs, extra=identity), spec, observed):
        return spec
    return _renewed(draft, stage, spec, images[stage])


def due_stages(spec: Spec, status: Status) -> list[Stage]:
    """The stages before the server that may run in this revision: from the first whose work is not known."""
    doubted = {item.name for item in status.stages if item.finished_at and item.artefacts and item.state != "Succeeded"}
    known = (replace(item, state="Succeeded") if item.name in doubted else item for item in status.stages)
    believed = replace(status, stages=tuple(known)) if doubted else status
    stages = [stage for stage in BEFORE_SERVING if not (stage is Stage.EXPORT and spec.deploy.serves_checkpoint)]
    for number, stage in enumerate(stages):
        extra = data_identity(mapping(status.resolved.get("data"))) if stage is Stage.INPUTS else None
        entry, inputs = believed.stage(stage), inputs_of(stage, spec, believed)
        if inputs is None or not entry.done or entry.fingerprint != fingerprint(stage, spec, inputs, extra=extra):
            return stages[number:]
    return []


def foreseen(spec: Spec, status: Status, images: Mapping[str, str]) -> Spec:
    """The spec with the images and code versions that stages take when they have to run, as far as is known now.

    A stage whose inputs turn out the same stays with its own after all.
    """
    due, settled = due_stages(spec, status), mapping(status.resolved.get("stages"))
    for stage in (*due, *([Stage.VERIFY] if due else ())):
        item, entry = spec.stages[stage], status.stage(stage)
        known = mapping(settled.get(stage.value))
        if item.pod.own_image:
            continue
        if known.get("settledIn") == status.revision:  # perhaps in this very pass
            spec = spec.with_stage(stage, item.with_image(str(known["image"])))
        elif entry.state == "Pending" and entry.reason != "JobCreated":
            renewed = replace(item, code_version=CODE_VERSIONS[stage]).with_image(images[stage])
            spec = spec.with_stage(stage, renewed)
    return spec


def _is_done_or_runs(draft: Draft, stage: Stage, wanted: str, spec: Spec, observed: Observed) -> bool:
    """Whether an older revision did the work `wanted`, or its Job is doing it.

    A Job of this very revision was created by a pass that died before it could write down with which image.
    """
    entry = draft.status.stage(stage)
    needs_interval = stage is Stage.EVAL and spec.gates.enabled and spec.gates.criterion != "PointEstimate"
    if needs_interval and entry.artefacts and "comparisons" not in entry.details:
        return False  # an earlier release measured none
    if entry.fingerprint == wanted and entry.artefacts and entry.finished_at:
        return True
    of_stage = (job for job in observed.jobs if job.stage is stage and job.fingerprint == wanted)
    older = (job for job in of_stage if job.attempt > entry.distrusted and job.revision != draft.status.revision)
    return any(not _has_failed(job, spec) for job in older)


def _has_failed(job: JobView, spec: Spec) -> bool:
    """Also without a result: its stage has to run again."""
    return job.finished and isinstance(outcome_of(job, spec), Failure)


def settle_server(draft: Draft, spec: Spec, images: Mapping[str, str]) -> tuple[Spec, SettledServer]:
    """A server that serves the same keeps the images that it was settled with."""
    model = serving_model(draft)
    known = mapping(draft.status.resolved.get("servers"))
    serving = serving_fingerprint(spec, model)[:_SERVER_CHARACTERS]
    if serving not in known and spec.stages[Stage.DEPLOY].settled_in != draft.status.revision:
        spec = _renewed(draft, Stage.DEPLOY, spec, spec.stages[Stage.DEPLOY].pod.image)
        serving = serving_fingerprint(spec, model)[:_SERVER_CHARACTERS]
    fresh = {"image": spec.stages[Stage.DEPLOY].pod.image, "checkImage": images[Stage.DEPLOY]}
    told = {} if serving in known else {"vectorSpace": vector_space(draft.status)}
    settled = {**fresh, **told, **mapping(known.get(serving))}
    active = draft.status.served.active_fingerprint[:_SERVER_CHARACTERS]
    kept = {name: known[name] for name in (active,) if name in known}
    spec = spec.with_stage(Stage.DEPLOY, spec.stages[Stage.DEPLOY].with_image(settled["image"]))
    _record(draft, Stage.DEPLOY, spec.stages[Stage.DEPLOY], servers={**kept, serving: settled})
    return spec, SettledServer(check_image=settled["checkImage"], vector_space=settled.get("vectorSpace", ""))


def _renewed(draft: Draft, stage: Stage, spec: Spec, image: str) -> Spec:
    item = replace(spec.stages[stage], code_version=CODE_VERSIONS[stage], settled_in=draft.status.revision)
    item = item if item.pod.own_image else item.with_image(image)
    _record(draft, stage, item)
    return spec.with_stage(stage, item)


def _record(draft: Draft, stage: Stage, item: StageSpec, **beside: Any) -> None:
    resolved = draft.status.resolved
    entry = {**resolved["stages"][stage.value], **shown(item)}
    changed = {**resolved, "stages": {**resolved["stages"], stage.value: entry}, **beside}
    draft.status = replace(draft.status, resolved=changed)
