"""The poolings as ONNX nodes: float32 states (batch, tokens, hidden) to (batch, hidden), not of length 1 yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from onnx import TensorProto

from embedding_stages.encoder.pooling import Pooling
from embedding_stages.export.graph import Graph
from embedding_stages.export.inputs import ATTENTION_MASK


def _mean(graph: Graph, states: str) -> str:
    mask = graph.op("Unsqueeze", graph.op("Cast", ATTENTION_MASK, to=TensorProto.FLOAT), graph.ints(2))
    total = graph.op("ReduceSum", graph.op("Mul", states, mask), graph.ints(1), keepdims=0)
    count = graph.op("Max", graph.op("ReduceSum", mask, graph.ints(1), keepdims=0), graph.scalar(1.0))
    return graph.op("Div", total, count)


def _last_token(graph: Graph, states: str) -> str:
    """The state at the place of the mask's last 1; rows are padded on the right."""
    count = graph.op("Max", graph.op("ReduceSum", ATTENTION_MASK, graph.ints(1), keepdims=1), graph.ints(1))
    return graph.op("GatherND", states, graph.op("Sub", count, graph.ints(1)), batch_dims=1)


def _cls(graph: Graph, states: str) -> str:
    return graph.op("Squeeze", graph.op("Gather", states, graph.ints(0), axis=1), graph.ints(1))


ONNX_POOLINGS: Final[Mapping[Pooling, Callable[[Graph, str], str]]] = {
    "mean": _mean,
    "last_token": _last_token,
    "cls": _cls,
}
