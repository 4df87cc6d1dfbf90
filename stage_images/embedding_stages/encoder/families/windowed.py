"""What the families have in common whose layers see all tokens in turn with a window of them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from embedding_stages.encoder.configuration import Config
from embedding_stages.encoder.families.rotary import Rotary, rotary_of
from embedding_stages.encoder.pooling import Pooling

if TYPE_CHECKING:
    import torch

    from embedding_stages.export.graph import Array


class Windowed(Rotary):
    """Layers of two kinds, full_attention and sliding_attention, with positions of their own."""

    bases: ClassVar[Mapping[str, str]]  # what transformers 4 calls the base of the angles, by the kind of layer

    def published(self, config: Config, pooling: Pooling) -> dict[str, Any]:
        """With the bases where transformers 4 reads them too: it passes over `rope_parameters` for its defaults."""
        kinds = config.get("rope_parameters")
        told = kinds if isinstance(kinds, Mapping) else {}
        angles = {name: told[kind] for kind, name in self.bases.items() if isinstance(told.get(kind), Mapping)}
        bases = {name: angle["rope_theta"] for name, angle in angles.items() if "rope_theta" in angle}
        return bases | super().published(config, pooling)

    def activation(self, config: Config) -> Any:
        return config.get("hidden_activation", self.activations[0])

    @abstractmethod
    def window(self, config: Any) -> int:
        """How many tokens away a token may be that another sees, of the library's configuration."""

    def load(self, folder: Path, config: Config, options: Mapping[str, Any]) -> tuple[torch.nn.Module, dict[str, Any]]:
        module, report = super().load(folder, config, options)
        windowed: Any = module
        windowed.config.use_cache = False
        return module, report

    def states(self, module: torch.nn.Module, ids: torch.Tensor, mask: torch.Tensor) -> Any:
        from embedding_stages.encoder.attention import visible

        seen = {
            "full_attention": visible(mask),
            "sliding_attention": visible(mask, window=self.window(module.config)),
        }
        return module(input_ids=ids, attention_mask=seen).last_hidden_state

    def rotary(self, module: torch.nn.Module) -> dict[str, tuple[Array, float]]:
        """Frequencies and scale of each kind of layer that the model has."""
        config: Any = module.config
        return {kind: rotary_of(module.rotary_emb, kind) for kind in sorted(set(config.layer_types))}
