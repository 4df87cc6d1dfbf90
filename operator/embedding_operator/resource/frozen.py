"""What is settled with a revision and carried into later ones: each stage's settings, image and code version. Pure.

A later release of the operator may know other defaults and bring other images. So the status keeps what each stage was
resolved to (`status.resolved`), and a later pass or revision takes that up again, stage by stage, for as long as the
manifest says the same about the stage. docs/decisions/0013-identity-of-work.md tells why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from embedding_operator.resource.api import Spec, StageSpec
from embedding_operator.resource.references import BUNDLE
from embedding_operator.resource.status import LIMITS, MEASURED, SCALING, SERVER_IMAGES, TAKEN, Status
from embedding_stages.contract import Stage, fingerprint_of, presets
from embedding_stages.contract import settings as tables
from embedding_stages.contract.declare import Table, spelled

# How a pod is run, and how many share the work: no part of what the work is.
_HOW: Final = frozenset(
    {
        "resources",
        "nodeSelector",
        "tolerations",
        "priorityClassName",
        "runtimeClassName",
        "podLabels",
        "podAnnotations",
        *tables.Run.settings(),
        *tables.Workers.settings(),
    }
)
_HASH_CHARACTERS: Final = 16


def asked_of_stages(raw: Mapping[str, Any], *, served_in: str) -> dict[Stage, str]:
    """By stage, the hash of what the manifest `raw` says about its settings, without a default.

    `served_in` is the precision that the server computes in: eval computes in the same.
    """
    corpus, evaluation, gates = (raw.get(key) or {} for key in ("corpus", "evaluation", "gates"))
    stages = raw.get("stages") or {}
    preset = presets.preset_of(stages)
    other = [preset, presets.an_llm_asks(stages)] if preset != presets.RECIPE else []
    beside: dict[Stage, Any] = {
        Stage.INPUTS: [
            _base_model(raw.get("baseModel")),
            corpus,
            evaluation.get("beir"),
            *_joined(_sets(evaluation.get("guards"))),
            *_joined(_of_the_model(stages.get("finetune") or {})),
        ],
        Stage.SDG: [corpus.get("minTextLength"), *other, *_joined(_of_pairs(stages))]
        if other
        else corpus.get("minTextLength"),
        Stage.PREP: [*other, (stages.get("finetune") or {}).get("negativesPerQuery")] if other else None,
        Stage.EVAL: [evaluation.get("kValues"), served_in, *_joined(gates.get("metrics"))],
        Stage.VERIFY: evaluation.get("kValues"),
    }
    return {stage: hash_of([_section(raw, stage), beside.get(stage)]) for stage in Stage}


def _joined(said: Any) -> list[Any]:
    """What a later release added counts where it is said: the hashes of what does not say it stay as they were."""
    return [said] if said else []


def _of_pairs(stages: Mapping[str, Any]) -> dict[str, str]:
    """What is said of prep by which a preset reckons how many pairs are written."""
    prep, sdg = (stages.get(stage.value) or {} for stage in (Stage.PREP, Stage.SDG))
    if presets.an_llm_asks(stages) or sdg.get("maxPairs"):
        return {}
    asked = {name: prep.get(name) for name in ("maxTrainingQuestions", "evalFraction")}
    return {name: str(value) for name, value in asked.items() if value is not None}


def _sets(guards: Any) -> list[Any]:
    """What the manifest says of its guards' sets: their limits change nothing that is read."""
    return [{key: value for key, value in guard.items() if key != "maxRegression"} for guard in guards or ()]


def _base_model(said: Any) -> Any:
    """What the manifest says of its base model: by whose certificates a hub is trusted, the same commit comes."""
    hub = mapping(mapping(mapping(said).get("source")).get("huggingFace"))
    if BUNDLE not in hub:
        return said
    plain = {key: value for key, value in hub.items() if key != BUNDLE}
    return {**said, "source": {**said["source"], "huggingFace": plain}}


def _of_the_model(finetune: Mapping[str, Any]) -> dict[str, Any]:
    """What training asks of the base model, which inputs looks at."""
    lora = finetune.get("lora")
    asked = {
        "matryoshka": finetune.get("matryoshka"),
        "lora": [(lora or {}).get("targets")] if lora is not None else [],
    }
    return {key: value for key, value in asked.items() if value}


def _section(raw: Mapping[str, Any], stage: Stage) -> dict[str, Any]:
    """What is said of a stage. A decimal is the same with and without its quotes."""
    section = (raw.get("stages") or {}).get(stage.value) or {}
    table = tables.OF_STAGE.get(stage)
    how = _HOW | (table.hows() if table is not None else frozenset())
    return _in_quotes({key: value for key, value in section.items() if key not in how}, table)


def _in_quotes(said: Mapping[str, Any], table: type[Table] | None) -> dict[str, Any]:
    """What a section says, with each decimal as a text; `table` knows which they are."""
    known = table.settings() if table is not None else {}
    found = dict(said)
    for name, value in said.items():
        item = known.get(name)
        if item is not None and item.table is not None and isinstance(value, Mapping):
            found[name] = _in_quotes(value, item.table)
        elif item is not None and item.kind is float:
            found[name] = _quoted(value)
    return found


