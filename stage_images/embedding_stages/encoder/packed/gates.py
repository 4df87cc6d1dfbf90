"""Gated layers on packs: an activation of the gate, times up. See `ops` for what all calls share.

Where the device has the means, the activation runs in the program of the product before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import torch
import triton
from triton.tools.tensor_descriptor import TensorDescriptor

from embedding_stages.encoder.packed.kernels import gated

Activation = Literal["silu", "gelu", "gelu_tanh"]  # of a gate; gelu is by the error function

ROWS_A_TILE: Final = 128  # of the matrix products


@dataclass(frozen=True, slots=True)
class Tiles:
    """Sizes of the fused product's tiles."""

    rows: int
    columns: int  # of gate, and as many of up
    step: int  # of the hidden size at a time
    super_rows: int  # tiles of rows done for a column before the next one


TILES: Final = Tiles(rows=ROWS_A_TILE, columns=128, step=64, super_rows=16)


def gated_product(x: torch.Tensor, weight: torch.Tensor, activation: Activation = "silu") -> torch.Tensor:
    """`gate` of x @ weight.t(): x (T, hidden), weight (2 w, hidden), out (T, w)."""
    if not _fuses(x, len(weight) // 2):
        return gate(x @ weight.t(), activation)
    out = x.new_empty(len(x), len(weight) // 2)
    _gated(x, weight, out, None, activation)
    return out


def gated_product_kept(
    x: torch.Tensor, weight: torch.Tensor, activation: Activation = "silu"
) -> tuple[torch.Tensor, torch.Tensor]:
    """x @ weight.t() (T, 2 w), which a backward pass needs, and `gated_product` (T, w)."""
    if not _fuses(x, len(weight) // 2):
        gate_up = x @ weight.t()
        return gate_up, gate(gate_up, activation)
    gate_up, out = x.new_empty(len(x), len(weight)), x.new_empty(len(x), len(weight) // 2)
    _gated(x, weight, out, gate_up, activation)
    return gate_up, out


def gate(gate_up: torch.Tensor, activation: Activation = "silu") -> torch.Tensor:
    """activation(gate) * up of (T, 2 w): (T, w)."""
    rows, width = gate_up.shape[0], gate_up.shape[1] // 2
    out = gate_up.new_empty(rows, width)
    block = min(1024, triton.next_power_of_2(width))
    grid = (rows, triton.cdiv(width, block))
    gated.gate[grid](gate_up, out, WIDTH=width, BLOCK=block, KIND=activation, num_warps=4)
    return out


def gate_backward_(gate_up: torch.Tensor, grad: torch.Tensor, activation: Activation = "silu") -> torch.Tensor:
    """The gradient of gate_up, written over it; `grad` (T, w) is that of `gate`."""
    rows, width = grad.shape
    block = min(1024, triton.next_power_of_2(width))
    grid = (rows, triton.cdiv(width, block))
    gated.gate_backward[grid](gate_up, grad, gate_up, WIDTH=width, BLOCK=block, KIND=activation, num_warps=4)
    return gate_up


def _gated(
    x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor, gate_up: torch.Tensor | None, activation: Activation
) -> None:
    hidden, width, tiles = x.shape[1], out.shape[1], TILES
    programs = torch.cuda.get_device_properties(x.device).multi_processor_count if x.is_cuda else 3
    gated.gated[(programs,)](
        TensorDescriptor.from_tensor(x, [tiles.rows, tiles.step]),
        TensorDescriptor.from_tensor(weight.view(2, width, hidden), [2, tiles.columns, tiles.step]),
        TensorDescriptor.from_tensor(out, [tiles.rows, tiles.columns]),
        TensorDescriptor.from_tensor(out if gate_up is None else gate_up, [tiles.rows, tiles.columns]),
        len(x), WIDTH=width, HIDDEN=hidden, ROWS=tiles.rows, COLUMNS=tiles.columns, STEP=tiles.step,
        SUPER=tiles.super_rows, PROGRAMS=programs, KIND=activation, KEEP=gate_up is not None, num_warps=8, num_stages=3,
    )  # fmt: skip


def _fuses(x: torch.Tensor, width: int) -> bool:
    """Whether the fused product of x (T, hidden) is made for this: Hopper's tensor cores and copy engine, two bytes a
    number, whole tiles."""
    return not (width % TILES.columns or x.shape[1] % TILES.step) and _has_means(x)


def _has_means(x: torch.Tensor) -> bool:
    return x.is_cuda and x.element_size() == 2 and torch.cuda.get_device_capability(x.device)[0] == 9
