"""Llama with bidirectional attention, as NVIDIA's embedding models have it: rotary positions, mean pooling."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from embedding_stages.encoder.configuration import Config, for_library
from embedding_stages.encoder.families.family import Family, Unsupported
from embedding_stages.encoder.pooling import POOLINGS, Pooling

if TYPE_CHECKING:
    import torch

    from embedding_stages.encoder.packed.base import PackedModel
    from embedding_stages.export.graph import Array, Graph


class _LlamaBidirectional(Family):
    name = "llama_bidirectional"
    title = "bidirectional Llama (llama_bidirec)"
    example = "nvidia/llama-nemotron-embed-1b-v2"
    resembles = ("mistral", "qwen2", "gemma", "gemma2", "phi3", "mixtral")
    activations = ("silu",)
    table = "embed_tokens.weight"
    layers = "layers"
    prefixes = MappingProxyType({"query": "query: ", "passage": "passage: "})  # NVIDIA embed recipe, profile llama
    shorter_dimensions = (1024, 768, 512, 384)  # llama-nemotron-embed-1b-v2, beside its hidden size of 2048
    packs = True
    needs = (
        "It needs transformers 5.2 or later, for `is_causal: false`: older ones compute other vectors.",
        "It needs no code from this folder: `trust_remote_code` stays off.",
    )

    def recognises(self, config: Config) -> bool:
        return config.get("model_type") in ("llama", "llama_bidirec")

    def check(self, config: Config) -> None:
        names = [str(name) for name in config.get("architectures") or []]
        bidirectional = (
            config["model_type"] == "llama_bidirec"
            or config.get("is_causal") is False
            or bool(config.get("use_bidirectional_attention"))
            or any("Bidirectional" in name for name in names)
        )
        if not bidirectional:
            raise Unsupported("model_type 'llama'; a causal Llama is no encoder")

    def published(self, config: Config, pooling: Pooling) -> dict[str, Any]:
        """transformers and sentence-transformers read `is_causal`, vLLM the architecture with `pooling`."""
        return {
            **config,
            "model_type": "llama",
            "architectures": ["LlamaBidirectionalModel"],
            "is_causal": False,
            "pooling": POOLINGS[pooling].config_names[0],
        }

    def load(self, folder: Path, config: Config, options: Mapping[str, Any]) -> tuple[torch.nn.Module, dict[str, Any]]:
        from transformers import LlamaConfig, LlamaModel

        module, report = LlamaModel.from_pretrained(folder, config=LlamaConfig(**for_library(config)), **options)
        for layer in module.layers:
            layer.self_attn.is_causal = self.causal
        return module, report

    def states(self, module: torch.nn.Module, ids: torch.Tensor, mask: torch.Tensor) -> Any:
        from embedding_stages.encoder.attention import visible

        seen = visible(mask, causal=self.causal)
        return module(input_ids=ids, attention_mask=seen, use_cache=False).last_hidden_state

    def packed_model(self) -> type[PackedModel]:
        from embedding_stages.encoder.packed.llama import PackedLlama

        return PackedLlama

    def onnx_states(self, graph: Graph, weights: Mapping[str, Array], module: torch.nn.Module) -> str:
        from embedding_stages.export.llama import llama_states

        rotary: Any = module.rotary_emb
        frequencies = rotary.inv_freq.detach().cpu().float().numpy()
        scale = float(rotary.attention_scaling)
        return llama_states(graph, weights, module.config, frequencies, scale, causal=self.causal)


LLAMA_BIDIRECTIONAL: Final = _LlamaBidirectional()
