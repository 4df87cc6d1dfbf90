"""What follows the transformer in the graph: the pooling, Dense modules, Matryoshka dimensions, length 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from onnx import TensorProto

from embedding_stages.encoder.dense import DenseLayer
from embedding_stages.encoder.dense_head import DENSE
from embedding_stages.export.activation import activated
from embedding_stages.export.graph import Array, Graph
from embedding_stages.export.inputs import DIMENSIONS

_TINY = 1e-12  # the floor of a vector's length, torch.nn.functional.normalize's


def dense_vectors(graph: Graph, vector: str, layers: Sequence[DenseLayer], weights: Mapping[str, Array]) -> str:
    """vector (batch, in) -> (batch, out of the last). `weights` are those of a `DenseHead`, by its names."""
    for number, layer in enumerate(layers):
        name = f"{DENSE}.{number}"
        mapped = graph.linear(vector, name, weights[f"{name}.weight"], weights.get(f"{name}.bias"))
        vector = activated(graph, layer.activation, mapped)
    return vector


def shortened(graph: Graph, vector: str, vector_size: int) -> str:
    """vector (batch, vector size) -> embeddings (batch, width) of length 1.

    `dimensions` (batch,) or (1,) holds the size that each text asks for, cut to 1..vector size. width is the largest
    of them; a row that asks for less has zeros in the columns beyond its own size. This is the recipe's
    contract (input_ids, attention_mask, dimensions -> embeddings), without its -inf fill.
    """
    sizes = graph.op("Min", graph.op("Max", DIMENSIONS, graph.ints(1)), graph.ints(vector_size))
    columns = graph.weight("columns", np.arange(vector_size, dtype=np.int64)[None, :])
    wanted = graph.op("Less", columns, graph.op("Unsqueeze", sizes, graph.ints(1)))
    cut = graph.op("Mul", vector, graph.op("Cast", wanted, to=TensorProto.FLOAT))
    width = graph.reduce("ReduceMax", sizes, 0)
    narrow = graph.op("Slice", cut, graph.ints(0), width, graph.ints(1))
    length = graph.op("Max", graph.reduce("ReduceL2", narrow, 1), graph.scalar(_TINY))
    return graph.op("Div", narrow, length)
