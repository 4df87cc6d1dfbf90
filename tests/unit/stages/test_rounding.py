"""The limits hold for another order of addition, and for nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from unit.stages import rounding

TOKENS, WIDTH, HEIGHT = 39, 64, 48
RATES = (1e-3, 1e-2)
TERMS = rounding.backward_terms({"hidden_size": WIDTH, "num_hidden_layers": 2}, tokens=TOKENS)
AS_IT_IS: dict[str, Any] = {"order": list(range(TOKENS)), "rates": RATES, "decay": 0.01, "beta": 0.999}


def states_of(
    *, order: list[int], rates: tuple[float, ...], decay: float, beta: float
) -> list[dict[str, torch.Tensor]]:
    """AdamW's state after each step on one matrix whose gradients are sums over tokens, added in `order`."""
    random = torch.Generator().manual_seed(0)
    weight = torch.nn.Parameter(0.2 * torch.randn(HEIGHT, WIDTH, generator=random))
    optimizer = torch.optim.AdamW([weight], weight_decay=decay, betas=(0.9, beta))
    states = []
    for rate in rates:
        left, right = (torch.randn(TOKENS, size, generator=random) for size in (HEIGHT, WIDTH))
        left[:, 0] = 0.0  # has no gradient, like a token that no text has
        weight.grad = torch.zeros(HEIGHT, WIDTH)
        for token in order:
            weight.grad += torch.outer(left[token], right[token])
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        states.append(
            {"weights.w": weight.detach().clone()}
            | {f"{kind}.w": optimizer.state[weight][kind].clone() for kind in ("exp_avg", "exp_avg_sq")}
        )
    return states


def compare(**changes: Any) -> None:
    limits = rounding.TrainedLimits(TERMS)
    for state, rate in zip(states_of(**AS_IT_IS), RATES, strict=True):
        limits.after_step(state, rate)
    limits.assert_same(states_of(**AS_IT_IS | changes)[-1])


@pytest.mark.parametrize("seed", range(5))
def test_another_order_of_addition_is_within_the_limits(seed: int) -> None:
    order = torch.randperm(TOKENS, generator=torch.Generator().manual_seed(seed)).tolist()
    compare(order=order)


@pytest.mark.parametrize(
    "changes",
    [
        {"order": list(range(TOKENS - 1))},
        {"order": [*range(TOKENS), 0]},
        {"rates": (1e-3, 1.0005e-2)},
        {"rates": (1.005e-3, 1e-2)},
        {"decay": 0.0},
        {"decay": 0.0105},
        {"beta": 0.998},
    ],
    ids=["a lost token", "a token twice", "a rate", "an earlier rate", "no decay", "another decay", "another beta"],
)
def test_a_fault_is_outside(changes: dict[str, Any]) -> None:
    with pytest.raises(AssertionError, match="outside its limit"):
        compare(**changes)


def test_a_gradient_without_one_of_its_tokens_is_outside() -> None:
    random = torch.Generator().manual_seed(0)
    left, right = torch.randn(TOKENS, 8, generator=random), torch.randn(TOKENS, 8, generator=random)
    whole = {"w": left.T @ right}
    rounding.assert_same_gradients({"w": left.flip(0).T @ right.flip(0)}, whole, terms=TERMS)
    with pytest.raises(AssertionError, match="w: "):
        rounding.assert_same_gradients({"w": left[1:].T @ right[1:]}, whole, terms=TERMS)
