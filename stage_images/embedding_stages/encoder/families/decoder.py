"""What the families whose layers are Llama's, or nearly, have in common."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedding_stages.encoder.configuration import Config
from embedding_stages.encoder.families.rotary import Rotary, rotary_of
from embedding_stages.encoder.pooling import POOLINGS, Pooling

if TYPE_CHECKING:
    import torch

    from embedding_stages.export.graph import Array, Graph


class Decoder(Rotary):
    """A decoder without its head; every token sees all others unless the family is `causal`."""

    activations = ("silu",)
    table = "embed_tokens.weight"
    layers = "layers"

    def load(self, folder: Path, config: Config, options: Mapping[str, Any]) -> tuple[torch.nn.Module, dict[str, Any]]:
        module, report = super().load(folder, config, options)
        decoder: Any = module
        for layer in decoder.layers:
            layer.self_attn.is_causal = self.causal
        return module, report

    def states(self, module: torch.nn.Module, ids: torch.Tensor, mask: torch.Tensor) -> Any:
        from embedding_stages.encoder.attention import visible

        seen = visible(mask, causal=self.causal)
        return module(input_ids=ids, attention_mask=seen, use_cache=False).last_hidden_state

    def onnx_states(self, graph: Graph, weights: Mapping[str, Array], module: torch.nn.Module) -> str:
        from embedding_stages.export.llama import llama_states

        frequencies, scale = rotary_of(module.rotary_emb)
        return llama_states(graph, weights, module.config, frequencies, scale, causal=self.causal)


def is_bidirectional(config: Config) -> bool:
    """Whether config.json says, in one of the ways that published models have, that a token sees those after it."""
    named = config.get("architectures")
    names = [str(name) for name in named] if isinstance(named, list) else []
    return (
        str(config.get("model_type")).endswith("_bidirec")
        or config.get("is_causal") is False
        or bool(config.get("use_bidirectional_attention"))
        or any("Bidirectional" in name for name in names)
    )


def as_bidirectional(config: Config, model_type: str, architecture: str, pooling: Pooling) -> dict[str, Any]:
    """config.json of a model whose tokens see all others, for readers that have no code of its own."""
    return {
        **config,
        "model_type": model_type,
        "architectures": [architecture],
        "is_causal": False,
        "pooling": POOLINGS[pooling].config_names[0],
    }
