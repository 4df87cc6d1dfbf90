"""A graph's twin in float32 alone: the same nodes, each result rounded to the type that it has in the graph.

A number that is too large for float16 is infinite in the twin. Products are rounded once, after a sum in float32, as
tensor cores do. ONNX Runtime on a CPU has no bfloat16 products and computes float16 in float32, without overflows.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import onnx
from onnx import TensorProto, helper

_SHORT: Final = frozenset({TensorProto.FLOAT16, TensorProto.BFLOAT16})
# Their results need no rounding: each number of them is one that they were given, or its negative.
_EXACT: Final = frozenset(
    {"Concat", "Gather", "Identity", "Max", "Neg", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"}
)
_TYPED: Final = frozenset({"Cast", "Constant"})  # the node itself says the type of its result


def write_rounded(source: Path, target: Path) -> None:
    """Write the twin of a graph whose inputs and outputs are float32 or whole numbers.

    Weights keep their type in the file, and those that lie beside `source` are copied beside `target`.
    Raises onnx.shape_inference.InferenceError where the type of a result is not known.
    """
    model = onnx.load(str(source), load_external_data=False)
    types = _types_of(model)
    graph = model.graph
    nodes = [node for item in graph.initializer for node in _widened(item)]
    for node in graph.node:
        nodes.extend(_rounded(node, types))
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    for name in sorted(_files_of(graph)):
        shutil.copyfile(source.with_name(name), target.with_name(name))
    target.write_bytes(model.SerializeToString())


def _types_of(model: Any) -> dict[str, int]:
    """Element types of all nodes' results."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    return {item.name: item.type.tensor_type.elem_type for item in (*inferred.value_info, *inferred.output)}


def _widened(weight: Any) -> Iterator[Any]:
    """The weight under another name, and the node that makes it float32 under its own."""
    if weight.data_type in _SHORT:
        name, weight.name = weight.name, f"{weight.name}/short"
        yield helper.make_node("Cast", [weight.name], [name], name=name, to=TensorProto.FLOAT)


def _rounded(node: Any, types: dict[str, int]) -> Iterator[Any]:
    """The node, and where its result was short what rounds it. Nodes with short results have one each."""
    name = node.output[0]
    kind = types[name]
    if kind not in _SHORT or node.op_type in _EXACT:
        yield node
        return
    short = f"{name}/short"
    if node.op_type in _TYPED:
        node.output[0] = short
        yield node
    else:
        node.output[0] = f"{name}/exact"
        yield node
        yield helper.make_node("Cast", [node.output[0]], [short], name=short, to=kind)
    yield helper.make_node("Cast", [short], [name], name=f"{name}/rounded", to=TensorProto.FLOAT)


def _files_of(graph: Any) -> set[str]:
    """Names of the files beside the graph that hold weights."""
    return {
        entry.value
        for item in graph.initializer
        if item.data_location == TensorProto.EXTERNAL
        for entry in item.external_data
        if entry.key == "location"
    }
