"""One candidate written: a model folder, and where it can be judged on a machine without a GPU."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from embedding_stages.encoder.description import QUERY_MAP_FILE
from embedding_stages.encoder.model import PaddedEncoder
from embedding_stages.encoder.publish import copy_tokenizer
from embedding_stages.errors import BadInput
from embedding_stages.export.build import build_onnx
from embedding_stages.export.calibration import Feed
from embedding_stages.export.graph import OPSET, OPSET_QUANTIZED, Precision, Product
from embedding_stages.export.quantize import quantizable, quantize_graph
from embedding_stages.export.rounded import write_rounded
from embedding_stages.export.verdict import Candidate

MODEL: Final = "model.onnx"
_TORCH_NAMES: Final = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a candidate."""

    candidate: Candidate
    judged: Path  # the folder whose model.onnx ONNX Runtime computes on a CPU
    opset: int
    products: int  # with weights of the model
    quantized: int  # of these


def write_candidate(
    candidate: Candidate,
    encoder: PaddedEncoder,
    checkpoint: Path,
    folder: Path,
    scratch: Path,
    calibration: Callable[[], Sequence[Feed]],
) -> Written:
    """Write `folder` in the place of an earlier candidate. `scratch` is emptied.

    Raises BadInput `SettingInvalid` for what cannot be calibrated.
    """
    for place in (folder, scratch):
        _empty(place)
    _dress(folder, encoder, checkpoint, candidate.precision)
    if candidate.quantization == "none":
        opset, done = OPSET, 0
        products = build_onnx(encoder, folder / MODEL, candidate.precision)
    else:
        opset = OPSET_QUANTIZED
        products, done = _quantized(candidate, encoder, folder, scratch, calibration)
    judged = folder
    if candidate.precision != "fp32":  # ONNX Runtime computes neither on a CPU: bf16 not at all, fp16 in float32
        judged = scratch
        _empty(judged)
        _dress(judged, encoder, checkpoint, candidate.precision)
        write_rounded(folder / MODEL, judged / MODEL)
    return Written(candidate, judged, opset, len(products), done)


def _quantized(
    candidate: Candidate, encoder: PaddedEncoder, folder: Path, scratch: Path, calibration: Callable[[], Sequence[Feed]]
) -> tuple[list[Product], int]:
    """Write the graph; (its products with weights, how many of them are quantized)."""
    if candidate.precision == "bf16":
        raise BadInput(
            "SettingInvalid",
            f"{candidate.quantization} cannot be calibrated in bf16, which ONNX Runtime does not compute on a CPU; set "
            "it to fp16 or fp32",
            field="spec.stages.export.precision",
        )
    products = build_onnx(encoder, scratch / MODEL, candidate.precision, opset=OPSET_QUANTIZED)
    inner_size: int = encoder.module.config.intermediate_size  # type: ignore[union-attr, assignment]
    chosen = quantizable(products, candidate.quantization, inner_size)
    return products, quantize_graph(scratch / MODEL, folder / MODEL, candidate.quantization, chosen, calibration())


def _empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def _dress(folder: Path, encoder: PaddedEncoder, checkpoint: Path, precision: Precision) -> None:
    """All of a model folder but the graph."""
    copy_tokenizer(checkpoint, folder)
    encoder.description.save(folder)
    if encoder.query_map is not None:  # the graph knows no role: the server applies it to what the graph answers
        shutil.copyfile(checkpoint / QUERY_MAP_FILE, folder / QUERY_MAP_FILE)
    config = json.loads((checkpoint / "config.json").read_bytes())
    config.pop("auto_map", None)
    config["torch_dtype"] = _TORCH_NAMES[precision]
    (folder / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
