"""An encoder to model.onnx."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from onnx import TensorProto, helper

from embedding_stages.encoder.model import PaddedEncoder
from embedding_stages.export.bert import bert_states
from embedding_stages.export.graph import EXTERNAL_ABOVE_BYTES, Array, Graph, Precision
from embedding_stages.export.head import ATTENTION_MASK, DIMENSIONS, EMBEDDINGS, INPUT_IDS, pooled
from embedding_stages.export.llama import llama_states


def build_onnx(
    encoder: PaddedEncoder, path: Path, precision: Precision, *, external_above: int = EXTERNAL_ABOVE_BYTES
) -> None:
    """Write the graph: int64 input_ids and attention_mask (batch, tokens), int64 dimensions (batch,) ->
    float32 embeddings (batch, width). The encoder must be in float32 on the CPU.
    """
    graph = Graph(precision)
    weights = {name: _array(value) for name, value in encoder.module.named_parameters()}
    config: Any = encoder.module.config
    if encoder.description.architecture == "bert":
        states = bert_states(graph, weights, config)
    else:
        rotary: Any = encoder.module.rotary_emb
        states = llama_states(graph, weights, config, _array(rotary.inv_freq), float(rotary.attention_scaling))
    graph.rename(pooled(graph, states, encoder.description.hidden_size), EMBEDDINGS)
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


def _array(value: torch.Tensor) -> Array:
    """A float32 view of a tensor on the CPU; no copy when it is one already."""
    array: Array = value.detach().to(device="cpu", dtype=torch.float32).numpy()
    return array
