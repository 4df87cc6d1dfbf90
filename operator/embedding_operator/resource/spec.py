"""From the manifest's `spec` to a `Spec`: defaults and settings of every stage. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from embedding_operator.resource.api import (
    Deploy,
    Guard,
    Source,
    Spec,
    SpecError,
    StageSpec,
    Storage,
    Tolerance,
    one_of,
    read,
)
from embedding_operator.resource.exports import check_export
from embedding_operator.resource.frozen import asked_of_stages, hash_of
from embedding_operator.resource.gates import parse_gates, parse_guards
from embedding_operator.resource.limits import Retention, RunLimits
from embedding_operator.resource.llm import Endpoint, parse_endpoint
from embedding_operator.resource.pods import (
    TIMEOUT_S,
    check_apart,
    check_shared,
    count_gpus,
    parse_accelerator,
    parse_pod,
    parse_profile,
    stage_resources,
)
from embedding_operator.resource.references import parse_secret, parse_source
from embedding_operator.resource.schedule import parse_schedule
from embedding_operator.resource.scheduling import parse_scheduling
from embedding_operator.resource.served import check_nim_service
from embedding_stages.contract import Stage
from embedding_stages.contract import settings as tables
from embedding_stages.contract.presets import RECIPE, scores_candidates, with_preset
from embedding_stages.contract.versions import CODE_VERSIONS

_ACCESS_MODES: Final = ("ReadWriteOnce", "ReadWriteMany")
_DESIGNER: Final = "dataDesigner"
_LLM_PROVIDERS: Final = ("openAI", _DESIGNER)
# Untrusted input: what one run may read at most. Not settable, so that no manifest can lift them.
LIMITS: Final = {"maxFiles": 100_000, "maxFileBytes": 10 << 20, "maxTotalBytes": 2 << 30, "maxDepth": 32}


def parse_spec(raw: Mapping[str, Any], images: Mapping[str, str]) -> Spec:
    """`images` are the operator's default images by stage, and TORCH_SERVER's. Raises SpecError."""
    stages = with_preset(raw.get("stages") or {})
    model = _object(raw, "baseModel")
    corpus = _object(raw, "corpus")
    documents = read(tables.Corpus, corpus)
    evaluation: Mapping[str, Any] = raw.get("evaluation") or {}
    model_source = parse_source(
        _object(model, "source", "spec.baseModel"), ("pvc", "image", "huggingFace"), "spec.baseModel.source"
    )
    corpus_source = parse_source(
        _object(corpus, "source", "spec.corpus"), ("pvc", "configMap", "image"), "spec.corpus.source"
    )
    labelled = None
    if evaluation.get("beir"):
        labelled = parse_source(evaluation["beir"], ("pvc", "image"), "spec.evaluation.beir")
    sdg, endpoint = _sdg(stages.get("sdg") or {}, documents.minTextLength)
    k_values = {"kValues": _k_values(evaluation)}
    guards = parse_guards(evaluation.get("guards") or ())
    gates = parse_gates(raw.get("gates") or {}, k_values["kValues"])
    accelerator = parse_accelerator(raw)
    deploy = _deploy(stages.get("deploy") or {}, str(model.get("name", "")), accelerator)
    settings: dict[Stage, Mapping[str, Any]] = {
        **{stage: _settings(stage, stages) for stage in tables.OF_STAGE},
        Stage.INPUTS: _inputs(model, model_source, documents, corpus_source, labelled, guards),
        Stage.SDG: sdg | {"qualityThreshold": _settings(Stage.PREP, stages)["qualityThreshold"]},
        Stage.PREP: _settings(Stage.PREP, stages) | {"scoreCandidates": scores_candidates(stages)},
        Stage.EVAL: _settings(Stage.EVAL, stages)
        | k_values
        | {"precision": deploy.precision, "gateMetrics": list(gates.metrics)},
        Stage.DEPLOY: _of_server(deploy),
        Stage.VERIFY: _settings(Stage.VERIFY, stages) | k_values,
    }
    settings[Stage.INPUTS] = {**settings[Stage.INPUTS], **_asked_of_the_model(settings[Stage.FINETUNE])}
    _check_negatives(settings)
    _check_side(settings, deploy)
    _check_in_batch(settings[Stage.FINETUNE])
    pods = {stage: parse_pod(stage, stages.get(stage.value) or {}, images, accelerator) for stage in Stage}
    own_server = bool((stages.get("deploy") or {}).get("image"))
    check_export(settings[Stage.EXPORT], pods[Stage.EXPORT], deploy, own_server=own_server)
    storage = _storage(raw.get("storage") or {})
    check_shared(storage, pods[Stage.FINETUNE].workers.nodes)
    check_apart(storage, corpus_source, model_source, labelled, *(guard.source for guard in guards))
    tolerance = read(tables.Tolerance, raw.get("tolerance"))
    policy = read(tables.RunPolicy, raw.get("runPolicy"))
    asked = asked_of_stages(raw, served_in=deploy.precision)
    return Spec(
        suspend=bool(raw.get("suspend", False)),
        retry_token=str(raw.get("retryToken") or ""),
        base_model=str(model.get("name", "")),
        model_source=model_source,
        corpus_source=corpus_source,
        labelled_source=labelled,
        guards=guards,
        labelled_asked=hash_of(evaluation.get("beir")),
        freeze=read(tables.Evaluation, evaluation).freeze,
        gates=gates,
        llm_keys=endpoint.keys if endpoint else {},
        llm_authorities=endpoint.authorities if endpoint else {},
        stages={
            stage: StageSpec(
                pod=pods[stage], settings=settings[stage], asked=asked[stage], code_version=CODE_VERSIONS[stage]
            )
            for stage in Stage
        },
        deploy=deploy,
        tolerance=Tolerance(
            at_one=tolerance.atOne, at_five_and_above=tolerance.atFiveAndAbove, min_cosine=tolerance.minCosine
        ),
        storage=storage,
        start_deadline_s=policy.startDeadlineSeconds,
        limits=RunLimits.of(policy, read(tables.Limits, raw.get("limits"))),
        retention=Retention.of(read(tables.Retention, raw.get("retention"))),
        canaries_every_s=read(tables.Verification, raw.get("verification")).intervalSeconds,
        schedule=parse_schedule(raw.get("schedule")),
        image_pull_secrets=tuple(str(item["name"]) for item in raw.get("imagePullSecrets") or ()),
        scheduling=parse_scheduling(raw.get("scheduling")),
    )


def _object(raw: Mapping[str, Any], key: str, parent: str = "spec") -> Mapping[str, Any]:
    value = raw.get(key)
    if not isinstance(value, Mapping):
        raise SpecError(f"{parent}.{key}", "is required")
    return value


def _inputs(
    model: Mapping[str, Any],
    model_source: Source,
    documents: tables.Corpus,
    corpus_source: Source,
    labelled: Source | None,
    guards: Sequence[Guard],
) -> dict[str, Any]:
    told = {
        guard.name: {"kind": guard.source.kind, "source": guard.source.name, "path": guard.source.path}
        for guard in guards
    }
    return {
        "baseModel": {
            "name": str(model.get("name", "")),
            "kind": model_source.kind,
            "source": model_source.name,
            "path": model_source.path,
            "revision": model_source.revision or None,
            "prefixes": dict(model["prefixes"]) if model.get("prefixes") else None,
            "maxTokens": read(tables.BaseModel, model).maxTokens,
        },
        "corpus": {
            "kind": corpus_source.kind,
            "source": corpus_source.name,
            "path": corpus_source.path,
            "include": list(documents.include),
            "minTextLength": documents.minTextLength,
            "limits": dict(LIMITS),
        },
        "labelledSet": None
        if labelled is None
        else {"kind": labelled.kind, "source": labelled.name, "path": labelled.path},
        **({"guards": told} if told else {}),
    }


def _asked_of_the_model(finetune: Mapping[str, Any]) -> dict[str, Any]:
    """What a base model may not be able to do in training: inputs looks, before finetune asks for a GPU."""
    asked = {"matryoshka": finetune["matryoshka"], "loraTargets": (finetune["lora"] or {}).get("targets")}
    said = {key: value for key, value in asked.items() if value}
    return {"training": said} if said else {}


def _settings(stage: Stage, stages: Mapping[str, Any]) -> dict[str, Any]:
    return read(tables.OF_STAGE[stage], stages.get(stage.value)).to_json()


def _sdg(raw: Mapping[str, Any], min_text_length: int) -> tuple[dict[str, Any], Endpoint | None]:
    field = "spec.stages.sdg.provider"
    provider: Mapping[str, Any] = raw.get("provider") or {}
    kind = one_of(provider, ("extractive", *_LLM_PROVIDERS), field)
    endpoint = parse_endpoint(provider[kind], f"{field}.{kind}") if kind in _LLM_PROVIDERS else None
    settings = read(tables.OF_STAGE[Stage.SDG], raw).to_json()
    # What is shorter than a higher limit is gone by then.
    shortest = min(settings["minTextLength"], min_text_length)
    told: dict[str, Any] = {"provider": kind, "openAI": None, "minTextLength": shortest}
    if endpoint is not None:
        told[kind] = dict(endpoint.settings)
    if kind == _DESIGNER:
        told["design"] = _design(provider[kind]).to_json()
    return settings | told, endpoint


def _design(raw: Mapping[str, Any]) -> tables.DataDesigner:
    design = read(tables.DataDesigner, raw)
    if design.types is not None and not sum(design.types.to_json().values()):
        raise SpecError(tables.QuestionTypes.FIELD, "all are 0, so nothing is asked for; raise one of them")
    return design


def _check_negatives(settings: Mapping[Stage, Mapping[str, Any]]) -> None:
    used, mined = settings[Stage.FINETUNE]["negativesPerQuery"], settings[Stage.PREP]["hardNegatives"]
    if used > mined:
        raise SpecError(
            "spec.stages.finetune.negativesPerQuery",
            f"{used} hard negatives a question cannot be used where {mined} are mined; lower it, or raise "
            "spec.stages.prep.hardNegatives",
        )


def _check_side(settings: Mapping[Stage, Mapping[str, Any]], deploy: Deploy) -> None:
    if settings[Stage.FINETUNE]["side"] != tables.QUERY_SIDE:
        return
    for name in ("lora", "validation", "inBatchNegatives"):
        if settings[Stage.FINETUNE][name]:
            raise SpecError(
                f"spec.stages.finetune.{name}",
                "with side query no weight of the model is trained, but a matrix; leave it out, or set side to both",
            )
    if not deploy.profile.maps_queries:
        raise SpecError(
            "spec.stages.finetune.side",
            f"a server of backend {deploy.backend} answers queries and passages by one model, it cannot serve one "
            "whose queries alone were trained; set it to both, or take backend onnx or torch in "
            "spec.stages.deploy.backend",
        )


def _check_in_batch(finetune: Mapping[str, Any]) -> None:
    if finetune["inBatchNegatives"] and finetune["preset"] != RECIPE:
        raise SpecError(
            "spec.stages.finetune.inBatchNegatives",
            f"preset {finetune['preset']} learns scores, and other questions' passages have none; set it to false, or "
            f"take preset {RECIPE}",
        )


def _k_values(evaluation: Mapping[str, Any]) -> list[int]:
    values = list(read(tables.Evaluation, evaluation).kValues)
    field = "spec.evaluation.kValues"
    if values != sorted(set(values)):
        raise SpecError(field, "must be positive, unique and in rising order, for example [1, 5, 10, 100]")
    if 10 not in values:
        raise SpecError(field, "must contain 10: NDCG@10 is the headline figure")
    return values


def _deploy(raw: Mapping[str, Any], base_model: str, accelerator: str) -> Deploy:
    field, asked = "spec.stages.deploy", read(tables.Deploy, raw)
    profile = parse_profile(raw)
    backend = profile.backend
    given: Mapping[str, Any] = (raw.get("backend") or {}).get(backend) or {}
    if profile.default_image is None and not raw.get("image"):
        raise SpecError(f"{field}.image", f"backend {backend} needs the server's image, with a tag or digest")
    ngc_key = (
        parse_secret(given["ngcKeySecretRef"], f"{field}.backend.{backend}.ngcKeySecretRef")
        if given.get("ngcKeySecretRef")
        else None
    )
    if profile.run_by == "NIMService":
        check_nim_service(str(raw["image"]), profile, ngc_key)
    wants_gpu = count_gpus(stage_resources(Stage.DEPLOY, raw, accelerator), field) > 0
    if wants_gpu and not profile.needs_gpu and not raw.get("image"):
        raise SpecError(
            f"{field}.resources.limits",
            f"the {backend} server of the default image computes on CPUs, a GPU would idle; remove the limit, "
            "or take backend torch, or name an image with onnxruntime-gpu",
        )
    # One GPU and one replica cannot hold two revisions side by side: waiting for a second GPU may be for ever.
    strategy = asked.strategy or ("Recreate" if wants_gpu else "BlueGreen")
    return Deploy(
        profile=profile,
        precision=profile.precision(gpu=wants_gpu),
        model_name=asked.modelName or base_model,
        replicas=asked.replicas,
        strategy=strategy,
        acknowledged=asked.acknowledgedVectorSpace,
        drain_s=asked.drainSeconds,
        pinned=asked.pinRevision,
        ngc_key=ngc_key,
        shared_memory=str(given.get("sharedMemory", "2Gi")),
        start_timeout_s=read(tables.Run, raw, field).timeoutSeconds or TIMEOUT_S[Stage.DEPLOY],
    )


def _of_server(deploy: Deploy) -> dict[str, Any]:
    """As `status.resolved` shows it; without replicas that somebody else decides about."""
    return {**({"replicas": deploy.replicas} if deploy.replicas else {}), "modelName": deploy.model_name}


def _storage(raw: Mapping[str, Any]) -> Storage:
    existing = str(raw.get("existingClaim", ""))
    if existing and raw.get("size"):
        raise SpecError("spec.storage", "give either existingClaim or size, not both")
    modes = tuple(raw.get("accessModes") or ("ReadWriteOnce",))
    for mode in modes:
        if mode not in _ACCESS_MODES:
            raise SpecError(
                "spec.storage.accessModes",
                f"{mode} is none of {', '.join(_ACCESS_MODES)}: the server and the stage that measures it mount the "
                "workspace at the same time; make a new resource",
            )
    return Storage(
        size=str(raw.get("size", "50Gi")),
        storage_class=raw.get("storageClassName"),
        access_modes=modes,
        existing_claim=existing,
    )
