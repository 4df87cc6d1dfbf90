"""ModernBERT: rotary positions, layers that see all tokens in turn with a window of them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from embedding_stages.encoder.configuration import Config
from embedding_stages.encoder.families.windowed import Windowed

if TYPE_CHECKING:
    import torch

    from embedding_stages.export.graph import Array, Graph


class _ModernBert(Windowed):
    name = "modernbert"
    title = "ModernBERT (modernbert)"
    example = "Alibaba-NLP/gte-modernbert-base"
    activations = ("gelu", "relu", "silu", "gelu_new", "gelu_pytorch_tanh")
    table = "embeddings.tok_embeddings.weight"
    layers = "layers"
    bases = MappingProxyType({"full_attention": "global_rope_theta", "sliding_attention": "local_rope_theta"})
    poolings = ("mean", "cls")
    headless = MappingProxyType({"modernbert": "ModernBertModel"})

    def recognises(self, config: Config) -> bool:
        return config.get("model_type") == "modernbert"

    def check(self, config: Config) -> None:
        """All of them can be used."""

    def library(self) -> tuple[Any, Any]:
        from transformers import ModernBertConfig, ModernBertModel

        return ModernBertConfig, ModernBertModel

    def window(self, config: Any) -> int:
        return int(config.local_attention) // 2  # which counts both sides

    def onnx_states(self, graph: Graph, weights: Mapping[str, Array], module: torch.nn.Module) -> str:
        from embedding_stages.export.modernbert import modernbert_states

        config: Any = module.config
        return modernbert_states(graph, weights, config, self.rotary(module), self.window(config))


MODERNBERT: Final = _ModernBert()
