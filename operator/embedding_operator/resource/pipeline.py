"""The table of stages and their fingerprints. Pure.

A fingerprint is the identity of work: settings, the code version of the stage, and the digests of the inputs. Equal
fingerprints mean that the work is the same, so it is never done twice; a changed one means that everything downstream
may change too. See docs/decisions/0013-identity-of-work.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from embedding_operator.resource.api import Spec, StageSpec
from embedding_operator.resource.status import Status
from embedding_stages.contract import Artefact, ArtefactRef, Stage, fingerprint_of
from embedding_stages.contract import settings as tables


@dataclass(frozen=True, slots=True, kw_only=True)
class StageDef:
    """One Job stage: which module its image runs, what it reads and what it writes."""

    stage: Stage
    module: str
    inputs: tuple[Artefact, ...]
    outputs: tuple[Artefact, ...]
    optional_inputs: tuple[Artefact, ...] = ()


PIPELINE: Final[tuple[StageDef, ...]] = (
    StageDef(
        stage=Stage.INPUTS,
        module="embedding_stages.inputs",
        inputs=(),
        outputs=(Artefact.CORPUS, Artefact.BASE_MODEL),
    ),
    StageDef(
        stage=Stage.SDG,
        module="embedding_stages.sdg",
        inputs=(Artefact.CORPUS,),
        optional_inputs=(Artefact.BASE_MODEL,),
        outputs=(Artefact.PAIRS,),
    ),
    StageDef(
        stage=Stage.PREP,
        module="embedding_stages.prep",
        inputs=(Artefact.PAIRS, Artefact.BASE_MODEL),
        optional_inputs=(Artefact.LABELLED_SET, Artefact.FROZEN_SET),
        outputs=(Artefact.TRAINING_SET, Artefact.EVALUATION_SET),
    ),
    StageDef(
        stage=Stage.FINETUNE,
        module="embedding_stages.finetune",
        inputs=(Artefact.TRAINING_SET, Artefact.BASE_MODEL),
        outputs=(Artefact.CHECKPOINT,),
    ),
    StageDef(
        stage=Stage.EVAL,
        module="embedding_stages.evaluate",
        inputs=(Artefact.BASE_MODEL, Artefact.CHECKPOINT, Artefact.EVALUATION_SET),
        optional_inputs=(Artefact.GUARD_SETS, Artefact.ACTIVE_CHECKPOINT),
        outputs=(Artefact.EVAL_REPORT,),
    ),
    StageDef(
        stage=Stage.EXPORT,
        module="embedding_stages.export",
        inputs=(Artefact.CHECKPOINT, Artefact.EVALUATION_SET),
        optional_inputs=(Artefact.TRAINING_SET,),
        outputs=(Artefact.SERVING_MODEL,),
    ),
    StageDef(
        stage=Stage.VERIFY,
        module="embedding_stages.verify",
        inputs=(Artefact.EVALUATION_SET, Artefact.EVAL_REPORT, Artefact.SERVING_MODEL),
        outputs=(Artefact.VERIFY_REPORT,),
    ),
)
BY_STAGE: Final[Mapping[Stage, StageDef]] = {item.stage: item for item in PIPELINE}


def available_artefacts(status: Status) -> dict[Artefact, ArtefactRef]:
    """What the finished stages of the current revision have produced."""
    found: dict[Artefact, ArtefactRef] = {}
    for item in status.stages:
        if item.done:
            found.update(item.artefacts)
    return found


def inputs_of(stage: Stage, spec: Spec, status: Status) -> dict[Artefact, ArtefactRef] | None:
    """The inputs of a stage, or None when one of them does not exist yet."""
    definition = BY_STAGE[stage]
    available = available_artefacts(status)
    if any(name not in available for name in definition.inputs):
        return None
    wanted = (*definition.inputs, *definition.optional_inputs)
    found = {name: available[name] for name in wanted if name in available}
    if stage is Stage.SDG and spec.stages[stage].settings.get("passages") != tables.FITTING:
        found.pop(Artefact.BASE_MODEL, None)  # the work of other passages does not depend on it
    if stage is Stage.EXPORT and spec.stages[stage].settings.get("quantization") in (None, tables.NO_QUANTIZATION):
        found.pop(Artefact.TRAINING_SET, None)  # its passages calibrate
    if stage is Stage.PREP:
        return found | _frozen_set(spec, status, found)
    if stage is Stage.EVAL:
        return found | _active_checkpoint(spec, status, found)
    return found


def _frozen_set(spec: Spec, status: Status, inputs: Mapping[Artefact, ArtefactRef]) -> dict[Artefact, ArtefactRef]:
    """The evaluation set that an earlier revision was scored on, unless this very work is what made it.

    That work stays itself however often it is asked for, so an edit and back, or a workspace that is not believed any
    more, finds its folder again. Where it has to be done again and another set comes out, the frozen one is needed.
    """
    frozen = status.evaluation_set
    if frozen is None or not spec.freeze or frozen.asked != spec.labelled_asked:
        return {}
    entry, asked = status.stage(Stage.PREP), {Artefact.FROZEN_SET: frozen.ref}
    if fingerprint(Stage.PREP, spec, inputs) != frozen.made_by:
        return asked
    made = entry.artefacts.get(Artefact.EVALUATION_SET) if entry.fingerprint == frozen.made_by else None
    is_another = bool(entry.finished_at) and made is not None and made.digest != frozen.ref.digest
    if is_another or entry.fingerprint == fingerprint(Stage.PREP, spec, {**inputs, **asked}):
        return asked
    return {}


def _active_checkpoint(
    spec: Spec, status: Status, inputs: Mapping[Artefact, ArtefactRef]
) -> dict[Artefact, ArtefactRef]:
    """What serves now, to be compared with where there are gates.

    Otherwise, and when the model has taken its place, the evaluation stays with what it was compared with.
    """
    active = status.served.checkpoint
    if active is not None and active.digest != inputs[Artefact.CHECKPOINT].digest and spec.gates.enabled:
        return {Artefact.ACTIVE_CHECKPOINT: active}
    entry = status.stage(Stage.EVAL)
    digest = entry.details.get(Artefact.ACTIVE_CHECKPOINT.value)
    if not digest or not entry.finished_at:
        return {}
    before = {Artefact.ACTIVE_CHECKPOINT: ArtefactRef(path="", digest=str(digest))}
    return before if entry.fingerprint == fingerprint(Stage.EVAL, spec, {**inputs, **before}) else {}


def fingerprint(
    stage: Stage,
    spec: Spec,
    inputs: Mapping[Artefact, ArtefactRef],
    *,
    extra: Mapping[str, Any] | None = None,
) -> str:
    """64 hex digits. How a pod is scheduled, its resources and its Secrets do not change what the work is.

    Neither do settings that say `as before`, nor the image of a release: the code version stands for that one. An image
    that the manifest names is another matter, since nobody else knows what it does.
    `extra` is what else the work depends on: the generation for `inputs` (documents may have been edited since), what
    is measured for `verify`.
    """
    digests = {name.value: ref.digest for name, ref in inputs.items()}
    given = _said({"inputs": digests, "extra": dict(extra or {})})
    return fingerprint_of(_own_work(stage, spec.stages[stage]) | given)


def _own_work(stage: Stage, item: StageSpec) -> dict[str, Any]:
    """What a stage says of its work, whatever its inputs; a pass asks for it three times."""
    if not item.own_work:
        said = {
            "stage": stage.value,
            "codeVersion": item.code_version,
            "image": item.pod.image if item.pod.own_image else "",
            "settings": _settings(stage, item.settings),
            "env": [dict(pair) for pair in item.pod.env],
        }
        item.own_work.update(_said(said))
    return item.own_work


def serving_fingerprint(spec: Spec, model: ArtefactRef) -> str:
    """Identity of what a Deployment serves: the artefact, and the server as far as its answers depend on it."""
    item, deploy = spec.stages[Stage.DEPLOY], spec.deploy
    return _identity(
        {
            "codeVersion": item.code_version,
            "image": item.pod.image if item.pod.own_image else "",
            "artefact": model.digest,
            "backend": deploy.backend,
            "model": deploy.model_name,
            "generation": deploy.profile.generation,
            "env": [dict(pair) for pair in item.pod.env],
        }
    )


def _settings(stage: Stage, settings: Mapping[str, Any]) -> dict[str, Any]:
    table = tables.OF_STAGE.get(stage)
    return dict(settings) if table is None else table.identity(settings)


def _identity(parts: Mapping[str, Any]) -> str:
    return fingerprint_of(_said(parts))


def _said(value: Any) -> Any:
    """Without what says nothing, so that a part that a later release adds changes nothing where it is absent."""
    if isinstance(value, dict):
        found = {key: _said(part) for key, part in value.items()}
        return {key: part for key, part in found.items() if part is not None and part not in ("", {}, [])}
    return value
