"""Gemma 3's text layers as ONNX nodes: norms before and after each block, some layers with a window."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from embedding_stages.export.attention import Rotation, mask_scores
from embedding_stages.export.graph import Array, Graph
from embedding_stages.export.inputs import INPUT_IDS
from embedding_stages.export.llama import LlamaLayers, Seen


def gemma3_states(
    graph: Graph,
    weights: Mapping[str, Array],
    config: Any,
    positions: Mapping[str, tuple[Array, float]],
    window: int,
) -> str:
    """Hidden states (batch, tokens, hidden) of the graph's inputs.

    `config` is a transformers Gemma3TextConfig. `positions` are the loaded module's frequencies (head / 2,) and scale
    by the kind of layer. In layers with a window a token sees those that are at most `window` tokens away.
    """
    layers = _Gemma3(graph, weights, config)
    words = graph.table("embed_tokens", weights["embed_tokens.weight"], INPUT_IDS)
    states = graph.op("Mul", words, graph.scalar(float(config.hidden_size) ** 0.5))
    seen = {
        kind: Seen(
            mask_scores(graph, (1, 2, 3), window=window if kind == "sliding_attention" else None),
            Rotation(graph, frequencies, scale, name=f"frequencies_{kind}"),
        )
        for kind, (frequencies, scale) in positions.items()
    }
    for number, kind in enumerate(config.layer_types):
        states = layers.layer(f"layers.{number}", states, seen[kind])
    return layers.norm("norm", states)


class _Gemma3(LlamaLayers):
    def __init__(self, graph: Graph, weights: Mapping[str, Array], config: Any) -> None:
        super().__init__(graph, weights, config)
        self.score_divisor = config.query_pre_attn_scalar
        self.activation = config.hidden_activation

    def layer(self, name: str, states: str, seen: Seen) -> str:
        graph = self.graph
        attended = self.attention(f"{name}.self_attn", self.norm(f"{name}.input_layernorm", states), seen)
        states = graph.op("Add", states, self.norm(f"{name}.post_attention_layernorm", attended))
        inner = self.gated(f"{name}.mlp", self.norm(f"{name}.pre_feedforward_layernorm", states))
        return graph.op("Add", states, self.norm(f"{name}.post_feedforward_layernorm", inner))

    def norm_weight(self, weight: Array) -> Array:
        """Gemma's checkpoints hold how far it is from 1."""
        return np.asarray(weight + np.float32(1.0))
