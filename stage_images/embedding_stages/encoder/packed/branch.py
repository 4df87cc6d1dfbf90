"""A low-rank branch beside a frozen weight: rows W^T + scale * (rows A^T) B^T, forward and backward.

The branch is computed beside the product, not added to W: a sum in half precision would lose most of a small change,
and a gradient of W would cost as much as the product itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Part:
    """The adapter of some of a weight's rows. Where q, k and v are one weight, each of them has its own."""

    begin: int  # first row of the weight
    second: torch.Tensor  # B (rows, rank)
    gradient: torch.Tensor  # of B, which backward passes add to

    @property
    def columns(self) -> slice:
        """Those of the product."""
        return slice(self.begin, self.begin + len(self.second))


@dataclass(frozen=True, slots=True)
class Branch:
    """The adapters of one weight (out, in)."""

    scale: float
    rank: int
    first: torch.Tensor  # A of all parts, one below the other: (parts * rank, in)
    gradient: torch.Tensor  # of `first`, which backward passes add to
    parts: Sequence[Part]

    def add_(self, out: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Add the branch's product to `out` (T, out), in place; rows (T, in)."""
        low = rows @ self.first.t()
        for number, part in enumerate(self.parts):
            out[:, part.columns].addmm_(self._of(low, number), part.second.t(), alpha=self.scale)
        return out

    def backward_(self, before: torch.Tensor, grad: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Add the branch's part to `before`, the gradient of rows, in place; `grad` (T, out) is that of the product."""
        low = rows @ self.first.t()  # again: it is thin, and the rows are kept anyway
        for_low = torch.empty_like(low)
        for number, part in enumerate(self.parts):
            change = grad[:, part.columns]
            torch.mul(change @ part.second, self.scale, out=self._of(for_low, number))
            part.gradient.add_(change.t() @ self._of(low, number), alpha=self.scale)
        self.gradient.add_(for_low.t() @ rows)
        return before.addmm_(for_low, self.first)

    def _of(self, low: torch.Tensor, number: int) -> torch.Tensor:
        return low[:, number * self.rank : (number + 1) * self.rank]
