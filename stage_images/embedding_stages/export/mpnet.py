"""MPNet's layers as ONNX nodes: BERT's, with a bias of the distance between query and key on every score."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from onnx import TensorProto

from embedding_stages.export.attention import places
from embedding_stages.export.bert import BertNodes, Names
from embedding_stages.export.graph import Array, Graph

_NAMES = Names(
    queries="attention.attn.q",
    keys="attention.attn.k",
    values="attention.attn.v",
    attended="attention.attn.o",
    attended_norm="attention.LayerNorm",
)


def mpnet_states(
    graph: Graph,
    weights: Mapping[str, Array],
    config: Any,
    first_position: int,
    bucket: Callable[[torch.Tensor], torch.Tensor],
) -> str:
    """Hidden states (batch, tokens, hidden) of the graph's inputs. `config` is a transformers MPNetConfig.

    `bucket` is the library's: the row of the table of biases for a key's place less the query's, int64 of any shape.
    """
    most = config.max_position_embeddings - first_position - 1  # the largest distance between two tokens
    rows = bucket(torch.arange(-most, most + 1)).numpy()
    table = weights["encoder.relative_attention_bias.weight"][rows]  # (2 most + 1, heads)
    return BertNodes(graph, weights, config, _NAMES).states(first_position, _bias(graph, table, most))


def _bias(graph: Graph, table: Array, most: int) -> str:
    """What is added to each score: float32 (heads, queries, keys)."""
    place = places(graph)
    ahead = graph.op("Sub", graph.op("Unsqueeze", place, graph.ints(0)), graph.op("Unsqueeze", place, graph.ints(1)))
    row = graph.op("Cast", graph.op("Add", ahead, graph.scalar(float(most))), to=TensorProto.INT64)
    return graph.op("Transpose", graph.op("Gather", graph.weight("distances", table), row), perm=[2, 0, 1])
