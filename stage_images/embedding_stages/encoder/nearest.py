"""Exact search by dot product on one accelerator: half-precision products propose, float32 decides.

All scores of a block of queries are computed in float16 and reduced to the maximum of each group of neighbouring
passages; the best groups' members, then the best members, are scored again in float32. A query's answer is taken only
when no passage that was left out can have a better score, given how far float16 may be off; otherwise more are looked
at, for that query alone. So the answer is that of a float32 search over everything, at the price of one product in
half precision.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from embedding_stages.vectors import Vectors

Numbers = NDArray[np.int64]

_GROUP: Final = 64  # passages of a group
_SCORES_BYTES: Final = 4 << 30  # of a block's scores
_TILE: Final = 128  # rows of the products' tiles: a block of queries has whole ones
_SHARE: Final = 0.5  # of the free memory for passages; the rest is for scores and what is gathered
_GATHER_BYTES: Final = 1 << 30  # of vectors gathered to be scored again
_CANDIDATE_BYTES: Final = 96  # a passage that is looked at again: numbers, scores, and both sorted
_HALF: Final = 2.0**-11  # largest relative error of rounding to float16
_SINGLE: Final = 2.0**-24  # and to float32
_DEEPER: Final = 4


class DeviceIndex:
    """Passages' vectors, float32 (n, dimension), searched on `device`. What does not fit is taken in parts."""

    def __init__(self, vectors: Vectors, device: torch.device) -> None:
        self.size, self.dimension = len(vectors), int(vectors.shape[1])
        self._vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        self._device = device
        self._only: _Part | None = None  # the one part of a corpus that fits, kept between searches

    def search(self, queries: Vectors, most: int) -> tuple[Vectors, Numbers]:
        """Scores and numbers of the `most` best passages, best first: two arrays (queries, min(most, size)).

        Scores are float32 dot products; of equal ones the lower number comes first.
        """
        most = min(most, self.size)
        scores = torch.full((len(queries), 0), 0.0)
        numbers = torch.zeros((len(queries), 0), dtype=torch.int64)
        rows = self._rows_of_a_part()
        for start in range(0, self.size, rows):
            part = self._part(start, min(rows, self.size - start), whole=rows >= self.size)
            with _plain_products():
                found, places = part.search(torch.from_numpy(np.ascontiguousarray(queries, dtype=np.float32)), most)
            scores, order = _ordered(torch.cat([scores, found], 1), torch.cat([numbers, places + start], 1))
            scores, numbers = scores[:, :most], order[:, :most]
            del part  # before the next one comes: two would not fit
        return scores.numpy(), numbers.numpy()

    def _rows_of_a_part(self) -> int:
        if self._only is not None or self._device.type != "cuda":
            return self.size
        free, _ = torch.cuda.mem_get_info(self._device)
        free += torch.cuda.memory_reserved(self._device) - torch.cuda.memory_allocated(self._device)
        rows = int(free * _SHARE) // (6 * self.dimension)  # float32 and float16
        return max(_GROUP, rows // _GROUP * _GROUP)

    def _part(self, start: int, rows: int, *, whole: bool) -> _Part:
        if self._only is not None:
            return self._only
        part = _Part.of(torch.from_numpy(self._vectors[start : start + rows]).to(self._device))
        if whole:
            self._only = part
        return part


@contextmanager
def _plain_products() -> Iterator[None]:
    """Sums in float32, and no TensorFloat-32: what `_doubt` reckons with."""
    flags = torch.backends.cuda.matmul
    before = flags.allow_tf32, flags.allow_fp16_reduced_precision_reduction
    flags.allow_tf32, flags.allow_fp16_reduced_precision_reduction = False, False
    try:
        yield
    finally:
        flags.allow_tf32, flags.allow_fp16_reduced_precision_reduction = before


@dataclass(frozen=True, slots=True)
class _Part:
    """Passages on the device, exactly and in half precision, and how far the latter is off."""

    exact: torch.Tensor  # float32 (n, d)
    half: torch.Tensor  # float16 (n, d)
    length: float  # of the longest passage
    off: float  # of the largest difference between a passage and its half-precision twin

    @classmethod
    def of(cls, exact: torch.Tensor) -> _Part:
        half = exact.half()
        lengths, offs = [], []
        for rows, twins in zip(torch.split(exact, 65536), torch.split(half, 65536), strict=True):
            lengths.append(rows.norm(dim=1).max())
            offs.append((rows - twins.float()).norm(dim=1).max())
        return cls(exact, half, float(torch.stack(lengths).max()), float(torch.stack(offs).max()))

    def search(self, queries: torch.Tensor, most: int) -> tuple[torch.Tensor, torch.Tensor]:
        """On the CPU: float32 and int64 (queries, min(most, n)), best first."""
        most = min(most, len(self.exact))
        width = -(-len(self.exact) // _GROUP) * _GROUP
        block = min(4096, _SCORES_BYTES // (2 * width), _rows_at(_depth(most), width))
        if block > _TILE:
            block = block // _TILE * _TILE
        block = max(1, block)
        scores = torch.empty(len(queries), most)
        numbers = torch.empty(len(queries), most, dtype=torch.int64)
        for start in range(0, len(queries), block):
            found, places = self._block(queries[start : start + block].to(self.exact.device), most, width)
            scores[start : start + block], numbers[start : start + block] = found.cpu(), places.cpu()
        return scores, numbers

    def _block(self, queries: torch.Tensor, most: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
        half = queries.half()
        approximate = torch.empty((len(queries), width), dtype=torch.float16, device=queries.device)
        approximate[:, len(self.half) :] = float("-inf")
        torch.mm(half, self.half.t(), out=approximate[:, : len(self.half)])
        # A group's members lie far apart: then neighbouring programs read neighbouring scores, six times as fast.
        tops = approximate.view(len(queries), _GROUP, -1).amax(dim=1)
        doubt = self._doubt(queries, half)
        depth = _depth(most)
        scores, numbers, rest = self._rescored(queries, approximate, tops, most, depth)
        left = _unsure(scores, rest, doubt)
        while len(left):  # rare: many passages whose scores lie closer together than half precision can tell
            depth *= _DEEPER
            still = []
            for some in torch.split(left, _rows_at(depth, width)):
                found, places, rest = self._rescored(queries[some], approximate[some], tops[some], most, depth)
                scores[some], numbers[some] = found, places
                still.append(some[_unsure(found, rest, doubt[some])])
            left = torch.cat(still)
        return scores, numbers

    def _rescored(
        self, queries: torch.Tensor, approximate: torch.Tensor, tops: torch.Tensor, most: int, depth: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The `most` best of the `depth` best by half precision, and the best half-precision score left out."""
        groups = min(depth + 1, tops.shape[1])
        best = tops.topk(groups, dim=1, sorted=True)
        rest = torch.full((len(queries),), float("-inf"), device=queries.device)
        chosen = best.indices
        if groups == depth + 1:  # the last of them is only looked at to know what was left out
            rest, chosen = best.values[:, -1].float(), chosen[:, :-1]
        members = (chosen[:, :, None] + tops.shape[1] * torch.arange(_GROUP, device=queries.device)).flatten(1)
        values = approximate.gather(1, members)
        kept = values.topk(min(depth + 1, values.shape[1]), dim=1, sorted=True)
        places = members.gather(1, kept.indices)
        if kept.values.shape[1] == depth + 1:
            rest, places = torch.maximum(rest, kept.values[:, -1].float()), places[:, :-1]
        exact = self._exact(queries, places.clamp(max=len(self.exact) - 1))
        exact = exact.masked_fill(places >= len(self.exact), float("-inf"))  # the last group's filler
        scores, places = _ordered(exact, places)
        return scores[:, :most], places[:, :most], rest

    def _exact(self, queries: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """float32 scores of the passages `places` (queries, c)."""
        columns = max(1, _GATHER_BYTES // (4 * self.exact.shape[1]))
        rows = max(1, columns // places.shape[1])
        parts = [
            torch.cat(
                [torch.bmm(self.exact[few], query[:, :, None])[:, :, 0] for few in torch.split(some, columns, 1)], 1
            )
            for query, some in zip(torch.split(queries, rows), torch.split(places, rows), strict=True)
        ]
        return torch.cat(parts)

    def _doubt(self, queries: torch.Tensor, half: torch.Tensor) -> torch.Tensor:
        """How far a half-precision score may be from the exact one, float32 (queries,), its own rounding aside.

        |q.p - q'.p'| <= |q - q'| |p| + |q'| |p - p'|, and both sums are rounded once a term in float32 at most.
        """
        short = half.float()
        rounding = (queries - short).norm(dim=1) * self.length + short.norm(dim=1) * self.off
        sums = 2 * queries.shape[1] * _SINGLE * queries.norm(dim=1) * self.length
        # The norms are rounded too; tiny scores round to multiples of 6e-8.
        doubt: torch.Tensor = 1.01 * (rounding + sums) + 1e-7
        return doubt


def _depth(most: int) -> int:
    """How many groups, and then passages, are looked at again for `most` answers."""
    return most + most // 2 + 16


def _rows_at(depth: int, width: int) -> int:
    """Queries whose best `depth` groups may be looked at again together."""
    return max(1, _SCORES_BYTES // (_CANDIDATE_BYTES * min(depth * _GROUP, width)))


def _unsure(scores: torch.Tensor, rest: torch.Tensor, doubt: torch.Tensor) -> torch.Tensor:
    """Rows whose worst answer a passage that was left out might beat, or equal."""
    reach = rest + doubt + _HALF * rest.abs()
    return torch.nonzero((scores[:, -1] <= reach) & (rest > float("-inf")))[:, 0]


def _ordered(scores: torch.Tensor, numbers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Each row by falling score, equal scores by rising number."""
    by_number = numbers.argsort(dim=1)
    scores, numbers = scores.gather(1, by_number), numbers.gather(1, by_number)
    by_score = scores.argsort(dim=1, descending=True, stable=True)
    return scores.gather(1, by_score), numbers.gather(1, by_score)
