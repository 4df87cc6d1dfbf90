"""Llama with bidirectional attention, as NVIDIA's embedding models have it: rotary positions, mean pooling."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, Final

from embedding_stages.encoder.configuration import Config
from embedding_stages.encoder.families.decoder import Decoder, as_bidirectional, is_bidirectional
from embedding_stages.encoder.families.family import Unsupported
from embedding_stages.encoder.pooling import Pooling


class _LlamaBidirectional(Decoder):
    name = "llama_bidirectional"
    title = "bidirectional Llama (llama_bidirec)"
    example = "nvidia/llama-nemotron-embed-1b-v2"
    resembles = ("mistral", "phi3", "mixtral")
    prefixes = MappingProxyType({"query": "query: ", "passage": "passage: "})  # NVIDIA embed recipe, profile llama
    shorter_dimensions = (1024, 768, 512, 384)  # llama-nemotron-embed-1b-v2, beside its hidden size of 2048
    needs = (
        "It needs transformers 5.2 or later, for `is_causal: false`: older ones compute other vectors.",
        "It needs no code from this folder: `trust_remote_code` stays off.",
    )

    def recognises(self, config: Config) -> bool:
        return config.get("model_type") in ("llama", "llama_bidirec")

    def check(self, config: Config) -> None:
        if not is_bidirectional(config):
            raise Unsupported("model_type 'llama'; a causal Llama is no encoder")

    def published(self, config: Config, pooling: Pooling) -> dict[str, Any]:
        """transformers and sentence-transformers read `is_causal`, vLLM the architecture with `pooling`."""
        return as_bidirectional(config, "llama", "LlamaBidirectionalModel", pooling)

    def library(self) -> tuple[Any, Any]:
        from transformers import LlamaConfig, LlamaModel

        return LlamaConfig, LlamaModel


LLAMA_BIDIRECTIONAL: Final = _LlamaBidirectional()
