"""Adapters of a packed model: A and B of its linear layers, in one flat tensor, their gradients in another.

Names, `<path of the layer>.lora_A` and `.lora_B`, are those of the adapters that `PaddedEncoder`'s module gets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import torch

from embedding_stages.encoder.packed import ops
from embedding_stages.encoder.packed.base import ALIGNMENT, PackedModel
from embedding_stages.encoder.packed.branch import Branch, Part

FIRST: Final = "lora_A"
SECOND: Final = "lora_B"
_WEIGHT: Final = ".weight"
_MATRIX: Final = 2  # dimensions


@dataclass(slots=True)
class _Adapted:
    """A weight with adapters, and where theirs begin in the flat tensor."""

    width: int
    first: int = 0
    second: int = 0
    parts: list[tuple[str, int, int]] = field(default_factory=list)  # path, first row, rows


class PackedAdapters:
    """The `Trained` of a model whose weights are frozen. All are zero until they are filled through `views`."""

    def __init__(self, model: PackedModel, paths: Sequence[str], *, rank: int, scale: float) -> None:
        self._model = model
        self._rank = rank
        self._scale = scale
        self._weights = _adapted(model, paths)
        place = 0
        self._ends: list[int] = []  # of each layer's
        for number in range(model.shape.layers):
            for name, adapted in self._weights.items():
                if int(name.partition(".")[0]) == number:
                    rows = sum(rows for _, _, rows in adapted.parts)
                    adapted.first = place
                    adapted.second = place + _aligned(len(adapted.parts) * rank * adapted.width)
                    place = adapted.second + _aligned(rows * rank)
            self._ends.append(place)
        count = -(-place // ops.OPTIMIZER_BLOCK) * ops.OPTIMIZER_BLOCK
        self.flat = torch.zeros(count, device=model.flat.device, dtype=model.flat.dtype)
        self.decayed = count

    def views(self, flat: torch.Tensor | None = None) -> Iterator[tuple[str, torch.Tensor]]:
        """See `Trained.views`."""
        flat = self.flat if flat is None else flat
        for adapted in self._weights.values():
            first, seconds = self._first(adapted, flat), self._seconds(adapted, flat)
            for number, ((path, _, _), second) in enumerate(zip(adapted.parts, seconds, strict=True)):
                yield f"{path}.{FIRST}", first[number * self._rank : (number + 1) * self._rank]
                yield f"{path}.{SECOND}", second

    def hold_gradients(self) -> torch.Tensor:
        """See `Trained`. In float32, for there are few; freezes the model."""
        gradient = torch.zeros_like(self.flat, dtype=torch.float32)
        self._model.freeze({name: self._branch(adapted, gradient) for name, adapted in self._weights.items()})
        self._gradient = gradient
        return gradient

    def finish_gradients(self) -> None:
        """See `Trained`: nothing is kept for later."""

    def drop_gradients(self) -> None:
        """See `Trained`."""
        self._gradient.zero_()

    def finishing_order(self) -> list[tuple[int, int]]:
        """See `Trained`. A layer may have none."""
        begins = [0, *self._ends]
        return [*reversed(list(zip(begins, self._ends, strict=False))), (self._ends[-1], len(self.flat))]

    def _branch(self, adapted: _Adapted, gradient: torch.Tensor) -> Branch:
        pairs = zip(*(self._seconds(adapted, flat) for flat in (self.flat, gradient)), strict=True)
        parts = [Part(row, *pair) for (_, row, _), pair in zip(adapted.parts, pairs, strict=True)]
        return Branch(self._scale, self._rank, self._first(adapted, self.flat), self._first(adapted, gradient), parts)

    def _first(self, adapted: _Adapted, flat: torch.Tensor) -> torch.Tensor:
        rows = len(adapted.parts) * self._rank
        return flat[adapted.first : adapted.first + rows * adapted.width].view(rows, adapted.width)

    def _seconds(self, adapted: _Adapted, flat: torch.Tensor) -> Iterator[torch.Tensor]:
        place = adapted.second
        for _, _, rows in adapted.parts:
            yield flat[place : place + rows * self._rank].view(rows, self._rank)
            place += rows * self._rank


def linear_layers(model: PackedModel) -> list[str]:
    """The paths of the model's matrices that a pack's rows are multiplied with, in the order of its layers."""
    return [
        name.removesuffix(_WEIGHT)
        for name, ours, _, rows in model.shape.disk_names()
        if rows and ours.partition(".")[0].isdigit() and model.named[ours].dim() == _MATRIX
    ]


def _adapted(model: PackedModel, paths: Sequence[str]) -> dict[str, _Adapted]:
    """By the model's names of the weights."""
    found: dict[str, _Adapted] = {}
    for name, ours, row, rows in model.shape.disk_names():
        path = name.removesuffix(_WEIGHT)
        if path in paths and name != path:
            adapted = found.setdefault(ours, _Adapted(width=model.named[ours].shape[1]))
            adapted.parts.append((path, row, rows))
    return found


def _aligned(count: int) -> int:
    return -(-count // ALIGNMENT) * ALIGNMENT
