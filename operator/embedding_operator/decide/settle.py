"""Which image and which code version a stage runs with: as settled, until it has to run anew. Pure.

`resource/frozen.py` carries what was settled from revision to revision. A stage that finds its work done, or being
done, stays with it. One that has to run takes the newest default image and the code version that belongs to it. So does
one that has not begun, waits, or serves no more because its default image does not come: the chart is where that is
corrected, and what would keep the old image would wait for ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from embedding_operator.decide.decision import Draft, Observed
from embedding_operator.decide.handover import vector_space
from embedding_operator.decide.image_check import cannot_come
from embedding_operator.decide.outcome import Failure, outcome_of
from embedding_operator.decide.pulling import CHECK_FIELD
from embedding_operator.decide.serving import SettledServer, serving_model
from embedding_operator.decide.unpulled import keeps_its_images, lacking, lacks_its_image
from embedding_operator.decide.usage import begin_run, has_ended
from embedding_operator.objects.manifests.serving import CHECK_CONTAINER, CONTAINER
from embedding_operator.objects.views import JobView
from embedding_operator.resource.api import Spec, StageSpec
from embedding_operator.resource.frozen import data_identity, mapping, shown
from embedding_operator.resource.pipeline import fingerprint, inputs_of, serving_fingerprint
from embedding_operator.resource.status import Status
from embedding_operator.resource.times import stamp
from embedding_stages.contract import BEFORE_SERVING, Stage
from embedding_stages.contract.versions import CODE_VERSIONS

DEFAULT_IMAGE_TAKEN: Final = "DefaultImageTaken"
_CONTAINER_OF: Final = {"image": CONTAINER, "checkImage": CHECK_CONTAINER}  # by what is settled of a server
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
    settled, newer = item.settled_in == draft.status.revision, _is_newer(item, images[stage])
    if inputs is None or (settled and not newer):
        return spec
    wanted = fingerprint(stage, spec, inputs, extra=identity)
    if newer and _waits_in_vain(draft, stage, wanted, observed):
        _tell_taken(draft, stage.value, item.pod.image, images[stage])
        return _renewed(draft, stage, spec, images[stage])
    if settled or _is_done_or_runs(draft, stage, wanted, spec, observed):
        return spec
    return _renewed(draft, stage, spec, images[stage])


def settle_ahead(draft: Draft, spec: Spec, images: Mapping[str, str]) -> Spec:
    """The spec with which the stages that have not begun will: not with an image of which it is known that it will not
    come. What an earlier revision has settled may be done, and is for `settle` to decide.
    """
    for stage, item in spec.stages.items():
        mine = stage is not Stage.DEPLOY and item.settled_in == draft.status.revision
        undone = mine and not draft.status.stage(stage).finished_at
        if undone and _is_newer(item, images[stage]) and cannot_come(draft.status, stage, item.pod.image):
            _tell_taken(draft, stage.value, item.pod.image, images[stage])
            spec = _renewed(draft, stage, spec, images[stage])
    return spec


def settle_look(draft: Draft, spec: Spec, observed: Observed, images: Mapping[str, str]) -> Spec:
    """The spec with which a look at the sources goes on: one that waits for an image takes a newer default which reads
    them in the same way. Another way would be taken for a change of the sources.
    """
    look, item = draft.status.schedule.look, spec.stages[Stage.INPUTS]
    alike = item.code_version == CODE_VERSIONS[Stage.INPUTS]
    if look is None or not alike or not _is_newer(item, images[Stage.INPUTS]):
        return spec
    if not any(job.fingerprint == look.fingerprint and lacks_its_image(job, observed.now) for job in observed.jobs):
        return spec
    _tell_taken(draft, Stage.INPUTS.value, item.pod.image, images[Stage.INPUTS])
    return _renewed(draft, Stage.INPUTS, spec, images[Stage.INPUTS])


def _is_newer(item: StageSpec, image: str) -> bool:
    """Whether the stage's image was a default, and is none any more."""
    return not item.pod.own_image and item.pod.image != image


def _waits_in_vain(draft: Draft, stage: Stage, wanted: str, observed: Observed) -> bool:
    """Whether the Job that does the work `wanted` goes no further for want of its image."""
    entry = draft.status.stage(stage)
    if entry.fingerprint == wanted and entry.artefacts and entry.finished_at:
        return False
    mine = (job for job in observed.jobs if job.stage is stage and job.fingerprint == wanted)
    return any(job.attempt > entry.distrusted and lacks_its_image(job, observed.now) for job in mine)


def _tell_taken(draft: Draft, what: str, old: str, new: str) -> None:
    message = f"{what}: {old} cannot be pulled; {new}, which is the default now, takes its place"
    draft.event("Normal", DEFAULT_IMAGE_TAKEN, message)


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


def renew_server(draft: Draft, spec: Spec, observed: Observed, fresh: Mapping[str, str]) -> None:
    """Note the defaults of this release in the place of images for which every pod of the server waits in vain.

    The next pass applies them: what is applied and not on record would be taken for somebody else's change. What was
    verified with another image is measured again.
    """
    serving, resolved = serving_fingerprint(spec, serving_model(draft)), draft.status.resolved
    label = serving[:_SERVER_CHARACTERS]
    settled = mapping(mapping(resolved.get("servers")).get(label))
    live = next((item for item in observed.deployments if item.serving == label and not item.deleting), None)
    if live is None or keeps_its_images(live):
        return
    lacks = lacking(live, observed.now)
    gone = {settled.get(key) for key, container in _CONTAINER_OF.items() if container in lacks}
    newer = {key: image for key, image in fresh.items() if settled.get(key) in gone and settled.get(key) != image}
    if not newer:
        return
    for key, image in newer.items():
        _tell_taken(draft, "deploy" if key == "image" else CHECK_FIELD, settled[key], image)
    item = spec.stages[Stage.DEPLOY]
    if "image" in newer:
        item = replace(item, code_version=CODE_VERSIONS[Stage.DEPLOY]).with_image(newer["image"])
        if has_ended(draft.status):
            begin_run(draft, observed)
    _record(draft, Stage.DEPLOY, item, servers={**resolved["servers"], label: {**settled, **newer}})
    entry = replace(draft.status.stage(Stage.DEPLOY), image=item.pod.image, started_at=stamp(observed.now))
    draft.status = draft.status.with_stage(entry)
    draft.look_again_in(1.0)


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
