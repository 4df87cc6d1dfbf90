"""From the manifest's `spec` to a `Spec`: defaults and settings of every stage. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from embedding_operator.resource.api import (
    Deploy,
    SecretRef,
    Source,
    Spec,
    SpecError,
    StageSpec,
    Storage,
    Tolerance,
    decimal,
    integer,
    one_of,
    parse_secret,
    parse_source,
)
from embedding_operator.resource.pods import (
    TIMEOUT_S,
    check_apart,
    check_shared,
    count_gpus,
    parse_pod,
    parse_profile,
    stage_resources,
)
from embedding_stages.contract import Stage

DEFAULT_INCLUDE: Final = ("**/*.txt", "**/*.md", "**/*.text", "**/+([!.])")  # NVIDIA embed recipe
_MIN_TEXT_LENGTH: Final = 50
_ACCESS_MODES: Final = ("ReadWriteOnce", "ReadWriteMany")
# Untrusted input: what one run may read at most. Not settable, so that no manifest can lift them.
LIMITS: Final = {"maxFiles": 100_000, "maxFileBytes": 10 << 20, "maxTotalBytes": 2 << 30, "maxDepth": 32}


def parse_spec(raw: Mapping[str, Any], images: Mapping[str, str]) -> Spec:
    """`images` are the operator's default images by stage, and TORCH_SERVER's. Raises SpecError."""
    stages: Mapping[str, Any] = raw.get("stages") or {}
    model = _object(raw, "baseModel")
    corpus = _object(raw, "corpus")
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
    sdg, llm_key = _sdg(stages.get("sdg") or {}, _min_text_length(corpus))
    k_values = _k_values(evaluation)
    deploy = _deploy(stages.get("deploy") or {}, str(model.get("name", "")))
    settings: dict[Stage, Mapping[str, Any]] = {
        Stage.INPUTS: _inputs(model, model_source, corpus, corpus_source, labelled),
        Stage.SDG: sdg,
        Stage.PREP: _prep(stages.get("prep") or {}),
        Stage.FINETUNE: _finetune(stages.get("finetune") or {}),
        Stage.EVAL: {"kValues": k_values, "batchSize": _batch_size(stages.get("eval") or {}, "spec.stages.eval")},
        Stage.EXPORT: {"precision": str((stages.get("export") or {}).get("precision", "fp32")), "opset": 17},
        Stage.DEPLOY: {"replicas": deploy.replicas, "modelName": deploy.model_name},
        Stage.VERIFY: {"kValues": k_values, "batchSize": 32, "timeoutSeconds": 60},
    }
    pods = {stage: parse_pod(stage, stages.get(stage.value) or {}, images) for stage in Stage}
    storage = _storage(raw.get("storage") or {})
    check_shared(storage, pods[Stage.FINETUNE].workers.nodes)
    check_apart(storage, corpus_source, model_source, labelled)
    tolerance: Mapping[str, Any] = raw.get("tolerance") or {}
    return Spec(
        suspend=bool(raw.get("suspend", False)),
        base_model=str(model.get("name", "")),
        model_source=model_source,
        corpus_source=corpus_source,
        labelled_source=labelled,
        llm_key=llm_key,
        stages={stage: StageSpec(pod=pods[stage], settings=settings[stage]) for stage in Stage},
        deploy=deploy,
        tolerance=Tolerance(
            at_one=decimal(tolerance, "atOne", "0.03", "spec.tolerance", 0, 1),
            at_five_and_above=decimal(tolerance, "atFiveAndAbove", "0.01", "spec.tolerance", 0, 1),
        ),
        storage=storage,
        start_deadline_s=integer(raw.get("runPolicy") or {}, "startDeadlineSeconds", 1800, "spec.runPolicy"),
        image_pull_secrets=tuple(str(item["name"]) for item in raw.get("imagePullSecrets") or ()),
    )


def _object(raw: Mapping[str, Any], key: str, parent: str = "spec") -> Mapping[str, Any]:
    value = raw.get(key)
    if not isinstance(value, Mapping):
        raise SpecError(f"{parent}.{key}", "is required")
    return value


def _inputs(
    model: Mapping[str, Any],
    model_source: Source,
    corpus: Mapping[str, Any],
    corpus_source: Source,
    labelled: Source | None,
) -> dict[str, Any]:
    return {
        "baseModel": {
            "name": str(model.get("name", "")),
            "kind": model_source.kind,
            "source": model_source.name,
            "path": model_source.path,
            "revision": model_source.revision or None,
            "prefixes": dict(model["prefixes"]) if model.get("prefixes") else None,
            "maxTokens": model.get("maxTokens"),
        },
        "corpus": {
            "kind": corpus_source.kind,
            "source": corpus_source.name,
            "path": corpus_source.path,
            "include": list(corpus.get("include") or DEFAULT_INCLUDE),
            "minTextLength": _min_text_length(corpus),
            "limits": dict(LIMITS),
        },
        "labelledSet": None
        if labelled is None
        else {"kind": labelled.kind, "source": labelled.name, "path": labelled.path},
    }


def _min_text_length(corpus: Mapping[str, Any]) -> int:
    return integer(corpus, "minTextLength", _MIN_TEXT_LENGTH, "spec.corpus")


def _sdg(raw: Mapping[str, Any], min_text_length: int) -> tuple[dict[str, Any], SecretRef | None]:
    field = "spec.stages.sdg.provider"
    provider: Mapping[str, Any] = raw.get("provider") or {}
    kind = one_of(provider, ("extractive", "openAI"), field)
    endpoint = None
    key = None
    if kind == "openAI":
        body = provider["openAI"]
        if not str(body.get("baseURL", "")).startswith(("http://", "https://")):
            raise SpecError(f"{field}.openAI.baseURL", "must start with http:// or https://")
        endpoint = {"baseURL": str(body["baseURL"]), "model": str(body.get("model", ""))}
        if body.get("apiKeySecretRef"):
            key = parse_secret(body["apiKeySecretRef"], f"{field}.openAI.apiKeySecretRef")
    settings = {
        "provider": kind,
        "openAI": endpoint,
        "pairsPerDocument": integer(raw, "pairsPerDocument", 7, "spec.stages.sdg"),
        "sentencesPerChunk": integer(raw, "sentencesPerChunk", 5, "spec.stages.sdg"),
        # What is shorter than a higher limit is gone by then.
        "minTextLength": min(_MIN_TEXT_LENGTH, min_text_length),
        "seed": integer(raw, "seed", 42, "spec.stages.sdg", low=0),
    }
    return settings, key


def _prep(raw: Mapping[str, Any]) -> dict[str, Any]:
    field = "spec.stages.prep"
    return {
        "qualityThreshold": decimal(raw, "qualityThreshold", "7.0", field, 0, 10),
        "evalFraction": decimal(raw, "evalFraction", "0.2", field, 0.01, 0.9),
        "margin": decimal(raw, "margin", "0.95", field, 0.01, 1),
        "hardNegatives": integer(raw, "hardNegatives", 5, field),
        "maxPositives": 5,
        "batchSize": _batch_size(raw, field),
        "seed": integer(raw, "seed", 42, field, low=0),
    }


def _batch_size(raw: Mapping[str, Any], field: str) -> int:
    return integer(raw, "batchSize", 128, field)


def _finetune(raw: Mapping[str, Any]) -> dict[str, Any]:
    field = "spec.stages.finetune"
    return {
        "epochs": integer(raw, "epochs", 3, field),
        "globalBatchSize": integer(raw, "globalBatchSize", 128, field),
        "microBatchSize": integer(raw, "microBatchSize", 4, field),
        "learningRate": decimal(raw, "learningRate", "1e-5", field, 1e-9, 1),
        "weightDecay": decimal(raw, "weightDecay", "0.01", field, 0, 1),
        "warmupSteps": integer(raw, "warmupSteps", 5, field, low=0),
        "temperature": decimal(raw, "temperature", "0.02", field, 1e-4, 10),
        "negativesPerQuery": integer(raw, "negativesPerQuery", 4, field),
        "checkpointEverySteps": integer(raw, "checkpointEverySteps", 100, field),
        "seed": integer(raw, "seed", 42, field, low=0),
    }


def _k_values(evaluation: Mapping[str, Any]) -> list[int]:
    values = list(evaluation.get("kValues") or (1, 5, 10, 100))
    field = "spec.evaluation.kValues"
    if not all(isinstance(k, int) and k > 0 for k in values) or values != sorted(set(values)):
        raise SpecError(field, "must be positive, unique and in rising order, for example [1, 5, 10, 100]")
    if 10 not in values:
        raise SpecError(field, "must contain 10: NDCG@10 is the headline figure")
    return values


def _deploy(raw: Mapping[str, Any], base_model: str) -> Deploy:
    field = "spec.stages.deploy"
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
    replicas = integer(raw, "replicas", 1, field)
    wants_gpu = count_gpus(stage_resources(Stage.DEPLOY, raw), field) > 0
    if wants_gpu and not profile.needs_gpu and not raw.get("image"):
        raise SpecError(
            f"{field}.resources.limits",
            f"the {backend} server of the default image computes on CPUs, a GPU would idle; remove the limit, "
            "or take backend torch, or name an image with onnxruntime-gpu",
        )
    # One GPU and one replica cannot hold two revisions side by side: waiting for a second GPU may be for ever.
    strategy = str(raw.get("strategy") or ("Recreate" if wants_gpu else "BlueGreen"))
    if strategy not in ("Recreate", "BlueGreen"):
        raise SpecError(f"{field}.strategy", f"{strategy!r} is neither Recreate nor BlueGreen")
    return Deploy(
        profile=profile,
        precision=profile.precision(gpu=wants_gpu),
        model_name=str(raw.get("modelName") or base_model),
        replicas=replicas,
        strategy=strategy,
        ngc_key=ngc_key,
        shared_memory=str(given.get("sharedMemory", "2Gi")),
        start_timeout_s=integer(raw, "timeoutSeconds", TIMEOUT_S[Stage.DEPLOY], field),
    )


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
