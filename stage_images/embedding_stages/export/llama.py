"""Llama's layers as ONNX nodes. Without a causal mask only padding is hidden."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from embedding_stages.export.attention import Rotation, attend, mask_scores
from embedding_stages.export.graph import Array, Graph
from embedding_stages.export.inputs import INPUT_IDS


def llama_states(
    graph: Graph,
    weights: Mapping[str, Array],
    config: Any,
    frequencies: Array,
    rotary_scale: float,
    *,
    causal: bool = False,
) -> str:
    """Hidden states (batch, tokens, hidden) of the graph's inputs.

    `config` is a transformers LlamaConfig. `frequencies` (head / 2,) and `rotary_scale` are the loaded module's,
    so every kind of rotary scaling that does not depend on the length comes out right.
    """
    layers = _Llama(graph, weights, config, frequencies, rotary_scale)
    states = graph.table("embed_tokens", weights["embed_tokens.weight"], INPUT_IDS)
    scores_mask = mask_scores(graph, (1, 2, 3), causal=causal)
    for number in range(config.num_hidden_layers):
        states = layers.layer(f"layers.{number}", states, scores_mask)
    return layers.norm("norm", states)


class _Llama:
    """Heads are laid out (batch, key heads, queries a key head, tokens, head): products broadcast, keys are
    never copied for the queries that share them.
    """

    def __init__(
        self, graph: Graph, weights: Mapping[str, Array], config: Any, frequencies: Array, rotary_scale: float
    ) -> None:
        self.graph, self.weights, self.config = graph, weights, config
        self.heads: int = config.num_attention_heads
        self.key_heads: int = config.num_key_value_heads
        self.head_size: int = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        self.rotation = Rotation(graph, frequencies, rotary_scale)

    def layer(self, name: str, states: str, scores_mask: str) -> str:
        graph, group = self.graph, self.heads // self.key_heads
        normed = self.norm(f"{name}.input_layernorm", states)
        queries = self.rotation.turn(self.split(f"{name}.self_attn.q_proj", normed, group))
        keys = self.rotation.turn(self.split(f"{name}.self_attn.k_proj", normed, 1))
        values = self.split(f"{name}.self_attn.v_proj", normed, 1)
        turned = graph.op("Transpose", keys, perm=[0, 1, 2, 4, 3])
        seen = attend(graph, queries, turned, values, scores_mask, self.head_size)
        joined = graph.op(
            "Reshape",
            graph.op("Transpose", seen, perm=[0, 3, 1, 2, 4]),
            graph.ints(0, 0, self.heads * self.head_size),
        )
        states = graph.op("Add", states, self.linear(f"{name}.self_attn.o_proj", joined))
        normed = self.norm(f"{name}.post_attention_layernorm", states)
        gate = self.linear(f"{name}.mlp.gate_proj", normed)
        gated = graph.op("Mul", gate, graph.op("Sigmoid", gate))  # SiLU
        inner = graph.op("Mul", gated, self.linear(f"{name}.mlp.up_proj", normed))
        return graph.op("Add", states, self.linear(f"{name}.mlp.down_proj", inner))

    def split(self, name: str, states: str, group: int) -> str:
        """A projection as (batch, key heads, group, tokens, head)."""
        shape = self.graph.ints(0, 0, self.key_heads, group, self.head_size)
        heads = self.graph.op("Reshape", self.linear(name, states), shape)
        return self.graph.op("Transpose", heads, perm=[0, 2, 3, 1, 4])

    def norm(self, name: str, value: str) -> str:
        """x / sqrt(mean(x^2) + eps) * weight, in float32."""
        graph = self.graph
        mean = graph.op("ReduceMean", graph.op("Mul", value, value), axes=[-1], keepdims=1)
        root = graph.op("Sqrt", graph.op("Add", mean, graph.scalar(float(self.config.rms_norm_eps))))
        scale = graph.weight(f"{name}.weight", self.weights[f"{name}.weight"])
        return graph.op("Mul", graph.op("Div", value, root), scale)

    def linear(self, name: str, value: str) -> str:
        return self.graph.linear(value, name, self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias"))
