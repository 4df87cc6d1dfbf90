"""ModernBERT's layers as ONNX nodes: norms first, rotary positions, gated GELU, some layers with a window."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from embedding_stages.export.activation import activated
from embedding_stages.export.attention import Rotation, attend, mask_scores
from embedding_stages.export.graph import Array, Graph
from embedding_stages.export.inputs import INPUT_IDS


def modernbert_states(
    graph: Graph,
    weights: Mapping[str, Array],
    config: Any,
    positions: Mapping[str, tuple[Array, float]],
    window: int,
) -> str:
    """Hidden states (batch, tokens, hidden) of the graph's inputs.

    `config` is a transformers ModernBertConfig. `positions` are the loaded module's frequencies (head / 2,) and scale
    by the kind of layer. In layers with a window a token sees those that are at most `window` tokens away.
    """
    layers = _ModernBert(graph, weights, config)
    words = graph.table("words", weights["embeddings.tok_embeddings.weight"], INPUT_IDS)
    states = layers.norm("embeddings.norm", words)
    masks = {
        kind: mask_scores(graph, (1, 2), window=window if kind == "sliding_attention" else None) for kind in positions
    }
    rotations = {
        kind: Rotation(graph, frequencies, scale, name=f"frequencies_{kind}")
        for kind, (frequencies, scale) in positions.items()
    }
    for number, kind in enumerate(config.layer_types):
        states = layers.layer(f"layers.{number}", states, masks[kind], rotations[kind])
    return layers.norm("final_norm", states)


class _ModernBert:
    def __init__(self, graph: Graph, weights: Mapping[str, Array], config: Any) -> None:
        self.graph, self.weights, self.config = graph, weights, config
        self.heads: int = config.num_attention_heads
        self.head_size: int = config.hidden_size // self.heads

    def layer(self, name: str, states: str, scores_mask: str, rotation: Rotation) -> str:
        graph = self.graph
        first = f"{name}.attn_norm"  # the first layer has none: the embeddings' norm comes just before it
        normed = self.norm(first, states) if f"{first}.weight" in self.weights else states
        queries, keys, values = (self.heads_of(f"{name}.attn.Wqkv", normed, part) for part in range(3))
        turned = graph.op("Transpose", rotation.turn(keys), perm=[0, 1, 3, 2])
        seen = attend(graph, rotation.turn(queries), turned, values, scores_mask, self.head_size)
        joined = graph.op(
            "Reshape", graph.op("Transpose", seen, perm=[0, 2, 1, 3]), graph.ints(0, 0, self.config.hidden_size)
        )
        states = graph.op("Add", states, self.linear(f"{name}.attn.Wo", joined))
        normed = self.norm(f"{name}.mlp_norm", states)
        value, gate = (self.linear(f"{name}.mlp.Wi", normed, (part, 2)) for part in range(2))
        inner = graph.op("Mul", activated(graph, self.config.hidden_activation, value), gate)
        return graph.op("Add", states, self.linear(f"{name}.mlp.Wo", inner))

    def heads_of(self, name: str, states: str, part: int) -> str:
        """Queries, keys or values, whichever `part` of the projection is: (batch, heads, tokens, head)."""
        shape = self.graph.ints(0, 0, self.heads, self.head_size)
        heads = self.graph.op("Reshape", self.linear(name, states, (part, 3)), shape)
        return self.graph.op("Transpose", heads, perm=[0, 2, 1, 3])

    def linear(self, name: str, value: str, piece: tuple[int, int] = (0, 1)) -> str:
        """A projection, or the one of so many equal pieces of its output that `piece` numbers."""
        number, count = piece
        weight = np.split(self.weights[f"{name}.weight"], count)[number]
        bias = self.weights.get(f"{name}.bias")
        part = name if count == 1 else f"{name}.{number}"
        return self.graph.linear(value, part, weight, None if bias is None else np.split(bias, count)[number])

    def norm(self, name: str, value: str) -> str:
        names = [f"{name}.weight", f"{name}.bias"]
        values = [self.graph.weight(each, self.weights[each]) for each in names if each in self.weights]
        return self.graph.op("LayerNormalization", value, *values, axis=-1, epsilon=float(self.config.norm_eps))
