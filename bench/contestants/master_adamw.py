"""AdamW on fp32 copies of bf16 parameters, with clipping: stands in for Transformer Engine's FusedAdam."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import torch

WEIGHT_DECAY: Final = 0.01  # the recipe's; norms are spared
LEARNING_RATE: Final = 1e-5
MAX_NORM: Final = 1.0


class MasterAdamW:
    """Steps the masters by the parameters' gradients and writes them back."""

    def __init__(self, parameters: Iterable[tuple[str, torch.nn.Parameter]], *, fused: bool) -> None:
        trained = [(name, parameter) for name, parameter in parameters if parameter.requires_grad]
        self._parameters = [parameter for _, parameter in trained]
        self._masters = [torch.nn.Parameter(parameter.detach().float().clone()) for parameter in self._parameters]
        for master in self._masters:
            master.grad = torch.zeros_like(master)
        spared = ["norm" in name.lower() or name.endswith(".bias") for name, _ in trained]
        groups = [
            {
                "params": [master for master, plain in zip(self._masters, spared, strict=True) if plain == value],
                "weight_decay": 0.0 if value else WEIGHT_DECAY,
            }
            for value in (False, True)
        ]
        self._optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, fused=fused)

    @torch.no_grad()
    def step(self) -> None:
        """One update; the gradients are gone afterwards."""
        if any(parameter.grad is None for parameter in self._parameters):
            raise RuntimeError("a parameter took no part in the step")
        torch._foreach_copy_([m.grad for m in self._masters], [p.grad for p in self._parameters])
        torch.nn.utils.clip_grad_norm_(self._masters, MAX_NORM, foreach=True)
        self._optimizer.step()
        torch._foreach_copy_(self._parameters, self._masters)
        for parameter in self._parameters:
            parameter.grad = None
