"""Layers of Llama and of those that differ from it by a little, as ONNX nodes. Without a causal mask only padding is
hidden.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from embedding_stages.export.activation import activated
from embedding_stages.export.attention import Rotation, attend, mask_scores
from embedding_stages.export.graph import Array, Graph
from embedding_stages.export.inputs import INPUT_IDS


@dataclass(frozen=True, slots=True)
class Seen:
    """What the layers of one kind share: the tokens that a token sees, and the positions."""

    mask: str  # to be added to the scores
    rotation: Rotation
    query_scale: str | None = None  # (tokens, 1), of the turned queries


def llama_states(
    graph: Graph,
    weights: Mapping[str, Array],
    config: Any,
    frequencies: Array,
    rotary_scale: float,
    *,
    causal: bool = False,
    query_scale: str | None = None,
) -> str:
    """Hidden states (batch, tokens, hidden) of the graph's inputs.

    `config` is a transformers LlamaConfig or one like it. `frequencies` (head / 2,) and `rotary_scale` are the loaded
    module's, so every kind of rotary scaling that does not depend on the length comes out right. `query_scale` is a
    value (tokens, 1) of the graph. Norms of queries and keys are computed where `weights` has them.
    """
    layers = LlamaLayers(graph, weights, config)
    states = graph.table("embed_tokens", weights["embed_tokens.weight"], INPUT_IDS)
    rotation = Rotation(graph, frequencies, rotary_scale)
    seen = Seen(mask_scores(graph, (1, 2, 3), causal=causal), rotation, query_scale)
    for number in range(config.num_hidden_layers):
        states = layers.layer(f"layers.{number}", states, seen)
    return layers.norm("norm", states)


class LlamaLayers:
    """Heads are laid out (batch, key heads, queries a key head, tokens, head): products broadcast, keys are
    never copied for the queries that share them.
    """

    def __init__(self, graph: Graph, weights: Mapping[str, Array], config: Any) -> None:
        self.graph, self.weights, self.config = graph, weights, config
        self.heads: int = config.num_attention_heads
        self.key_heads: int = config.num_key_value_heads
        self.head_size: int = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        self.score_divisor: int = self.head_size  # scores are divided by its square root
        self.activation: str = getattr(config, "hidden_act", "silu")

    def layer(self, name: str, states: str, seen: Seen) -> str:
        attended = self.attention(f"{name}.self_attn", self.norm(f"{name}.input_layernorm", states), seen)
        states = self.graph.op("Add", states, attended)
        inner = self.gated(f"{name}.mlp", self.norm(f"{name}.post_attention_layernorm", states))
        return self.graph.op("Add", states, inner)

    def attention(self, name: str, normed: str, seen: Seen) -> str:
        graph, group = self.graph, self.heads // self.key_heads
        queries = seen.rotation.turn(self.normed_heads(f"{name}.q", normed, group))
        if seen.query_scale is not None:
            queries = graph.op("Mul", queries, seen.query_scale)
        keys = seen.rotation.turn(self.normed_heads(f"{name}.k", normed, 1))
        values = self.split(f"{name}.v_proj", normed, 1)
        turned = graph.op("Transpose", keys, perm=[0, 1, 2, 4, 3])
        found = attend(graph, queries, turned, values, seen.mask, self.score_divisor)
        joined = graph.op(
            "Reshape",
            graph.op("Transpose", found, perm=[0, 3, 1, 2, 4]),
            graph.ints(0, 0, self.heads * self.head_size),
        )
        return self.linear(f"{name}.o_proj", joined)

    def gated(self, name: str, normed: str) -> str:
        gate = activated(self.graph, self.activation, self.linear(f"{name}.gate_proj", normed))
        inner = self.graph.op("Mul", gate, self.linear(f"{name}.up_proj", normed))
        return self.linear(f"{name}.down_proj", inner)

    def normed_heads(self, name: str, states: str, group: int) -> str:
        """The heads of queries or keys, each through the norm of heads that some models have."""
        heads = self.split(f"{name}_proj", states, group)
        return self.norm(f"{name}_norm", heads) if f"{name}_norm.weight" in self.weights else heads

    def split(self, name: str, states: str, group: int) -> str:
        """A projection as (batch, key heads, group, tokens, head)."""
        shape = self.graph.ints(0, 0, self.key_heads, group, self.head_size)
        heads = self.graph.op("Reshape", self.linear(name, states), shape)
        return self.graph.op("Transpose", heads, perm=[0, 2, 3, 1, 4])

    def norm(self, name: str, value: str) -> str:
        """x / sqrt(mean(x^2) + eps) * weight, in float32."""
        graph, value = self.graph, self.graph.wide(value)  # squares overflow float16
        mean = graph.reduce("ReduceMean", graph.op("Mul", value, value), -1)
        root = graph.op("Sqrt", graph.op("Add", mean, graph.scalar(float(self.config.rms_norm_eps))))
        scale = graph.weight(f"{name}.weight", self.norm_weight(self.weights[f"{name}.weight"]))
        return graph.op("Mul", graph.op("Div", value, root), scale)

    def norm_weight(self, weight: Array) -> Array:
        """What a norm multiplies by, of what the checkpoint holds."""
        return weight

    def linear(self, name: str, value: str) -> str:
        return self.graph.linear(value, name, self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias"))
