"""What follows the transformer in the graph: the pooling, Matryoshka dimensions, length 1."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from embedding_stages.encoder.pooling import Pooling, carried
from embedding_stages.export.graph import Graph
from embedding_stages.export.inputs import DIMENSIONS
from embedding_stages.export.pooling import ONNX_POOLINGS

_TINY = 1e-12  # the floor of a vector's length, torch.nn.functional.normalize's


def pooled(graph: Graph, states: str, hidden_size: int, pooling: Pooling = "mean") -> str:
    """states (batch, tokens, hidden) -> embeddings (batch, width) of length 1.

    `dimensions` (batch,) or (1,) holds the size that each text asks for, cut to 1..hidden. width is the largest
    of them; a row that asks for less has zeros in the columns beyond its own size. This is the recipe's
    contract (input_ids, attention_mask, dimensions -> embeddings), without its -inf fill.
    """
    vector = carried(ONNX_POOLINGS, pooling)(graph, states)
    sizes = graph.op("Min", graph.op("Max", DIMENSIONS, graph.ints(1)), graph.ints(hidden_size))
    columns = graph.weight("columns", np.arange(hidden_size, dtype=np.int64)[None, :])
    wanted = graph.op("Less", columns, graph.op("Unsqueeze", sizes, graph.ints(1)))
    cut = graph.op("Mul", vector, graph.op("Cast", wanted, to=TensorProto.FLOAT))
    width = graph.op("ReduceMax", sizes, axes=[0], keepdims=1)
    narrow = graph.op("Slice", cut, graph.ints(0), width, graph.ints(1))
    length = graph.op("Max", graph.op("ReduceL2", narrow, axes=[1], keepdims=1), graph.scalar(_TINY))
    return graph.op("Div", narrow, length)
