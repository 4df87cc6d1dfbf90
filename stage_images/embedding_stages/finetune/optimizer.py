"""The optimizer of the recipe, its state made at once."""

from __future__ import annotations

from typing import Final

import torch

MOMENTS: Final = ("exp_avg", "exp_avg_sq")
_BETAS: Final = (0.9, 0.999)  # torch's defaults, the recipe's too
_EPSILON: Final = 1e-8


def optimizer_of(parameters: dict[str, torch.nn.Parameter], weight_decay: float) -> torch.optim.AdamW:
    """AdamW without decay on norms and biases. Its state is made here: memory runs out now or not at all."""
    plain = [value for name, value in parameters.items() if "norm" in name.lower() or name.endswith("bias")]
    chosen = {id(value) for value in plain}
    decayed = [value for value in parameters.values() if id(value) not in chosen]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}],
        lr=0.0,
        betas=_BETAS,
        eps=_EPSILON,
        fused=True,
    )
    for value in parameters.values():
        optimizer.state[value] = {
            "step": torch.zeros((), dtype=torch.float32, device=value.device),
            **{moment: torch.zeros_like(value) for moment in MOMENTS},
        }
    return optimizer
