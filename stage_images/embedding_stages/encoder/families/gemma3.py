"""Gemma 3's text model with bidirectional attention, as EmbeddingGemma has it: windows, mean pooling, Dense modules."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from embedding_stages.encoder.configuration import Config
from embedding_stages.encoder.families.family import Unsupported
from embedding_stages.encoder.families.windowed import Windowed

if TYPE_CHECKING:
    import torch

    from embedding_stages.export.graph import Array, Graph


class _Gemma3(Windowed):
    name = "gemma3_text"
    title = "bidirectional Gemma 3 (gemma3_text with use_bidirectional_attention)"
    example = "google/embeddinggemma-300m"
    resembles = ("gemma", "gemma2", "gemma3", "gemma3n")
    activations = ("gelu_pytorch_tanh",)
    table = "embed_tokens.weight"
    layers = "layers"
    headless = MappingProxyType({"gemma3_text": "Gemma3TextModel"})
    bases = MappingProxyType({"full_attention": "rope_theta", "sliding_attention": "rope_local_base_freq"})
    prefixes = MappingProxyType({"query": "task: search result | query: ", "passage": "title: none | text: "})
    shorter_dimensions = (512, 256, 128)  # EmbeddingGemma, beside its 768

    def recognises(self, config: Config) -> bool:
        return config.get("model_type") == "gemma3_text"

    def check(self, config: Config) -> None:
        if not config.get("use_bidirectional_attention"):
            raise Unsupported(
                "model_type 'gemma3_text' without use_bidirectional_attention; a causal one is no encoder"
            )

    def library(self) -> tuple[Any, Any]:
        from transformers import Gemma3TextConfig, Gemma3TextModel

        return Gemma3TextConfig, Gemma3TextModel

    def window(self, config: Any) -> int:
        return int(config.sliding_window) - 1  # the library has halved it, and counts the token itself

    def onnx_states(self, graph: Graph, weights: Mapping[str, Array], module: torch.nn.Module) -> str:
        from embedding_stages.export.gemma3 import gemma3_states

        config: Any = module.config
        return gemma3_states(graph, weights, config, self.rotary(module), self.window(config))


GEMMA3: Final = _Gemma3()
