"""Adapters of a model over packs. Apart from `lora`, because it needs Triton, which CPU images lack."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from embedding_stages.contract.settings import Lora
from embedding_stages.encoder.packed.adapters import FIRST, PackedAdapters, linear_layers
from embedding_stages.encoder.packed.encoder import PackedEncoder
from embedding_stages.finetune.lora import Adapters, chosen, first_of


@dataclass(frozen=True, slots=True)
class PackedLora:
    """Adapters, what is trained of them, and its float32 numbers (the same where the model is float32)."""

    adapters: Adapters
    weights: PackedAdapters
    master: torch.Tensor


def add_packed_adapters(
    encoder: PackedEncoder, settings: Lora, *, seed: int, base_name: str | None = None
) -> PackedLora:
    """See `lora.add_adapters`: the same adapters, with the same numbers, for the same seed.

    The encoder's weights are frozen when a trainer holds the adapters' gradients.
    """
    adapters = Adapters(settings, chosen(linear_layers(encoder.model), settings), base_name)
    weights = PackedAdapters(encoder.model, adapters.paths, rank=settings.rank, scale=adapters.scale)
    master = weights.flat.float()  # itself where it is float32
    generator = torch.Generator().manual_seed(seed)
    named = dict(weights.views(master))
    for path in adapters.paths:
        view = named[f"{path}.{FIRST}"]
        view.copy_(first_of(settings.rank, view.shape[1], generator))
    weights.flat.copy_(master)
    return PackedLora(adapters, weights, master)
