"""What the families have in common whose positions are rotary: the library's classes and the model over packs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedding_stages.encoder.configuration import Config, for_library
from embedding_stages.encoder.families.family import Family

if TYPE_CHECKING:
    import torch

    from embedding_stages.encoder.packed.base import PackedModel
    from embedding_stages.export.graph import Array


class Rotary(Family):
    """Llama and its relatives, near and far."""

    packs = True

    @abstractmethod
    def library(self) -> tuple[Any, Any]:
        """transformers' classes of the configuration and of the model without a head."""

    def settings(self, config: Config) -> dict[str, Any]:
        """config.json as keywords of the configuration's class."""
        return for_library(config)

    def load(self, folder: Path, config: Config, options: Mapping[str, Any]) -> tuple[torch.nn.Module, dict[str, Any]]:
        settings, model = self.library()
        found: tuple[torch.nn.Module, dict[str, Any]] = model.from_pretrained(
            folder, config=settings(**self.settings(config)), **options
        )
        return found

    def packed_model(self) -> type[PackedModel]:
        from embedding_stages.encoder.packed.llama import PackedLlama

        return PackedLlama


def rotary_of(rotary: Any, kind: str = "") -> tuple[Array, float]:
    """Frequencies, float32 (head / 2,), and scale of a module's rotary positions; of one kind of its layers."""
    start = f"{kind}_" if kind else ""
    frequencies = getattr(rotary, f"{start}inv_freq").detach().cpu().float().numpy()
    return frequencies, float(getattr(rotary, f"{start}attention_scaling"))
