"""From a graph to one whose products with weights take int8 or float8 numbers, by NVIDIA's ModelOpt.

ModelOpt puts a pair of QuantizeLinear and DequantizeLinear before both inputs of a product. Scales of weights are by
output, those of inputs by tensor: the largest number that the calibration saw is the end of the range. The weights
are then kept as int8 or float8, so the file is smaller too. All else stays as `export.graph` wrote it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnxruntime.quantization.calibrate import CalibrationDataReader

from embedding_stages.export.calibration import Feed
from embedding_stages.export.graph import Product
from embedding_stages.export.verdict import Quantization

# Numbers between the widening and the narrowing product of a feed-forward block have outliers, a few of them a hundred
# times as large as the rest: 256 even steps leave nothing of the rest, float8's uneven ones do.
_TAKES_OUTLIERS: Final[Mapping[Quantization, bool]] = {"int8": False, "fp8": True}


def quantizable(products: Sequence[Product], kind: Quantization, inner_size: int) -> list[Product]:
    """Those of the graph's products with weights that are quantized; `inner_size` is a feed-forward block's inside."""
    return [item for item in products if _TAKES_OUTLIERS[kind] or item.takes != inner_size or item.takes <= item.gives]


def quantize_graph(
    source: Path, target: Path, kind: Quantization, products: Sequence[Product], batches: Sequence[Feed]
) -> int:
    """Write `target`, and weights beside it where `source` has such; returns how many products are quantized.

    `batches` are inputs of the graph. Temporary copies of the model lie beside `source`.
    """
    from modelopt.onnx.quantization import quantize  # seconds, and only here

    names = [item.node for item in products]
    with _temporary_files(source.parent):
        quantize(
            str(source),
            quantize_mode=kind,
            calibration_data_reader=_Batches(batches),
            calibration_method="max",
            calibration_eps=["cpu"],
            nodes_to_quantize=names,
            use_external_data_format=source.with_name(source.name + ".data").exists(),
            high_precision_dtype="fp32",  # what it would change beside: the graph's own numbers stay
            mha_accumulation_dtype="fp32",
            disable_mha_qdq=True,
            passes=[],
            dq_only=True,
            enable_gemv_detection_for_trt=False,  # it would look for products of one row in a graph of any batch
            output_path=str(target),
            log_level="ERROR",
        )
    return len(set(names) & set(_with_quantized_weights(target)))


def _with_quantized_weights(path: Path) -> Iterator[str]:
    """Names of the products in a file that read a dequantized weight."""
    graph = onnx.load(str(path), load_external_data=False).graph
    constants = {item.name for item in graph.initializer}
    makers = {node.output[0]: node for node in graph.node}
    for node in graph.node:
        weight = makers.get(node.input[1]) if node.op_type == "MatMul" else None
        while weight is not None and weight.op_type == "Cast":
            weight = makers.get(weight.input[0])
        if weight is not None and weight.op_type == "DequantizeLinear" and weight.input[0] in constants:
            yield node.name


class _Batches(CalibrationDataReader):  # type: ignore[misc]  # ONNX Runtime ships no types
    def __init__(self, batches: Sequence[Feed]) -> None:
        self._batches = list(batches)
        self.rewind()

    def rewind(self) -> None:
        """Begin anew: ModelOpt reads the batches several times."""
        self._rest: Iterator[Feed] = iter(self._batches)

    def get_next(self) -> Mapping[str, np.ndarray[Any, Any]] | None:
        """The next batch, None behind the last."""
        return next(self._rest, None)

    def get_first(self) -> Mapping[str, np.ndarray[Any, Any]]:
        """The first batch."""
        return self._batches[0]


@contextmanager
def _temporary_files(folder: Path) -> Iterator[None]:
    """Python's temporary files lie in `folder`: a model is larger than what a pod has in /tmp."""
    before = tempfile.tempdir
    tempfile.tempdir = str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before
