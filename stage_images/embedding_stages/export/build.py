"""An encoder to model.onnx."""

from __future__ import annotations

from pathlib import Path

import torch
from onnx import TensorProto, helper

from embedding_stages.encoder.model import PaddedEncoder
from embedding_stages.encoder.pooling import carried
from embedding_stages.export.graph import EXTERNAL_ABOVE_BYTES, OPSET, Array, Graph, Precision, Product
from embedding_stages.export.head import dense_vectors, shortened
from embedding_stages.export.inputs import ATTENTION_MASK, DIMENSIONS, EMBEDDINGS, INPUT_IDS
from embedding_stages.export.pooling import ONNX_POOLINGS


def build_onnx(
    encoder: PaddedEncoder,
    path: Path,
    precision: Precision,
    *,
    opset: int = OPSET,
    external_above: int = EXTERNAL_ABOVE_BYTES,
) -> list[Product]:
    """Write the graph: int64 input_ids and attention_mask (batch, tokens), int64 dimensions (batch,) ->
    float32 embeddings (batch, width). Returns its products with weights. The encoder must be in float32 on the CPU.
    """
    graph = Graph(precision, opset=opset)
    weights = {name: _array(value) for name, value in encoder.module.named_parameters()}
    description = encoder.description
    states = description.family.onnx_states(graph, weights, encoder.module)
    vector = carried(ONNX_POOLINGS, description.pooling)(graph, states)
    vector = dense_vectors(graph, vector, description.dense, weights)
    graph.rename(shortened(graph, vector, description.vector_size), EMBEDDINGS)
    graph.save(
        path,
        inputs=[
            helper.make_tensor_value_info(INPUT_IDS, TensorProto.INT64, ["batch", "tokens"]),
            helper.make_tensor_value_info(ATTENTION_MASK, TensorProto.INT64, ["batch", "tokens"]),
            helper.make_tensor_value_info(DIMENSIONS, TensorProto.INT64, ["batch"]),
        ],
        outputs=[helper.make_tensor_value_info(EMBEDDINGS, TensorProto.FLOAT, ["batch", "width"])],
        external_above=external_above,
    )
    return graph.products


def _array(value: torch.Tensor) -> Array:
    """A float32 view of a tensor on the CPU; no copy when it is one already."""
    array: Array = value.detach().to(device="cpu", dtype=torch.float32).numpy()
    return array
