"""BERT's layers as ONNX nodes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from embedding_stages.export.attention import attend, mask_scores, tokens_count
from embedding_stages.export.graph import Array, Graph
from embedding_stages.export.inputs import INPUT_IDS


def bert_states(graph: Graph, weights: Mapping[str, Array], config: Any) -> str:
    """Hidden states (batch, tokens, hidden) of the graph's inputs. `config` is a transformers BertConfig."""
    layers = _Bert(graph, weights, config)
    states = layers.embeddings()
    scores_mask = mask_scores(graph, (1, 2))
    for number in range(config.num_hidden_layers):
        states = layers.layer(f"encoder.layer.{number}", states, scores_mask)
    return states


class _Bert:
    def __init__(self, graph: Graph, weights: Mapping[str, Array], config: Any) -> None:
        self.graph, self.weights, self.config = graph, weights, config
        self.heads: int = config.num_attention_heads
        self.head_size: int = config.hidden_size // self.heads

    def embeddings(self) -> str:
        """Word, position and segment 0; one text is one segment, so that is one constant table of positions."""
        graph = self.graph
        words = graph.table("words", self.weights["embeddings.word_embeddings.weight"], INPUT_IDS)
        places = self.weights["embeddings.position_embeddings.weight"]
        segment = self.weights["embeddings.token_type_embeddings.weight"][0]
        table = graph.weight("positions", places + segment)
        positions = graph.op("Slice", table, graph.ints(0), tokens_count(graph), graph.ints(0))
        return self.norm("embeddings.LayerNorm", graph.op("Add", words, positions))

    def layer(self, name: str, states: str, scores_mask: str) -> str:
        graph = self.graph
        queries = self.split(f"{name}.attention.self.query", states, (0, 2, 1, 3))
        keys = self.split(f"{name}.attention.self.key", states, (0, 2, 3, 1))
        values = self.split(f"{name}.attention.self.value", states, (0, 2, 1, 3))
        seen = attend(graph, queries, keys, values, scores_mask, self.head_size)
        joined = graph.op(
            "Reshape", graph.op("Transpose", seen, perm=[0, 2, 1, 3]), graph.ints(0, 0, self.heads * self.head_size)
        )
        attended = graph.op("Add", self.linear(f"{name}.attention.output.dense", joined), states)
        states = self.norm(f"{name}.attention.output.LayerNorm", attended)
        inner = self.activation(self.linear(f"{name}.intermediate.dense", states))
        outer = graph.op("Add", self.linear(f"{name}.output.dense", inner), states)
        return self.norm(f"{name}.output.LayerNorm", outer)

    def split(self, name: str, states: str, order: tuple[int, ...]) -> str:
        """A projection cut into heads: (batch, tokens, heads, head) in the given order of axes."""
        shape = self.graph.ints(0, 0, self.heads, self.head_size)
        return self.graph.op("Transpose", self.graph.op("Reshape", self.linear(name, states), shape), perm=list(order))

    def linear(self, name: str, value: str) -> str:
        return self.graph.linear(value, name, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def norm(self, name: str, value: str) -> str:
        scale = self.graph.weight(f"{name}.weight", self.weights[f"{name}.weight"])
        shift = self.graph.weight(f"{name}.bias", self.weights[f"{name}.bias"])
        epsilon = float(self.config.layer_norm_eps)
        return self.graph.op("LayerNormalization", value, scale, shift, axis=-1, epsilon=epsilon)

    def activation(self, value: str) -> str:
        graph, kind = self.graph, self.config.hidden_act
        if kind == "relu":
            return graph.op("Relu", value)
        if kind == "gelu":  # x / 2 * (1 + erf(x / sqrt 2))
            bent = graph.op("Erf", graph.op("Div", value, graph.scalar(math.sqrt(2.0))))
        else:  # x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))): gelu_new, gelu_pytorch_tanh
            cube = graph.op("Mul", graph.op("Mul", value, value), value)
            inner = graph.op("Add", value, graph.op("Mul", cube, graph.scalar(0.044715)))
            bent = graph.op("Tanh", graph.op("Mul", inner, graph.scalar(math.sqrt(2.0 / math.pi))))
        product = graph.op("Mul", value, graph.op("Add", bent, graph.scalar(1.0)))
        return graph.op("Mul", product, graph.scalar(0.5))
