"""How the states of a text's tokens become one vector: the names of the poolings, and what each computes.

A pooling has up to three carriers: padded rows in torch (here), packs (`packed.pooling`) and ONNX (`export.pooling`).
Each carrier has one table by name and looks up with `carried`, which says what the carrier lacks. Nothing here imports
torch: recognising a model takes the names alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeVar

if TYPE_CHECKING:
    import torch

Pooling = Literal["mean", "last_token", "cls"]
_Computed = TypeVar("_Computed")


def _mean(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    weights = mask.unsqueeze(-1).float()
    return (states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1.0)


def _last_token(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    last = mask.sum(dim=1).clamp(min=1) - 1
    return states.take_along_dim(last[:, None, None], dim=1).squeeze(1)


def _cls(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:  # noqa: ARG001 - rows are padded on the right
    return states[:, 0]


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolingRule:
    """One pooling: how files name it, and what it computes."""

    title: str  # in messages: "only <title> pooling can be used"
    config_names: tuple[str, ...]  # `pooling` in config.json, as NVIDIA's bidirectional Llamas have it
    module_mode: str  # `pooling_mode` of a sentence-transformers Pooling module
    module_flag: str  # the flag of older Pooling modules: the only one that is true
    # float32 states (n, tokens, hidden), int64 mask (n, tokens), padding on the right -> float32 (n, hidden)
    padded: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


POOLINGS: Final[Mapping[Pooling, PoolingRule]] = {
    "mean": PoolingRule(  # of all tokens, special ones too
        title="mean",
        config_names=("avg", "mean"),
        module_mode="mean",
        module_flag="pooling_mode_mean_tokens",
        padded=_mean,
    ),
    "last_token": PoolingRule(
        title="last-token",
        config_names=("last",),
        module_mode="lasttoken",
        module_flag="pooling_mode_lasttoken",
        padded=_last_token,
    ),
    "cls": PoolingRule(  # the first token, which BERT's tokenizers call [CLS]
        title="first-token (CLS)",
        config_names=("cls",),
        module_mode="cls",
        module_flag="pooling_mode_cls_token",
        padded=_cls,
    ),
}


def carried(table: Mapping[Pooling, _Computed], pooling: Pooling) -> _Computed:
    """What a carrier's table has for a pooling. Raises ValueError with the pooling that it lacks."""
    if pooling not in table:
        raise ValueError(f"{POOLINGS[pooling].title} pooling")
    return table[pooling]
