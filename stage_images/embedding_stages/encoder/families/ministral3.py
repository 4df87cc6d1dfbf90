"""Ministral 3 with bidirectional attention, as Nemotron 3 Embed has it: heads of their own size, mean pooling."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from embedding_stages.encoder.configuration import Config, for_library, rotations
from embedding_stages.encoder.families.decoder import Decoder, as_bidirectional, is_bidirectional
from embedding_stages.encoder.families.family import Unsupported
from embedding_stages.encoder.families.rotary import rotary_of
from embedding_stages.encoder.pooling import Pooling

if TYPE_CHECKING:
    import torch

    from embedding_stages.export.graph import Array, Graph

_BETA: Final = "llama_4_scaling_beta"  # how much queries grow with each turn of the original positions
_ORIGINAL: Final = "original_max_position_embeddings"


class _Ministral3Bidirectional(Decoder):
    name = "ministral3_bidirectional"
    title = "bidirectional Ministral 3 (ministral3 with is_causal false, ministral3_bidirec)"
    example = "nvidia/Nemotron-3-Embed-1B-BF16"
    resembles = ("mistral3", "ministral")
    prefixes = MappingProxyType({"query": "query: ", "passage": "passage: "})  # NVIDIA embed recipe

    def recognises(self, config: Config) -> bool:
        return config.get("model_type") in ("ministral3", "ministral3_bidirec")

    def check(self, config: Config) -> None:
        if not is_bidirectional(config):
            raise Unsupported("model_type 'ministral3'; a causal Ministral 3 is no encoder")
        if config.get("sliding_window"):
            raise Unsupported("a Ministral 3 whose layers see a window of tokens alone")

    def published(self, config: Config, pooling: Pooling) -> dict[str, Any]:
        """What transformers reads without the model's own code; `pooling` is for readers of bidirectional models.

        vLLM looks for how queries grow in a field of its own, and lets them be where there is none.
        """
        told = as_bidirectional(config, "ministral3", "Ministral3Model", pooling)
        for turned in rotations(config):
            if turned.get(_BETA):
                original = turned.get(_ORIGINAL) or self.positions(config)
                told["llama_4_scaling"] = {"beta": turned[_BETA], _ORIGINAL: original}
        return told

    def library(self) -> tuple[Any, Any]:
        from transformers import Ministral3Config, Ministral3Model

        return Ministral3Config, Ministral3Model

    def settings(self, config: Config) -> dict[str, Any]:
        """The library wants to know how queries grow; they do not where config.json says nothing of it."""
        settings = for_library(config)
        for key in ("rope_parameters", "rope_scaling"):
            if isinstance(settings.get(key), dict):
                settings[key] = {_BETA: 0.0, _ORIGINAL: self.positions(config), **settings[key]}
        return settings

    def onnx_states(self, graph: Graph, weights: Mapping[str, Array], module: torch.nn.Module) -> str:
        from embedding_stages.export.llama import llama_states
        from embedding_stages.export.ministral3 import position_scale

        config: Any = module.config
        beta = float(config.rope_parameters[_BETA])
        scale = position_scale(graph, beta, int(config.rope_parameters[_ORIGINAL])) if beta else None
        return llama_states(graph, weights, config, *rotary_of(module.rotary_emb), query_scale=scale)


MINISTRAL3_BIDIRECTIONAL: Final = _Ministral3Bidirectional()
