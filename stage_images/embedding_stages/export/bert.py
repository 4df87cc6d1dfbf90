"""The layers of BERT and its kin as ONNX nodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from embedding_stages.export.activation import activated
from embedding_stages.export.attention import attend, mask_scores, tokens_count
from embedding_stages.export.graph import Array, Graph
from embedding_stages.export.inputs import INPUT_IDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What a family calls the weights of a layer's attention, behind the layer's own name; the rest is BERT's."""

    queries: str = "attention.self.query"
    keys: str = "attention.self.key"
    values: str = "attention.self.value"
    attended: str = "attention.output.dense"
    attended_norm: str = "attention.output.LayerNorm"


def bert_states(graph: Graph, weights: Mapping[str, Array], config: Any, first_position: int = 0) -> str:
    """Hidden states (batch, tokens, hidden) of the graph's inputs. `config` is a transformers BertConfig or its like.

    `first_position` is the row of the table of positions that belongs to the first token.
    """
    return BertNodes(graph, weights, config, Names()).states(first_position)


class BertNodes:
    """The nodes of one model."""

    def __init__(self, graph: Graph, weights: Mapping[str, Array], config: Any, names: Names) -> None:
        self.graph, self.weights, self.config, self.names = graph, weights, config, names
        self.heads: int = config.num_attention_heads
        self.head_size: int = config.hidden_size // self.heads

    def states(self, first_position: int, bias: str | None = None) -> str:
        """The last hidden states; `bias` float32 (heads, queries, keys) is added to the scores of every layer."""
        states = self.embeddings(first_position)
        scores_mask = mask_scores(self.graph, (1, 2))
        if bias is not None:
            scores_mask = self.graph.op("Add", scores_mask, bias)
        for number in range(self.config.num_hidden_layers):
            states = self.layer(f"encoder.layer.{number}", states, scores_mask)
        return states

    def embeddings(self, first_position: int) -> str:
        """Word, position and segment 0; one text is one segment, so that is one constant table of positions."""
        graph = self.graph
        words = graph.table("words", self.weights["embeddings.word_embeddings.weight"], INPUT_IDS)
        places = self.weights["embeddings.position_embeddings.weight"][first_position:]
        segments = self.weights.get("embeddings.token_type_embeddings.weight")  # MPNet has none
        table = graph.weight("positions", places if segments is None else places + segments[0])
        positions = graph.op("Slice", table, graph.ints(0), tokens_count(graph), graph.ints(0))
        return self.norm("embeddings.LayerNorm", graph.op("Add", words, positions))

    def layer(self, name: str, states: str, scores_mask: str) -> str:
        graph, names = self.graph, self.names
        queries = self.split(f"{name}.{names.queries}", states, (0, 2, 1, 3))
        keys = self.split(f"{name}.{names.keys}", states, (0, 2, 3, 1))
        values = self.split(f"{name}.{names.values}", states, (0, 2, 1, 3))
        seen = attend(graph, queries, keys, values, scores_mask, self.head_size)
        joined = graph.op(
            "Reshape", graph.op("Transpose", seen, perm=[0, 2, 1, 3]), graph.ints(0, 0, self.heads * self.head_size)
        )
        attended = graph.op("Add", self.linear(f"{name}.{names.attended}", joined), states)
        states = self.norm(f"{name}.{names.attended_norm}", attended)
        inner = activated(graph, self.config.hidden_act, self.linear(f"{name}.intermediate.dense", states))
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
