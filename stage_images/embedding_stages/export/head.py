"""What follows the transformer in the graph, and what the families share."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from embedding_stages.encoder.pooling import Pooling, carried
from embedding_stages.export.graph import Graph
from embedding_stages.export.inputs import ATTENTION_MASK, DIMENSIONS, INPUT_IDS
from embedding_stages.export.pooling import ONNX_POOLINGS

_HIDDEN_SCORE = -30_000.0  # added where a token must not be seen: exp() gives 0, and float16 can hold it
_TINY = 1e-12  # the floor of a vector's length, torch.nn.functional.normalize's


def mask_scores(graph: Graph, axes: tuple[int, ...], *, causal: bool = False) -> str:
    """0 where a token is seen, -30,000 or less where not: float32 (batch, tokens), with dimensions of size 1 at `axes`.

    Padding is never seen. With `causal`, neither are tokens after the query's own: float32 (batch, ..., tokens of
    queries, tokens of keys), of which `axes` must have put in the queries' dimension.
    """
    mask = graph.op("Cast", ATTENTION_MASK, to=TensorProto.FLOAT)
    hidden = graph.op("Mul", graph.op("Sub", graph.scalar(1.0), mask), graph.scalar(_HIDDEN_SCORE))
    scores = graph.op("Unsqueeze", hidden, graph.ints(*axes))
    if not causal:
        return scores
    place = places(graph)
    later = graph.op("Less", graph.op("Unsqueeze", place, graph.ints(1)), graph.op("Unsqueeze", place, graph.ints(0)))
    unseen = graph.op("Mul", graph.op("Cast", later, to=TensorProto.FLOAT), graph.scalar(_HIDDEN_SCORE))
    return graph.op("Add", scores, unseen)


def attend(graph: Graph, queries: str, keys: str, values: str, scores_mask: str, head_size: int) -> str:
    """Softmax attention; queries and values (..., tokens, head), keys (..., head, tokens)."""
    scaled = graph.op("Mul", queries, graph.scalar(head_size**-0.5))
    scores = graph.op("Add", graph.matmul(scaled, keys), scores_mask)
    return graph.matmul(graph.op("Softmax", scores, axis=-1), values)


def tokens_count(graph: Graph) -> str:
    """The number of tokens a row, int64 (1,)."""
    return graph.op("Shape", INPUT_IDS, start=1, end=2)


def places(graph: Graph) -> str:
    """0, 1, ... of the tokens of a row, float32 (tokens,)."""
    count = graph.op("Squeeze", tokens_count(graph), graph.ints(0))
    zero, one = (graph.op("Squeeze", graph.ints(number), graph.ints(0)) for number in (0, 1))
    return graph.op("Cast", graph.op("Range", zero, count, one), to=TensorProto.FLOAT)


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
