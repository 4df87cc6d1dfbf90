"""How far two float32 computations of one value may lie apart, from what they add up.

A processor adds in the order that its vector registers and threads suggest, so two programs for one formula agree on
one machine to the last bit and differ on another. Rounding errors of a sum behave like independent numbers of mean 0:
after n additions the sum is off by more than `_CERTAINTY` * sqrt(n) * `UNIT` * (the terms' magnitude) once in 10^13
times (Higham and Mary, A New Approach to Probabilistic Rounding Error Analysis, SIAM J. Sci. Comput. 41 (2019)).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

UNIT = 2.0**-24  # of float32: the largest relative error of one rounding
_CERTAINTY = 8.0  # standard deviations
_BETAS = (0.9, 0.999)  # of AdamW
_EPSILON = 1e-8
_MOST_UPDATE = 1.05  # |mean| / sqrt(mean square) of AdamW in the first eight steps, by Cauchy-Schwarz
_SUMS = 6  # of a layer, each about as long as the hidden size: two norms, q/k/v, attention's output, up and down


def of_sum(terms: int, magnitude: float = 1.0) -> float:
    """Largest absolute error of a sum of `terms` products, one after the other, whose parts are of `magnitude`."""
    return _CERTAINTY * math.sqrt(terms) * UNIT * magnitude


def forward_terms(config: Mapping[str, Any]) -> int:
    """Products that are added one after the other on the way from a token to its text's vector."""
    return int(_SUMS * config["num_hidden_layers"] * config["hidden_size"])


def backward_terms(config: Mapping[str, Any], tokens: int) -> int:
    """The same on the way to a weight's gradient: forth, back and over the batch's tokens."""
    return 2 * forward_terms(config) + tokens


def of_vectors(config: Mapping[str, Any], expected: np.ndarray[Any, Any] | torch.Tensor) -> float:
    """Largest absolute error of an element of the vectors that a model gives."""
    return of_sum(forward_terms(config), float(abs(expected).max()))


def of_loss(config: Mapping[str, Any], temperature: float) -> float:
    """Largest absolute error of the contrastive loss: two cosines over the temperature, each of magnitude 1."""
    return 2 * of_sum(forward_terms(config)) / temperature


def assert_same_gradients(
    found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor], *, terms: int, skip: str = "\n"
) -> None:
    """Equal but for rounding; an element's terms are as large as its tensor's largest element.

    Names that end in `skip` are left out: their gradient is zero but for rounding.
    """
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if not name.endswith(skip):
            limit = of_sum(terms, float(value.abs().max()))
            torch.testing.assert_close(
                found[name], value, rtol=0, atol=limit, msg=lambda text, at=name: f"{at}: {text}"
            )


class TrainedLimits:
    """Limits of a trainer's state, collected step by step from the trainer that is compared with.

    AdamW divides a gradient's mean m by the root r of its mean square, so an element whose gradient is all rounding
    moves by the whole learning rate in a direction of its own, and another one by (error of m, plus error of r) / r
    of that. An element with no gradient at all (a token that no text has) moves equally everywhere.
    """

    def __init__(self, terms: int) -> None:
        self._terms = terms
        self._steps = 0
        self._gradients: dict[str, float] = {}  # the largest magnitude so far
        self._moved: dict[str, torch.Tensor] = {}  # the limit of the weight that the steps so far leave
        self._state: dict[str, torch.Tensor] = {}

    def after_step(self, state: Mapping[str, torch.Tensor], rate: float) -> None:
        """`state`: weights.<name>, exp_avg.<name>, exp_avg_sq.<name> of the trainer, copied; on any device."""
        self._steps += 1
        self._state = state = {name: value.cpu() for name, value in state.items()}
        for name in (key.removeprefix("weights.") for key in state if key.startswith("weights.")):
            root = (state[f"exp_avg_sq.{name}"] / (1 - _BETAS[1] ** self._steps)).sqrt()
            self._gradients[name] = max(self._gradients.get(name, 0.0), float(root.max()))
            error = of_sum(self._terms, self._gradients[name])
            update = torch.clamp((1 + _MOST_UPDATE) * error / (root + _EPSILON), max=2 * _MOST_UPDATE)
            update[root == 0] = 0.0
            stored = of_sum(3, 1.0) * state[f"weights.{name}"].abs()  # decay, update and sum are rounded
            self._moved[name] = self._moved.get(name, torch.zeros(())) + rate * update + stored

    def assert_same(self, found: Mapping[str, torch.Tensor], *, skip: str | tuple[str, ...] = "\n") -> None:
        """`found` equals the last state but for rounding. Names that end in `skip` are left out."""
        assert found.keys() <= self._state.keys()
        for key, value in found.items():
            if not key.endswith(skip):
                apart = (value.cpu() - self._state[key]).abs() - self._limit(key)
                assert float(apart.max()) <= 0.0, f"{key} is {float(apart.max()):.2e} outside its limit"

    def _limit(self, key: str) -> torch.Tensor:
        kind, _, name = key.partition(".")
        if kind == "weights":
            return self._moved[name]
        error = of_sum(self._terms, self._gradients[name])
        if kind == "exp_avg":
            return torch.tensor(error * (1 - _BETAS[0] ** self._steps))
        share = 1 - _BETAS[1] ** self._steps
        root = (self._state[key] / share).sqrt()
        return (2 * root * error + error**2) * share + of_sum(3, 1.0) * self._state[key]
