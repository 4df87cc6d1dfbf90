"""A step on a CPU, its examples shared by threads that compute side by side.

Two threads that share one product wait for each other some thousand times a step, and a core that waits is given away:
on two cores a fifth of the time was waiting. So each lane has examples of its own, and a copy of the module that shares
the weights and keeps its gradients apart; they are added in the lanes' order, so a step's result stays the same.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

import torch

from embedding_stages.encoder.dense_head import DENSE
from embedding_stages.encoder.model import PaddedEncoder

Encode = Callable[[Sequence[Sequence[int]]], torch.Tensor]
Share = TypeVar("Share")
_MOST: Final = 4  # lanes; with more CPUs each takes several threads
_SPARE: Final = 512 * 2**20  # bytes that further lanes' gradients may take together


@dataclass(frozen=True, slots=True)
class Lane:
    """What one thread computes with."""

    encode: Encode
    parameters: Mapping[str, torch.nn.Parameter]  # the module's, by name


class Lanes:
    """The first lane is the encoder itself, in the thread that asks; the others' gradients are added to its own."""

    def __init__(self, lanes: Sequence[Lane], threads: int) -> None:
        self._lanes, self._threads = lanes, threads
        self._workers = ThreadPoolExecutor(len(lanes) - 1, thread_name_prefix="lane")

    @classmethod
    def of(cls, encoder: PaddedEncoder, encode: Encode, trained: Mapping[str, torch.nn.Parameter]) -> Lanes | None:
        """As many as CPUs and memory are worth; None for one. `encode` is the encoder's own, for the first lane."""
        threads = torch.get_num_threads()
        count = _count(encoder, trained, threads)
        if count == 1:
            return None
        return cls([Lane(encode, trained), *(_copied(encoder, trained) for _ in range(count - 1))], threads // count)

    def __len__(self) -> int:
        return len(self._lanes)

    def run(self, work: Callable[[Encode, Share], float], shares: Sequence[Share]) -> float:
        """The sum of what `work` answers for each share, in a lane of its own; gradients are left in the first's.

        Raises what the first of them raises, once all have ended.
        """
        threads = torch.get_num_threads()

        def one(lane: Lane, share: Share) -> float:
            torch.set_num_threads(self._threads)  # of the calling thread
            return work(lane.encode, share)

        try:
            others = zip(self._lanes[1:], shares[1:], strict=True)
            running = [self._workers.submit(one, lane, share) for lane, share in others]
            try:
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


def _count(encoder: PaddedEncoder, trained: Mapping[str, torch.nn.Parameter], threads: int) -> int:
    tables = [part for part in encoder.module.modules() if isinstance(part, torch.nn.Embedding) and part.sparse]
    small = {id(table.weight) for table in tables}  # gradients of the looked-up rows alone
    taken = sum(value.numel() * value.element_size() for value in trained.values() if id(value) not in small)
    return max(1, min(threads, _MOST, 1 + _SPARE // max(1, taken)))


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