def _quoted(value: Any) -> Any:
    """A number as people write it in quotes."""
    return spelled(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def hash_of(said: object) -> str:
    """Of a part of the manifest; short, because it is kept in the status."""
    return fingerprint_of(said)[:_HASH_CHARACTERS]


def carry(spec: Spec, status: Status, generation: int) -> Spec:
    """The spec with what earlier passes and revisions have settled; what nobody settled yet is settled now.

    Within a revision everything is kept. A new revision keeps the settings of each stage about which the manifest says
    the same as before, and every image and code version until the stage has to run (`decide/settle.py`).
    """
    known = mapping(status.resolved.get("stages"))
    same = status.revision == generation
    stages = {
        stage: _carried(stage, item, known.get(stage.value), generation, same=same)
        for stage, item in spec.stages.items()
    }
    return replace(spec, stages=stages)


def mapping(value: Any) -> Mapping[str, Any]:
    """A part of the status, or nothing where somebody made something else of it."""
    return value if isinstance(value, Mapping) else {}


def _carried(stage: Stage, item: StageSpec, record: Any, generation: int, *, same: bool) -> StageSpec:
    if not isinstance(record, Mapping) or not isinstance(record.get("settings"), Mapping):
        return replace(item, settled_in=generation)  # a new resource, or a status that somebody removed
    try:
        settled_in, code_version, image = int(record["settledIn"]), int(record["codeVersion"]), str(record["image"])
        settings = _restored(stage, item.settings, record["settings"])
    except (KeyError, TypeError, ValueError):
        return replace(item, settled_in=generation)
    # How a model is served is read anew in each pass, and its name may be the base model's.
    keeps_settings = stage is not Stage.DEPLOY and (same or record.get("asked") == item.asked)
    # The server's image is settled with what it serves; see decide/settle.py.
    keeps_image = stage is not Stage.DEPLOY and not item.pod.own_image and not record.get("ownImage")
    return replace(
        item,
        pod=replace(item.pod, image=image) if keeps_image and image != item.pod.image else item.pod,
        settings=settings if keeps_settings else item.settings,
        code_version=code_version,
        settled_in=settled_in,
    )


def _restored(stage: Stage, fresh: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as they were settled; JSON has one kind of number, so the table says again which is a decimal.

    A setting that the status lacks did not exist then: its stage goes on as before. What says how the work is done is
    as the manifest has it now. Raises SettingInvalid.
    """
    table = tables.OF_STAGE.get(stage)
    found = {key: _as_before(value, stored.get(key)) for key, value in fresh.items()}
    if table is None:
        return found
    return found | table.of(stored).to_json() | {name: fresh[name] for name in table.hows() if name in fresh}


def _as_before(fresh: Any, stored: Any) -> Any:
    if isinstance(fresh, Mapping) and isinstance(stored, Mapping):
        return {key: _as_before(value, stored.get(key)) for key, value in fresh.items()}
    return stored


def data_generation(spec: Spec, status: Status, generation: int) -> int:
    """The revision of the last edit that touched what `inputs` reads: it looks at the sources once for each."""
    record = status.resolved.get("data")
    if not isinstance(record, Mapping) or not isinstance(record.get("generation"), int):
        return generation
    unchanged = status.revision == generation or record.get("asked") == spec.stages[Stage.INPUTS].asked
    return int(record["generation"]) if unchanged else generation


def data_identity(data: Mapping[str, Any]) -> dict[str, Any]:
    """What else the work of `inputs` depends on, by `status.resolved.data`: which edit or look asked for it."""
    return {key: data[key] for key in ("generation", "look") if key in data}


def resolved(spec: Spec, status: Status, generation: int) -> dict[str, Any]:
    """`status.resolved`: what is in force, defaults included. The operator never writes the spec."""
    stages = {stage.value: shown(item) for stage, item in spec.stages.items()}
    stages["finetune"] |= spec.stages[Stage.FINETUNE].pod.workers.to_json()
    profile = spec.deploy.profile
    release = {"generation": profile.release} if profile.since else {}
    stages["deploy"] |= {"backend": spec.deploy.backend, **release, "strategy": spec.deploy.strategy}
    data: dict[str, Any] = {
        "generation": data_generation(spec, status, generation),
        "asked": spec.stages[Stage.INPUTS].asked,
    }
    known = mapping(status.resolved.get("data"))
    if known.get("look") and known.get("generation") == data["generation"]:
        data["look"] = known["look"]
    servers = mapping(status.resolved.get("servers"))
    found: dict[str, Any] = {"stages": stages, "data": data}
    beside = {
        SCALING: status.resolved.get(SCALING),
        TAKEN: status.resolved.get(TAKEN),
        "servers": dict(servers),
        SERVER_IMAGES: status.resolved.get(SERVER_IMAGES),
        LIMITS: spec.limits.to_json() if LIMITS in status.resolved or not status.at_rest else None,
        MEASURED: status.resolved.get(MEASURED),
        "retryToken": spec.retry_token or status.resolved.get("retryToken"),
    }
    return found | {key: value for key, value in beside.items() if value}


def asks_again(spec: Spec, status: Status) -> bool:
    """Whether the manifest has another retryToken than the last one that it had. Taking it away asks for nothing."""
    return spec.retry_token not in ("", status.resolved.get("retryToken"))


def shown(item: StageSpec) -> dict[str, Any]:
    """One stage of `status.resolved`: settings, image and code version, and what they were settled by."""
    return {
        "settings": dict(item.settings),
        "image": item.pod.image,
        "ownImage": item.pod.own_image,
        "codeVersion": item.code_version,
        "timeoutSeconds": item.pod.timeout_s,
        "settledIn": item.settled_in,
        "asked": item.asked,
    }
