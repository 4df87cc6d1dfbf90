"""BERT: absolute positions, post-norm layers, mean pooling."""

from __future__ import annotations

from collections.abc import Container, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from embedding_stages.encoder.configuration import Config, for_library
from embedding_stages.encoder.families.family import Family, Unsupported

if TYPE_CHECKING:
    import torch

    from embedding_stages.export.graph import Array, Graph


class _Bert(Family):
    name = "bert"
    title = "BERT (model_type bert)"
    activations = ("gelu", "relu", "gelu_new", "gelu_pytorch_tanh")
    table = "embeddings.word_embeddings.weight"
    position_table = "embeddings.position_embeddings.weight"
    layers = "encoder.layer"
    sentence_transformers = True

    def recognises(self, config: Config) -> bool:
        return config.get("model_type") == "bert"

    def check(self, config: Config) -> None:
        if config.get("is_decoder") or config.get("add_cross_attention"):
            raise Unsupported("a BERT decoder is no encoder")
        if config.get("position_embedding_type", "absolute") != "absolute":
            raise Unsupported(f"BERT with {config['position_embedding_type']} positions")

    def disk_name(self, name: str, on_disk: Container[str]) -> str:
        """Old BERT files call a norm's weight gamma and its bias beta."""
        old = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        return old if name not in on_disk and old in on_disk else name

    def load(self, folder: Path, config: Config, options: Mapping[str, Any]) -> tuple[torch.nn.Module, dict[str, Any]]:
        from transformers import BertConfig, BertModel

        found: tuple[torch.nn.Module, dict[str, Any]] = BertModel.from_pretrained(
            folder, config=BertConfig(**for_library(config)), add_pooling_layer=False, **options
        )
        return found

    def states(self, module: torch.nn.Module, ids: torch.Tensor, mask: torch.Tensor) -> Any:
        return module(input_ids=ids, attention_mask=mask).last_hidden_state

    def onnx_states(self, graph: Graph, weights: Mapping[str, Array], module: torch.nn.Module) -> str:
        from embedding_stages.export.bert import bert_states

        return bert_states(graph, weights, module.config)


BERT: Final = _Bert()
