"""What follows the transformer in the graph, and what both families share."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from embedding_stages.export.graph import Graph

INPUT_IDS, ATTENTION_MASK, DIMENSIONS, EMBEDDINGS = "input_ids", "attention_mask", "dimensions", "embeddings"
_HIDDEN_SCORE = -30_000.0  # added where a token must not be seen: exp() gives 0, and float16 can hold it
_TINY = 1e-12  # the floor of a vector's length, torch.nn.functional.normalize's


def mask_scores(graph: Graph, axes: tuple[int, ...]) -> str:
    """0 at tokens, -30,000 at padding: float32 (batch, tokens) with dimensions of size 1 put in at `axes`."""
    mask = graph.op("Cast", ATTENTION_MASK, to=TensorProto.FLOAT)
    hidden = graph.op("Mul", graph.op("Sub", graph.scalar(1.0), mask), graph.scalar(_HIDDEN_SCORE))
    return graph.op("Unsqueeze", hidden, graph.ints(*axes))


def attend(graph: Graph, queries: str, keys: str, values: str, scores_mask: str, head_size: int) -> str:
    """Softmax attention; queries and values (..., tokens, head), keys (..., head, tokens)."""
    scaled = graph.op("Mul", queries, graph.scalar(head_size**-0.5))
    scores = graph.op("Add", graph.matmul(scaled, keys), scores_mask)
    return graph.matmul(graph.op("Softmax", scores, axis=-1), values)


def tokens_count(graph: Graph) -> str:
    """The number of tokens a row, int64 (1,)."""
    return graph.op("Shape", INPUT_IDS, start=1, end=2)


def pooled(graph: Graph, states: str, hidden_size: int) -> str:
    """states (batch, tokens, hidden) -> embeddings (batch, width) of length 1.

    `dimensions` (batch,) or (1,) holds the size that each text asks for, cut to 1..hidden. width is the largest
    of them; a row that asks for less has zeros in the columns beyond its own size. This is the recipe's
    contract (input_ids, attention_mask, dimensions -> embeddings), without its -inf fill.
    """
    mask = graph.op("Unsqueeze", graph.op("Cast", ATTENTION_MASK, to=TensorProto.FLOAT), graph.ints(2))
    total = graph.op("ReduceSum", graph.op("Mul", states, mask), graph.ints(1), keepdims=0)
    count = graph.op("Max", graph.op("ReduceSum", mask, graph.ints(1), keepdims=0), graph.scalar(1.0))
    mean = graph.op("Div", total, count)
    sizes = graph.op("Min", graph.op("Max", DIMENSIONS, graph.ints(1)), graph.ints(hidden_size))
    columns = graph.weight("columns", np.arange(hidden_size, dtype=np.int64)[None, :])
    wanted = graph.op("Less", columns, graph.op("Unsqueeze", sizes, graph.ints(1)))
    cut = graph.op("Mul", mean, graph.op("Cast", wanted, to=TensorProto.FLOAT))
    width = graph.op("ReduceMax", sizes, axes=[0], keepdims=1)
    narrow = graph.op("Slice", cut, graph.ints(0), width, graph.ints(1))
    length = graph.op("Max", graph.op("ReduceL2", narrow, axes=[1], keepdims=1), graph.scalar(_TINY))
    return graph.op("Div", narrow, length)
