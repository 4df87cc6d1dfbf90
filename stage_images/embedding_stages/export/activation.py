"""Activations as ONNX nodes, by the names that config.json and encoder.json have for them."""

from __future__ import annotations

import math

from embedding_stages.export.graph import Graph


def activated(graph: Graph, kind: str, value: str) -> str:
    """`kind` is identity, tanh, relu, silu, gelu, or GELU by the hyperbolic tangent: gelu_new, gelu_pytorch_tanh."""
    if kind == "identity":
        return value
    if kind == "tanh":
        return graph.op("Tanh", value)
    if kind == "relu":
        # Not as Relu: before a QuantizeLinear to float8, ONNX Runtime 1.32 takes that for a no-op and drops it.
        return graph.op("Max", value, graph.scalar(0.0))
    if kind == "silu":
        return graph.op("Mul", value, graph.op("Sigmoid", value))
    if kind == "gelu":  # x / 2 * (1 + erf(x / sqrt 2))
        bent = graph.op("Erf", graph.op("Div", value, graph.scalar(math.sqrt(2.0))))
    elif kind in ("gelu_new", "gelu_pytorch_tanh"):  # x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))
        cube = graph.op("Mul", graph.op("Mul", value, value), value)
        inner = graph.op("Add", value, graph.op("Mul", cube, graph.scalar(0.044715)))
        bent = graph.op("Tanh", graph.op("Mul", inner, graph.scalar(math.sqrt(2.0 / math.pi))))
    else:
        raise ValueError(f"activation {kind}")
    half = graph.op("Mul", value, graph.scalar(0.5))  # first: twice a large value is more than float16 holds
    return graph.op("Mul", half, graph.op("Add", bent, graph.scalar(1.0)))
