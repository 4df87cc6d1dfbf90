"""The export stage: checkpoint (and evaluationSet, when given, for parity texts) in, servingModel out.

Metrics: parity.minCosine, parity.maxAbsDiff. Details: contract, what a client of the served model must know.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from embedding_stages.contract import Artefact, StageResult
from embedding_stages.contract.settings import Export
from embedding_stages.encoder.description import QUERY_MAP_FILE, ROLES, EncoderDescription
from embedding_stages.encoder.model import PaddedEncoder
from embedding_stages.encoder.publish import copy_tokenizer
from embedding_stages.errors import Stopped, settings_of
from embedding_stages.export.build import build_onnx
from embedding_stages.export.graph import OPSET, Precision
from embedding_stages.export.parity import OnnxEncoder, Parity, measure_parity, sample_texts
from embedding_stages.runner import StageContext

_FIELD = "spec.stages.export"
_MIN_COSINE: Mapping[Precision, float] = {"fp32": 0.9999, "fp16": 0.999}
_STEPS = 3


def work(context: StageContext) -> StageResult:
    """Export, then gate on parity with the checkpoint."""
    precision = _precision(context.settings)
    checkpoint = context.input(Artefact.CHECKPOINT)
    encoder = PaddedEncoder.load(checkpoint, device="cpu", dtype=torch.float32)
    folder = context.folder(Artefact.SERVING_MODEL)
    build_onnx(encoder, folder / "model.onnx", precision)
    copy_tokenizer(checkpoint, folder)
    encoder.description.save(folder)
    if encoder.query_map is not None:  # the graph knows no role: the server applies it to what the graph answers
        shutil.copyfile(checkpoint / QUERY_MAP_FILE, folder / QUERY_MAP_FILE)
    _save_config(checkpoint, folder, precision)
    context.progress(1, _STEPS)
    context.stop_if_asked()

    texts = sample_texts(
        context.input(Artefact.EVALUATION_SET) if context.has_input(Artefact.EVALUATION_SET) else None,
        encoder.description,
    )
    exported = OnnxEncoder(folder)
    context.progress(2, _STEPS)
    parity = measure_parity(encoder, exported, texts)
    context.log("parity", minCosine=parity.min_cosine, maxAbsDiff=parity.max_abs_diff, texts=parity.texts)
    _gate(parity, precision)
    context.progress(3, _STEPS)
    return context.result(
        metrics={"parity": {"minCosine": parity.min_cosine, "maxAbsDiff": parity.max_abs_diff}},
        counts={"parityTexts": parity.texts},
        details={"contract": serving_contract(encoder.description, precision)},
    )


def serving_contract(description: EncoderDescription, precision: Precision) -> dict[str, Any]:
    """What clients of the served model must know; copied to status.served.contract."""
    return {
        "path": "/v1/embeddings",
        "inputTypes": list(ROLES),
        "prefixes": dict(description.prefixes),
        "dimensions": list(description.dimensions),
        "normalized": description.normalized,
        "maxTokens": description.max_tokens,
        "precision": precision,
        "opset": OPSET,
    }


def _precision(raw: Mapping[str, Any]) -> Precision:
    chosen: Any = settings_of(Export, raw).precision
    precision: Precision = chosen
    return precision


def _gate(parity: Parity, precision: Precision) -> None:
    """Raises Stopped `ParityFailed` with the field whose change helps."""
    if parity.min_cosine >= _MIN_COSINE[precision]:
        return
    cure, field = "set it to fp32", f"{_FIELD}.precision"
    if precision == "fp32":
        cure = "serve the checkpoint itself (backend torch), and report the base model to this project"
        field = "spec.stages.deploy.backend"
    raise Stopped(
        "ParityFailed",
        f"the exported model differs from the checkpoint: smallest cosine {parity.min_cosine:.6f} over "
        f"{parity.texts} texts, {_MIN_COSINE[precision]} wanted in {precision}; {cure}",
        field=field,
    )


def _save_config(checkpoint: Path, folder: Path, precision: Precision) -> None:
    config = json.loads((checkpoint / "config.json").read_bytes())
    config.pop("auto_map", None)
    config["torch_dtype"] = {"fp32": "float32", "fp16": "float16"}[precision]
    (folder / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
