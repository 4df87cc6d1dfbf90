"""Builds an ONNX file: nodes by name, weights streamed to the file so that a second copy is never in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
OPSET_QUANTIZED = 19  # the first with float8
_IR_VERSIONS: Final[Mapping[int, int]] = {OPSET: 8, OPSET_QUANTIZED: 9}  # the file format that belongs to each
_AXES_ARE_INPUTS = 18  # of reductions but for ReduceSum, from this opset on
EXTERNAL_ABOVE_BYTES = 1_800_000_000  # a protobuf file ends at 2 GiB
_INLINE_BYTES = 1024  # smaller tensors stay in the graph: shape inference reads them
_ALIGNMENT = 4096  # lets a reader map a tensor's pages
Precision = Literal["fp32", "fp16", "bf16"]
Array = NDArray[Any]
_SHORT: Final[Mapping[Precision, int]] = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
# What moves numbers about, and what computes each output from few inputs: a product that only these and the next
# product read need not become float32 between them, which costs a GPU more time than the products do.
_MOVES: Final = frozenset({"Reshape", "Transpose", "Slice"})
_SMALL_STEPS: Final = frozenset({"Add", "Mul", "Div", "Softmax", "Erf", "Tanh", "Sigmoid", "Max", "Neg"})


@dataclass(frozen=True, slots=True)
class Product:
    """A product with a weight of the model: its node, and how many numbers it takes and gives a token."""

    node: str
    takes: int
    gives: int


class Graph:
    """A graph under construction. Values are named by strings; every operation returns its output's name.

    With precision fp16 or bf16 the weights of matrix products and the embedding tables are in it and products are
    computed in it; the sums from layer to layer, norms and pooling stay float32, so nothing overflows between layers.
    What lies between two products, biases, softmax and activations, is float16 with fp16, and float32 with bf16, whose
    rounding is eight times coarser.
    """

    def __init__(self, precision: Precision, *, opset: int = OPSET) -> None:
        self.precision = precision
        self.opset = opset
        self.products: list[Product] = []
        self._nodes: list[Any] = []
        self._weights: dict[str, Array] = {}
        self._halves: dict[str, str] = {}  # float32 value -> its copy in the graph's precision
        self._wide: dict[str, str] = {}  # float16 value -> its copy in float32
        self._keeps = precision == "fp16"
        self._kept: set[str] = set()  # float16 values
        self._count = 0

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Append one node with one output. Inputs in float16 become float32 where the operation is none for them."""
        kept = self._stays_short(kind, inputs)
        taken = [self._narrow_weight(value) if kept and kind in _SMALL_STEPS else value for value in inputs]
        output = self._append(kind, *(taken if kept else map(self.wide, inputs)), **attributes)
        if kept:
            self._kept.add(output)
        return output

    def wide(self, value: str) -> str:
        """A value as float32; one that is no float16 number is as it was."""
        if value not in self._kept:
            return value
        if value not in self._wide:
            self._wide[value] = self._append("Cast", value, to=TensorProto.FLOAT)
        return self._wide[value]

    def like(self, value: str, other: str) -> str:
        """A float32 `value` in the type of `other`."""
        return self._half(value) if other in self._kept else value

    def _stays_short(self, kind: str, inputs: Sequence[str]) -> bool:
        if kind in _MOVES:
            return inputs[0] in self._kept
        mixed = [value for value in inputs if value not in self._weights]
        return kind in _SMALL_STEPS and bool(mixed) and all(value in self._kept for value in mixed)

    def _narrow_weight(self, value: str) -> str:
        """A constant beside float16 values, in float16."""
        array = self._weights.get(value)
        if array is None or array.dtype != np.float32:
            return value
        return self.weight(f"{value}.short", self._short(array))

    def _append(self, kind: str, *inputs: str, **attributes: Any) -> str:
        self._count += 1
        output = f"{kind.lower()}_{self._count}"
        self._nodes.append(helper.make_node(kind, list(inputs), [output], name=output, **attributes))
        return output

    def rename(self, value: str, name: str) -> None:
        """Give a value the name of a graph output."""
        self._nodes.append(helper.make_node("Identity", [self.wide(value)], [name], name=name))

    def weight(self, name: str, array: Array) -> str:
        """A named constant; `array` may be a view and is copied when the file is written."""
        self._weights[name] = array
        return name

    def ints(self, *values: int) -> str:
        """An int64 vector."""
        return self.weight("ints_" + "_".join(str(value) for value in values), np.array(values, dtype=np.int64))

    def scalar(self, value: float) -> str:
        """A float32 scalar."""
        return self.weight(f"scalar_{value!r}", np.array(value, dtype=np.float32))

    def reduce(self, kind: str, value: str, axis: int) -> str:
        """ReduceMax, ReduceMean or ReduceL2 over one axis, which stays as one of size 1."""
        if self.opset < _AXES_ARE_INPUTS:
            return self.op(kind, value, axes=[axis], keepdims=1)
        return self.op(kind, value, self.ints(axis), keepdims=1)

    def table(self, name: str, array: Array, ids: str) -> str:
        """Rows of an embedding table (n, hidden) at integer ids, as float32."""
        rows = self.op("Gather", self.weight(name, self._short(array)), ids)
        return rows if self.precision == "fp32" else self.op("Cast", rows, to=TensorProto.FLOAT)

    def linear(self, value: str, name: str, weight: Array, bias: Array | None) -> str:
        """value (..., in) times weight (out, in) transposed, plus bias (out)."""
        matrix = self.weight(name, self._short(weight).T)
        product = self.matmul(value, matrix)
        return product if bias is None else self.op("Add", product, self.weight(f"{name}.bias", bias))

    def matmul(self, left: str, right: str) -> str:
        """A matrix product in the graph's precision; float32 out, or float16 with fp16. A weight has its own type."""
        short = self.precision != "fp32"
        product = self._append("MatMul", *(self._half(value) if short else value for value in (left, right)))
        if right in self._weights:
            takes, gives = self._weights[right].shape
            self.products.append(Product(product, takes, gives))
        if short and not self._keeps:
            product = self._append("Cast", product, to=TensorProto.FLOAT)
        if self._keeps:
            self._kept.add(product)
        return product

    def _half(self, value: str) -> str:
        """A float32 value in the graph's precision; a weight is in it already, and so is what was kept short."""
        if value in self._weights or value in self._kept:
            return value
        if value not in self._halves:
            self._halves[value] = self._append("Cast", value, to=_SHORT[self.precision])
            if self._keeps:
                self._kept.add(self._halves[value])
        return self._halves[value]

    def _short(self, array: Array) -> Array:
        """A weight in the graph's precision."""
        if self.precision == "fp32":
            return array
        return _to_half(array) if self.precision == "fp16" else array.astype(ml_dtypes.bfloat16)

    def save(
        self,
        path: Path,
        *,
        inputs: Sequence[Any],
        outputs: Sequence[Any],
        external_above: int = EXTERNAL_ABOVE_BYTES,
    ) -> None:
        """Write `path`, and `<path>.data` beside it when the weights take more than `external_above` bytes."""
        read = {value for node in self._nodes for value in node.input}
        self._weights = {name: array for name, array in self._weights.items() if name in read}
        large = sum(array.nbytes for array in self._weights.values()) > external_above
        if large:
            weights = self._write_external(path.with_name(path.name + ".data"))
        else:
            weights = [numpy_helper.from_array(_packed(array), name) for name, array in self._weights.items()]
        graph = helper.make_graph(self._nodes, "embedding", inputs, outputs, initializer=weights)
        opsets = [helper.make_opsetid("", self.opset)]
        version = _IR_VERSIONS[self.opset]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=version, producer_name="embedding-operator")
        path.write_bytes(model.SerializeToString())
        onnx.checker.check_model(str(path), full_check=True)

    def _write_external(self, path: Path) -> list[Any]:
        tensors = []
        with path.open("wb") as stream:
            for name, array in self._weights.items():
                if array.nbytes <= _INLINE_BYTES:
                    tensors.append(numpy_helper.from_array(_packed(array), name))
                    continue
                stream.seek(-(-stream.tell() // _ALIGNMENT) * _ALIGNMENT)
                tensor = TensorProto(name=name, data_location=TensorProto.EXTERNAL)
                tensor.data_type = helper.np_dtype_to_tensor_dtype(array.dtype)
                tensor.dims.extend(array.shape)
                place = {"location": path.name, "offset": stream.tell(), "length": array.nbytes}
                for key, value in place.items():
                    tensor.external_data.add(key=key, value=str(value))
                stream.write(_packed(array).data)
                tensors.append(tensor)
        return tensors


def _packed(array: Array) -> Array:
    """Row-major and little-endian, as the format wants it; a scalar stays a scalar."""
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return little if little.ndim == 0 else np.ascontiguousarray(little)


def _to_half(array: Array) -> Array:
    """float16; values beyond its range become the largest finite one (the parity check judges the outcome)."""
    limit = float(np.finfo(np.float16).max)
    return np.clip(array, -limit, limit).astype(np.float16)
