"""What the families' layers share in the graph: attention, which tokens it sees, rotary positions."""

from __future__ import annotations

from onnx import TensorProto

from embedding_stages.export.graph import Array, Graph
from embedding_stages.export.inputs import ATTENTION_MASK, INPUT_IDS

_HIDDEN_SCORE = -30_000.0  # added where a token must not be seen: exp() gives 0, and float16 can hold it


class Rotation:
    """Rotary positions of heads whose halves are turned against each other."""

    def __init__(self, graph: Graph, frequencies: Array, scale: float, *, name: str = "frequencies") -> None:
        """`frequencies` (head / 2,) and `scale` are the loaded module's; `name` tells two kinds in a graph apart."""
        self._graph = graph
        self._size = 2 * len(frequencies)
        column = graph.op("Unsqueeze", places(graph), graph.ints(1))
        angles = graph.op("Mul", column, graph.weight(name, frequencies[None, :]))
        both = graph.op("Concat", angles, angles, axis=-1)
        cosine, sine = graph.op("Cos", both), graph.op("Sin", both)
        self._cosine = graph.op("Mul", cosine, graph.scalar(scale))  # (tokens, head), like the sine
        self._sine = graph.op("Mul", sine, graph.scalar(scale))

    def turn(self, value: str) -> str:
        """value (..., tokens, head) * cos + (second half negated, first half) * sin."""
        graph, half = self._graph, self._size // 2
        value = graph.wide(value)  # angles are exact in float32 alone
        first = graph.op("Slice", value, graph.ints(0), graph.ints(half), graph.ints(-1))
        second = graph.op("Slice", value, graph.ints(half), graph.ints(self._size), graph.ints(-1))
        crossed = graph.op("Concat", graph.op("Neg", second), first, axis=-1)
        straight = graph.op("Mul", value, self._cosine)
        return graph.op("Add", straight, graph.op("Mul", crossed, self._sine))


def mask_scores(graph: Graph, axes: tuple[int, ...], *, causal: bool = False, window: int | None = None) -> str:
    """0 where a key is seen, -30,000 or less where not: float32, to be added to the scores of queries and keys.

    Of shape (batch, tokens) with dimensions of size 1 put in at `axes`, the queries' one among them; `causal` and
    `window`, as in `encoder.attention.visible`, make the queries' dimension (tokens). Padding is never seen.
    """
    mask = graph.op("Cast", ATTENTION_MASK, to=TensorProto.FLOAT)
    hidden = graph.op("Mul", graph.op("Sub", graph.scalar(1.0), mask), graph.scalar(_HIDDEN_SCORE))
    scores = graph.op("Unsqueeze", hidden, graph.ints(*axes))
    if not causal and window is None:
        return scores
    place = places(graph)
    ahead = graph.op("Sub", graph.op("Unsqueeze", place, graph.ints(0)), graph.op("Unsqueeze", place, graph.ints(1)))
    if causal:
        scores = _hidden_beyond(graph, scores, ahead, 0)
    if window is not None:
        scores = _hidden_beyond(graph, scores, graph.op("Abs", ahead), window)
    return scores


def _hidden_beyond(graph: Graph, scores: str, distance: str, most: int) -> str:
    """`scores` with all hidden whose distance, float32 (queries, keys), is larger than `most`."""
    far = graph.op("Cast", graph.op("Less", graph.scalar(float(most)), distance), to=TensorProto.FLOAT)
    return graph.op("Add", scores, graph.op("Mul", far, graph.scalar(_HIDDEN_SCORE)))


def attend(graph: Graph, queries: str, keys: str, values: str, scores_mask: str, head_size: int) -> str:
    """Softmax attention; queries and values (..., tokens, head), keys (..., head, tokens)."""
    scaled = graph.op("Mul", queries, graph.scalar(head_size**-0.5))
    products = graph.matmul(scaled, keys)
    scores = graph.op("Add", products, graph.like(scores_mask, products))
    return graph.matmul(graph.op("Softmax", scores, axis=-1), values)


def tokens_count(graph: Graph) -> str:
    """The number of tokens a row, int64 (1,)."""
    return graph.op("Shape", INPUT_IDS, start=1, end=2)


def places(graph: Graph) -> str:
    """0, 1, ... of the tokens of a row, float32 (tokens,)."""
    count = graph.op("Squeeze", tokens_count(graph), graph.ints(0))
    zero, one = (graph.op("Squeeze", graph.ints(number), graph.ints(0)) for number in (0, 1))
    return graph.op("Cast", graph.op("Range", zero, count, one), to=TensorProto.FLOAT)
