"""How large a pack the accelerator's memory allows: measured, not guessed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

Part = TypeVar("Part", tuple[int, ...], NDArray[np.int64])  # rows, by their numbers

SHARE: Final = 0.92  # of the memory; near the limit the allocator starts to give memory back and take it again
_ROUND: Final = 1024


def largest_pack(use: Callable[[int], int], *, device: torch.device, most: int) -> int:
    """Tokens of the largest pack that fits, a multiple of 1024 between 1024 and `most`.

    `use(tokens)` does a forward and backward pass over at least so many tokens and returns how many they were. Memory
    grows linearly with the tokens, so two small passes tell the slope.
    """
    if device.type != "cuda":
        return most
    used = use(2 * _ROUND)  # what is allocated once (workspaces, compiled programs) is there now
    points = [_peak(use, used, device)]
    try:
        points.append(_peak(use, 2 * used, device))
    except torch.OutOfMemoryError:  # one long example can be that many
        torch.cuda.empty_cache()
        return rounded(used, most)
    return fitting(points, limit=_limit(device) * SHARE, most=most)


def in_parts(groups: Sequence[Part], use: Callable[[Part], None]) -> None:
    """Call `use` with each group of rows; one that the memory has no room for is cut in two.

    Raises torch.OutOfMemoryError where a single row does not fit.
    """
    left = list(groups)
    while left:
        group = left.pop()
        try:
            use(group)
        except torch.OutOfMemoryError:
            if len(group) == 1:
                raise
            left += [group[: len(group) // 2], group[len(group) // 2 :]]


def fitting(points: Sequence[tuple[int, int]], *, limit: float, most: int) -> int:
    """The tokens at which the line through two measured points (tokens, peak in bytes) meets the limit. Pure."""
    (few, low), (many, high) = points
    slope = max(1.0, (high - low) / (many - few))
    room = limit - (low - slope * few)
    return rounded(room / slope, most)


def rounded(tokens: float, most: int) -> int:
    """A multiple of 1024 that is not above `tokens`, between 1024 and `most`."""
    return int(min(most, max(_ROUND, tokens // _ROUND * _ROUND)))


def _peak(use: Callable[[int], int], tokens: int, device: torch.device) -> tuple[int, int]:
    """(tokens used, bytes at the peak)."""
    torch.cuda.synchronize(device)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    used = use(tokens)
    torch.cuda.synchronize(device)
    return used, torch.cuda.max_memory_allocated(device)


def _limit(device: torch.device) -> float:
    """Bytes that this process may hold: what is free and what it has, below the share it was given."""
    free, total = torch.cuda.mem_get_info(device)
    ours = torch.cuda.memory_reserved(device)
    return min(free + ours, total * torch.cuda.get_per_process_memory_fraction(device))
