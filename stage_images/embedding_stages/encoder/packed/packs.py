"""Which texts lie together in a pack, and the index tables that the kernels need. numpy alone.

A pack is one flat row of tokens: its sequences lie end to end, the tail up to a round number of tokens is filler
that no text attends to and no vector contains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int32]
_SLACK: Final = 1.04  # times its budget that a group may weigh
ROUND: Final = 64  # tokens of a pack are a multiple of it: whole tiles for the matrix products


@dataclass(frozen=True, slots=True)
class Ragged:
    """Token ids of many texts in one array: text i is `tokens[starts[i]:starts[i + 1]]`."""

    tokens: Ints
    starts: NDArray[np.int64]  # (texts + 1,)

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]]) -> Ragged:
        """From lists of token ids."""
        starts = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum([len(row) for row in rows], out=starts[1:])
        tokens = np.empty(int(starts[-1]), dtype=np.int32)
        for row, start in zip(rows, starts, strict=False):
            tokens[start : start + len(row)] = row
        return cls(tokens, starts)

    def joined(self, other: Ragged) -> Ragged:
        """These texts, then the other's."""
        starts = np.concatenate([self.starts, other.starts[1:] + self.starts[-1]])
        return Ragged(np.concatenate([self.tokens, other.tokens]), starts)

    def after(self, first: int) -> Ragged:
        """The texts from number `first` on."""
        begin = self.starts[first]
        return Ragged(self.tokens[begin:], self.starts[first:] - begin)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each text."""
        return np.diff(self.starts)


@dataclass(frozen=True, slots=True)
class Pack:
    """Arrays of one pack with T tokens (filler included) and n sequences; all int32."""

    ids: Ints  # (T,) token ids; filler is 0
    positions: Ints  # (T,) place of the token in its sequence
    starts: Ints  # (n + 1,) first token of each sequence; starts[n] is the number of tokens without filler
    # (3, tiles): first row, first and last + 1 token of its sequence; filler counts as sequences of ROUND at most
    query_tiles: Ints
    key_tiles: Ints  # (3, tiles), likewise for the tiles of keys

    @property
    def tokens(self) -> int:
        """Tokens that are not filler."""
        return int(self.starts[-1])

    @property
    def size(self) -> int:
        """T: tokens with filler."""
        return len(self.ids)


def build_pack(
    texts: Ragged, rows: Sequence[int] | NDArray[np.int64], *, query_tile: int, key_tile: int, size: int = 0
) -> Pack:
    """The texts `rows` (numbers into `texts`), in this order. Tile sizes are tokens, those of the kernels.

    The pack has `size` tokens, a multiple of ROUND, or as many as it takes if that is more.
    """
    numbers = np.asarray(rows, dtype=np.int64)
    first, lengths = texts.starts[numbers], texts.lengths[numbers]
    starts = np.zeros(len(numbers) + 1, dtype=np.int64)
    np.cumsum(lengths, out=starts[1:])
    total = int(starts[-1])
    size = max(size, -(-total // ROUND) * ROUND)
    positions = np.zeros(size, dtype=np.int32)
    positions[:total] = np.arange(total) - np.repeat(starts[:-1], lengths)
    # Attended to by itself alone, so that every row of the pack holds finite numbers.
    filler = [*range(total + ROUND, size, ROUND), size] if size > total else []
    filled = np.concatenate([starts, np.array(filler, dtype=np.int64)])
    ids = np.zeros(size, dtype=np.int32)
    ids[:total] = texts.tokens[np.repeat(first, lengths) + positions[:total]]
    return Pack(
        ids=ids,
        positions=positions,
        starts=starts.astype(np.int32),
        query_tiles=_tiles(filled, query_tile),
        key_tiles=_tiles(filled, key_tile),
    )


def balanced(weights: Sequence[int] | NDArray[np.int64], budget: int) -> list[list[int]]:
    """Numbers 0..n-1 dealt to few groups of nearly equal weight.

    Longest processing time first: each item, heaviest first, joins the lightest group. A group exceeds the budget by
    4 % at most, for which the caller keeps a reserve, unless it is a single item.
    """
    weights = np.asarray(weights, dtype=np.int64)
    count = max(1, -(-int(weights.sum()) // budget))
    while True:
        groups = _dealt(weights, count)
        if all(len(group) == 1 or int(weights[group].sum()) <= _SLACK * budget for group in groups):
            return groups
        count += 1 + count // 16  # few rounds, also where hardly two items fit together


def _dealt(weights: NDArray[np.int64], count: int) -> list[list[int]]:
    groups: list[list[int]] = [[] for _ in range(count)]
    loads = np.zeros(count, dtype=np.int64)
    for number in np.argsort(-weights, kind="stable"):
        lightest = int(np.argmin(loads))
        groups[lightest].append(int(number))
        loads[lightest] += weights[number]
    return [group for group in groups if group]


def consecutive(lengths: NDArray[np.int64], budget: int) -> list[NDArray[np.int64]]:
    """Numbers 0..n-1 in order, cut into groups of at most `budget` tokens (one text at least)."""
    groups: list[NDArray[np.int64]] = []
    ends = np.cumsum(lengths)
    begin = 0
    while begin < len(ends):
        done = int(ends[begin - 1]) if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, done + budget, side="right")))
        groups.append(np.arange(begin, end))
        begin = end
    return groups


def _tiles(starts: NDArray[np.int64], tile: int) -> Ints:
    """(3, tiles). Long sequences first, so that the last programs on the GPU are short ones."""
    lengths = np.diff(starts)
    order = np.argsort(-lengths, kind="stable")
    counts = -(-lengths[order] // tile)
    within = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
    begins = np.repeat(starts[:-1][order], counts)
    ends = np.repeat(starts[1:][order], counts)
    return np.stack([begins + within * tile, begins, ends]).astype(np.int32)
