"""What Ministral 3 has beyond Llama's layers, as ONNX nodes."""

from __future__ import annotations

from embedding_stages.export.attention import places
from embedding_stages.export.graph import Graph


def position_scale(graph: Graph, beta: float, original_positions: int) -> str:
    """1 + beta * ln(1 + floor(place / original positions)): what queries are multiplied by, float32 (tokens, 1)."""
    turns = graph.op("Floor", graph.op("Div", places(graph), graph.scalar(float(original_positions))))
    grown = graph.op("Log", graph.op("Add", turns, graph.scalar(1.0)))
    scale = graph.op("Add", graph.op("Mul", grown, graph.scalar(beta)), graph.scalar(1.0))
    return graph.op("Unsqueeze", scale, graph.ints(1))
