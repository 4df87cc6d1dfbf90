"""A step on a CPU, its examples shared by threads that compute side by side.

Two threads that share one product wait for each other some thousand times a step, and a core that waits is given away:
on two cores a fifth of the time was waiting. So each lane has examples of its own, and a copy of the module that shares
the weights and keeps its gradients apart; they are added in the lanes' order, so a step's result stays the same.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

import torch

from embedding_stages.encoder.dense_head import DENSE
from embedding_stages.encoder.model import PaddedEncoder

Encode = Callable[[Sequence[Sequence[int]]], torch.Tensor]
Share = TypeVar("Share")
_SPARE: Final = 512 * 2**20  # bytes that all but the first may take together
_OF_BFLOAT16: Final = 3  # times the gradients: the weights once more in each pass whose graph is kept


@dataclass(frozen=True, slots=True)
class Lane:
    """What one thread computes with."""

    encode: Encode
    parameters: Mapping[str, torch.nn.Parameter]  # the module's, by name


class Lanes:
    """The first lane is the encoder itself, in the thread that asks; the others' gradients are added to its own."""

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self._lanes = lanes
        self._workers = ThreadPoolExecutor(len(lanes) - 1, thread_name_prefix="lane")

    @classmethod
    def of(
        cls,
        encoder: PaddedEncoder,
        encode: Encode,
        trained: Mapping[str, torch.nn.Parameter],
        *,
        most: int,
        short: bool,
    ) -> Lanes | None:
        """One for each CPU, at most `most`; None where that is one alone, or more than memory is worth.

        `encode` is the encoder's own, for the first lane. `short`: products are in bfloat16. No lane has several
        threads: OpenBLAS lets one product of several threads run at a time.
        """
        count = torch.get_num_threads()
        taken = _gradients_of(encoder, trained) * (_OF_BFLOAT16 if short else 1)
        if count == 1 or count > most or (count - 1) * taken > _SPARE:
            return None
        return cls([Lane(encode, trained), *(_copied(encoder, trained) for _ in range(count - 1))])

    def __len__(self) -> int:
        return len(self._lanes)

    def run(self, work: Callable[[Encode, Share], float], shares: Sequence[Share]) -> float:
        """The sum of what `work` answers for each share, in a lane of its own; gradients are left in the first's.

        Raises what the first of them raises, once all have ended.
        """
        threads = torch.get_num_threads()

        def one(lane: Lane, share: Share) -> float:
            torch.set_num_threads(1)  # of the calling thread
            return work(lane.encode, share)

        running: list[Future[float]] = []
        try:
            try:
                for lane, share in zip(self._lanes[1:], shares[1:], strict=True):
                    running.append(self._workers.submit(one, lane, share))
                first = one(self._lanes[0], shares[0])
            finally:
                wait(running)
                torch.set_num_threads(threads)
            total = sum((each.result() for each in running), first)
            for lane in self._lanes[1:]:
                _add(lane.parameters, self._lanes[0].parameters)
        finally:
            for lane in self._lanes[1:]:
                for value in lane.parameters.values():
                    value.grad = None
        return total


def _gradients_of(encoder: PaddedEncoder, trained: Mapping[str, torch.nn.Parameter]) -> int:
    """Bytes of a lane's gradients: of large tables the looked-up rows alone are kept."""
    tables = [part for part in encoder.module.modules() if isinstance(part, torch.nn.Embedding) and part.sparse]
    small = {id(table.weight) for table in tables}
    return sum(value.numel() * value.element_size() for value in trained.values() if id(value) not in small)


def _copied(encoder: PaddedEncoder, trained: Mapping[str, torch.nn.Parameter]) -> Lane:
    """A lane with the same weights: what a step does to them is done for all."""
    module = encoder.module
    there: dict[int, Any] = {id(value): value for value in (*module.parameters(), *module.buffers())}
    there |= {id(value): torch.nn.Parameter(value.detach()) for value in trained.values()}
    own = copy.deepcopy(module, there)
    other = copy.copy(encoder)
    other.backbone = replace(encoder.backbone, module=own, dense=getattr(own, DENSE, None))
    named = dict(own.named_parameters())
    return Lane(other.vectors, {name: named[name] for name in trained})


def _add(changes: Mapping[str, torch.nn.Parameter], to: Mapping[str, torch.nn.Parameter]) -> None:
    for name, value in changes.items():
        if value.grad is None:
            continue
        there = to[name]
        there.grad = value.grad if there.grad is None else there.grad.add_(value.grad)
