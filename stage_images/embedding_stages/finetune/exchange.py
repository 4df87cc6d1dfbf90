"""The ranks' gradients, added up while the last backward pass of a step still runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
import torch.distributed as dist

from embedding_stages.finetune.world import World, lost_peers

Range = tuple[int, int]  # begin and end in the flat gradient

_PIECE: Final = 32 * 2**20  # numbers in one message: near full speed, in buffers that are small beside a model


class Exchange:
    """Replaces a flat gradient by its sum over the ranks, range by range, in one order that all ranks keep.

    A message that one rank sends and another does not would leave the other waiting. So every rank sums every range
    once a step, whatever happens: what it could not compute, it sends as it is, and says afterwards that the sum is
    worth nothing. Half-precision numbers travel as they are, are added in float32 and rounded once.
    """

    def __init__(self, world: World, gradient: torch.Tensor, ranges: Sequence[Range]) -> None:
        """`ranges` cover `gradient` (1-D) in the order in which a backward pass finishes them."""
        self._world = world
        self._gradient = gradient
        self._ranges = ranges
        self._done = 0  # ranges of this step
        self._stream: torch.cuda.Stream | None = None
        if gradient.is_cuda and world.size > 1:
            # First in line: its small kernels would wait for the tail of each large product.
            self._stream = torch.cuda.Stream(gradient.device, priority=-1)  # type: ignore[no-untyped-call]
        # Held for good: a rank that is out of memory still has to send and receive.
        most = min(_PIECE, max(end - begin for begin, end in ranges)) if world.size > 1 else 0
        self._received = gradient.new_empty(most)
        self._mine = gradient.new_empty(most // world.size)

    def begin(self) -> None:
        """A step begins: nothing of its gradient is final."""
        self._done = 0

    def warm_up(self) -> None:
        """Sum the gradient while it is zero: what the library allocates once is then no part of what is measured."""
        self.begin()
        self.finish()

    def advance(self, ranges: int) -> None:
        """The first so many ranges are final: sum those that are not yet. Raises Transient `PeerLost`."""
        if self._world.size == 1:
            return
        with lost_peers(), torch.no_grad():
            if self._stream is not None:
                self._stream.wait_stream(torch.cuda.current_stream(self._gradient.device))
            with torch.cuda.stream(self._stream):  # without one: as it is
                while self._done < ranges:
                    begin, end = self._ranges[self._done]
                    self._done += 1
                    for piece in torch.split(self._gradient[begin:end], _PIECE) if begin < end else ():
                        self._add_up(piece)

    def finish(self) -> None:
        """Sum what is left; what is done with the gradient from here on waits for it. Raises Transient `PeerLost`."""
        self.advance(len(self._ranges))
        if self._stream is not None:
            torch.cuda.current_stream(self._gradient.device).wait_stream(self._stream)

    def _add_up(self, piece: torch.Tensor) -> None:
        size = self._world.size
        share = piece.numel() // size
        if piece.dtype == torch.float32 or size == 2 or not share:
            dist.all_reduce(piece)  # of two numbers there is one sum, and it is rounded once
            return
        body, rest = piece[: share * size], piece[share * size :]
        received, mine = self._received[: share * size], self._mine[:share]
        dist.all_to_all_single(received, body)  # my share of every rank's numbers
        torch.sum(received.view(size, share), dim=0, out=mine)  # half-precision sums are float32 until the end
        dist.all_gather_into_tensor(body, mine)
        if rest.numel():
            dist.all_reduce(rest)
