"""What stages do, in digests: an artefact is a function of what its stage was asked for, so that whether the right
work was done and reused can be read off it.
"""

from __future__ import annotations

import json
from typing import Any

from embedding_operator.resource.pipeline import BY_STAGE
from embedding_stages.contract import (
    Artefact,
    ArtefactRef,
    ExitCode,
    Stage,
    StageRequest,
    StageResult,
    fingerprint_of,
)

BASE = {"ndcg@1": 0.4, "ndcg@10": 0.5, "recall@10": 0.6, "map@10": 0.4567891}
TUNED = {"ndcg@1": 0.5123456, "ndcg@10": 0.6, "recall@10": 0.7000049, "map@10": 0.55}
QUERIES = 100
GATED = ("ndcg@10", "recall@10")
# encoder.json of the base model, as the inputs stage tells it
ENCODER = {
    "architecture": "bert",
    "prefixes": {"query": "query: ", "passage": "passage: "},
    "max_tokens": 512,
    "hidden_size": 384,
    "dimensions": [384],
    "pooling": "mean",
    "normalized": True,
}


def do_work(
    request: StageRequest,
    volume: dict[str, str],
    corpus: str,
    offset: float,
    changed: int,
    quality: float = 1.0,
    cosine: float | None = 1.0,
    base_quality: float = 1.0,
) -> tuple[int, StageResult]:
    """Exit code and result; writes to `volume`, path by path, the digest of what lies there.

    `quality` and `base_quality` are what the metrics of tuned and base model are multiplied by, `offset` what the
    endpoint's differ by, `cosine` how like its vectors are.
    """
    tuned = {name: value * quality for name, value in TUNED.items()}
    base = {name: value * base_quality for name, value in BASE.items()}
    for ref in request.inputs.values():
        if volume[ref.path] != ref.digest:
            return ExitCode.STOPPED, _said(request, reason="ArtefactMismatch", message=f"{ref.path} was changed")
    guards = (Artefact.GUARD_SETS,) if request.settings.get("guards") else ()
    labelled = (Artefact.LABELLED_SET,) if request.settings.get("labelledSet") else ()
    refs = {name: _artefact(request, name, corpus) for name in (*BY_STAGE[request.stage].outputs, *guards, *labelled)}
    if guards:  # so that eval can say what it measured
        volume |= {f"guards of {refs[Artefact.GUARD_SETS].digest}": ",".join(request.settings["guards"])}
    volume |= {ref.path: ref.digest for ref in refs.values()}
    metrics: dict[str, dict[str, float]] = {}
    counts: dict[str, int] = {"items": 1}
    details: dict[str, Any] = {}
    if request.stage is Stage.INPUTS:
        details = {"encoder": ENCODER}
    if request.stage is Stage.EVAL:
        metrics, counts = {"base": base, "fineTuned": tuned}, {"queries": QUERIES}
        uplift = tuned["ndcg@10"] / base["ndcg@10"] - 1 if base_quality else None
        details = {
            "relativeUplift": uplift,
            "precision": request.settings["precision"],
            **_compared(request, base, tuned, volume),
        }
    if request.stage is Stage.FINETUNE and (side := request.settings.get("side", "both")) != "both":
        details = {"side": side}
    if request.stage is Stage.EXPORT:
        said = request.settings.get("quantization", "none")
        quantized = {"quantization": said} if said != "none" else {}
        details = {"contract": {"precision": "fp32", "opset": 17, **quantized}}
        if request.settings.get("minCosine") == 1.0:  # no quantized graph is that near
            message = "int8 with fp32 was left, fp32 was built instead: smallest cosine 0.97"
            said = details | {"warnings": [message]}
            return 0, _said(
                request, reason="ParityFellBack", message=message, artefacts=refs, counts=counts, details=said
            )
    if request.stage is Stage.SDG:
        counts = {"chunks": 2000}
    if request.stage is Stage.VERIFY:
        metrics = {"served": {name: value + offset for name, value in tuned.items()}}
        counts = {"queries": QUERIES, "changedQueries": changed, "invalidVectors": 0}
        details = {
            "artefactDigest": request.inputs[Artefact.SERVING_MODEL].digest,
            **({} if cosine is None else {"canaryCosine": cosine}),
            "rate": {"passagesPerSecond": 50.0, "tokensPerPassage": 100.0, "tokensPerSecond": 5000.0},
        }
    return 0, _said(request, artefacts=refs, metrics=metrics, counts=counts, details=details)


def _compared(
    request: StageRequest, base: dict[str, float], tuned: dict[str, float], volume: dict[str, str]
) -> dict[str, Any]:
    """What the model that serves measured before is not known here: it is taken for as good as a tuned one can be."""
    active = request.inputs.get(Artefact.ACTIVE_CHECKPOINT)
    beside = {"base": base} | ({"active": TUNED} if active is not None else {})
    comparisons: dict[str, dict[str, Any]] = {
        name: {metric: [scores[metric], tuned[metric], tuned[metric] - scores[metric] - 0.03, 0.03] for metric in GATED}
        for name, scores in beside.items()
    }
    if guards := request.inputs.get(Artefact.GUARD_SETS):
        for name in volume[f"guards of {guards.digest}"].split(","):
            comparisons[f"guard:{name}"] = {"ndcg@10": [base["ndcg@10"], tuned["ndcg@10"], 0.0, 0.03], "queries": 30}
    return {
        "comparisons": comparisons,
        "activeCheckpoint": active.digest if active is not None else None,
        "evaluationSet": request.inputs[Artefact.EVALUATION_SET].digest,
    }


def _artefact(request: StageRequest, name: Artefact, corpus: str) -> ArtefactRef:
    if request.stage is Stage.INPUTS:  # content-addressed: the same documents lie at the same path
        source = {Artefact.CORPUS: "corpus", Artefact.GUARD_SETS: "guards", Artefact.LABELLED_SET: "labelledSet"}.get(
            name, "baseModel"
        )
        content = corpus if source == "corpus" else "weights"
        digest = _digest({"source": request.settings[source], "content": content})
        return ArtefactRef(path=f"inputs/content/{digest[7:]}", digest=digest)
    if name is Artefact.EVALUATION_SET and (frozen := request.inputs.get(Artefact.FROZEN_SET)) is not None:
        return ArtefactRef(path=f"{request.stage}/{request.fingerprint}/{name}", digest=frozen.digest)
    digest = _digest(
        {
            "settings": dict(request.settings),
            "image": request.image,
            "inputs": {key.value: ref.digest for key, ref in request.inputs.items()},
            "name": name,
        }
    )
    return ArtefactRef(path=f"{request.stage}/{request.fingerprint}/{name}", digest=digest)


def _digest(made_of: dict[str, Any]) -> str:
    return f"sha256:{fingerprint_of(json.loads(json.dumps(made_of)))}"


def _said(request: StageRequest, **fields: Any) -> StageResult:
    return StageResult(stage=request.stage, fingerprint=request.fingerprint, **fields)
