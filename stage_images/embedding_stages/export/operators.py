"""Whether TensorRT can read a graph, by its published matrix of ONNX operators; needs neither a GPU nor TensorRT.

The rows are of docs/operators.md of onnx/onnx-tensorrt, branch 10.1-GA, for the operators that the families' graphs
use: the types of a node's data, and what has to be constant. Later releases of TensorRT 10 have added to it and taken
nothing away. `Less` of int64 and the like are in it; what an engine makes of a graph it cannot say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import onnx
from onnx import TensorProto

_REAL: Final = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16})
_NUMBER: Final = _REAL | {TensorProto.INT32, TensorProto.INT64}
_ANY: Final = _NUMBER | {TensorProto.BOOL}
_SHORT: Final = frozenset({TensorProto.INT8, TensorProto.FLOAT8E4M3FN})
HIGHEST_OPSET: Final = 20


@dataclass(frozen=True, slots=True)
class Rule:
    """A row of the matrix: types of the first input, or of the output where a node has none."""

    types: frozenset[int]
    constant: tuple[int, ...] = ()  # inputs that must be initializers, where they are given
    outputs: int | None = None  # so many outputs at most
    zero: int | None = None  # an input that must hold zeros alone


_AXES: Final = Rule(_NUMBER, constant=(1,))
RULES: Final[Mapping[str, Rule]] = {
    **dict.fromkeys(("Abs", "Add", "Div", "Less", "Max", "Min", "Mul", "Neg", "Range", "Sub"), Rule(_NUMBER)),
    **dict.fromkeys(("Cos", "Erf", "Floor", "Log", "MatMul", "Sigmoid", "Sin", "Softmax", "Sqrt", "Tanh"), Rule(_REAL)),
    **dict.fromkeys(("ReduceL2", "ReduceMax", "ReduceMean", "ReduceSum"), _AXES),
    **dict.fromkeys(
        ("Cast", "Concat", "Constant", "Gather", "GatherND", "Identity", "Reshape", "Shape", "Transpose"), Rule(_ANY)
    ),
    "DequantizeLinear": Rule(_SHORT, zero=2),
    "LayerNormalization": Rule(_REAL, outputs=1),
    "QuantizeLinear": Rule(_REAL, zero=2),
    "Slice": Rule(_ANY, constant=(3,)),
    "Squeeze": Rule(_ANY, constant=(1,)),
    "Unsqueeze": Rule(_ANY, constant=(1,)),
}


def faults_of(model: Any) -> list[str]:
    """What of an onnx.ModelProto the matrix does not have, one text each; weights may lie beside the file."""
    found = [
        f"opset {item.version} is above {HIGHEST_OPSET}"
        for item in model.opset_import
        if item.domain in ("", "ai.onnx") and item.version > HIGHEST_OPSET
    ]
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    types = {item.name: item.data_type for item in inferred.initializer}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        types[value.name] = value.type.tensor_type.elem_type
    constants = {item.name: item for item in inferred.initializer}
    constants |= {node.output[0]: node.attribute[0].t for node in inferred.node if node.op_type == "Constant"}
    for node in inferred.node:
        found.extend(
            f"{node.name or node.output[0]} ({node.op_type}): {fault}" for fault in _node(node, types, constants)
        )
    return found


def _node(node: Any, types: Mapping[str, int], constants: Mapping[str, Any]) -> Iterator[str]:
    rule = RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    if rule is None:
        yield "the operator is not supported"
        return
    name = node.input[0] if node.input else node.output[0]
    kind = types.get(name)
    if kind is None:
        yield f"the type of {name} is not known"
    elif kind not in rule.types:
        yield f"{TensorProto.DataType.Name(kind)} is not supported"
    for place in rule.constant:
        if place < len(node.input) and node.input[place] and node.input[place] not in constants:
            yield f"input {place} must be an initializer"
    if rule.outputs is not None and sum(map(bool, node.output)) > rule.outputs:
        yield f"only the first {rule.outputs} of its outputs is supported"
    if rule.zero is not None and len(node.input) > rule.zero:
        point = constants.get(node.input[rule.zero])
        if point is None or any(onnx.numpy_helper.to_array(point).astype("float32").ravel()):
            yield "its zero point must be zero"
