"""The poolings that packs carry, forward and backward. Shapes: T tokens of a pack (filler included), n sequences."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import torch

from embedding_stages.encoder.packed import ops
from embedding_stages.encoder.packed.device import DevicePack
from embedding_stages.encoder.pooling import Pooling


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedPooling:
    """One pooling over packs."""

    # states (T, d), the pack -> float32 (n, d), not of length 1 yet; a sequence of no tokens gives any finite row
    forward: Callable[[torch.Tensor, DevicePack], torch.Tensor]
    # gradient (n, d), the pack, rows of zeros (T, d) in the states' dtype -> the states' gradient, in those rows
    backward: Callable[[torch.Tensor, DevicePack, torch.Tensor], torch.Tensor]


def _mean(states: torch.Tensor, pack: DevicePack) -> torch.Tensor:
    return ops.sequence_mean(states, pack.starts)


def _mean_backward(grad: torch.Tensor, pack: DevicePack, rows: torch.Tensor) -> torch.Tensor:
    lengths = pack.starts.diff().long()
    share = (grad / lengths[:, None]).to(rows.dtype)
    rows[: pack.tokens] = share.repeat_interleave(lengths, dim=0, output_size=pack.tokens)
    return rows


def _cls(states: torch.Tensor, pack: DevicePack) -> torch.Tensor:
    return states[_first(pack, states)].float()


def _cls_backward(grad: torch.Tensor, pack: DevicePack, rows: torch.Tensor) -> torch.Tensor:
    rows[_first(pack, rows)] = grad.to(rows.dtype)
    return rows


def _last_token(states: torch.Tensor, pack: DevicePack) -> torch.Tensor:
    return states[_last(pack)].float()


def _last_token_backward(grad: torch.Tensor, pack: DevicePack, rows: torch.Tensor) -> torch.Tensor:
    rows[_last(pack)] = grad.to(rows.dtype)
    return rows


def _first(pack: DevicePack, states: torch.Tensor) -> torch.Tensor:
    """Each sequence's first row; of a sequence without tokens any."""
    return pack.starts[:-1].clamp(max=len(states) - 1)


def _last(pack: DevicePack) -> torch.Tensor:
    """Each sequence's last row; of a sequence without tokens any."""
    return (pack.starts[1:] - 1).clamp(min=0)


PACKED_POOLINGS: Final[Mapping[Pooling, PackedPooling]] = {
    "mean": PackedPooling(forward=_mean, backward=_mean_backward),
    "cls": PackedPooling(forward=_cls, backward=_cls_backward),
    "last_token": PackedPooling(forward=_last_token, backward=_last_token_backward),
}
