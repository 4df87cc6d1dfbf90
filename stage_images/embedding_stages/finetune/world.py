"""The processes that train together, one an accelerator, and what they tell each other.

No process may wait for a message that will not come: every rank makes the same calls in the same order, a rank that
cannot go on says so in the step's common sum (`Trainer.step`), and whatever else ends a rank shows to the others as
Transient `PeerLost` within `COLLECTIVE_TIMEOUT`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Final

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from embedding_stages import contract, full_disk
from embedding_stages.contract import PEER_LOST, ExitCode
from embedding_stages.errors import StageError, Transient

# Ranks meet once a step and their shares are equally long: seconds apart. Ten minutes also cover a first step that
# compiles kernels and a volume that one node reads slowly, and are short against the hours a run takes.
COLLECTIVE_TIMEOUT: Final = timedelta(minutes=10)
_PATIENCE_S: Final = 3600.0  # for rank 0 to write or hash what may be tens of gigabytes on a slow volume
_POLL_S: Final = 0.1
ENDED: Final = "ended"  # where rank 0 comes when its outcome is told
_BUCKET: Final = 64 * 2**20 // 4  # float32 numbers in one message: large enough for full speed, small beside a model
_LOST = ("gloo", "nccl", "connection closed", "connection reset", "connection was", "broken pipe")


@dataclass(frozen=True, slots=True)
class World:
    """This process among those that train together; `alone()` for one process, where every method is free."""

    rank: int
    size: int
    local_rank: int  # its number on this node, and of its accelerator
    parallelism: str  # a word of contract.PARALLELISMS
    device: torch.device

    @classmethod
    def alone(cls) -> World:
        """One process on the GPU where there is one, else on the CPU."""
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return cls(rank=0, size=1, local_rank=0, parallelism=contract.PARALLELISMS[0], device=device)

    @classmethod
    def of(cls, env: Mapping[str, str]) -> World:
        """From what the launcher sets: RANK, WORLD_SIZE, LOCAL_RANK and the parallelism; `alone()` without them.

        Raises ValueError for a number or a word that makes no sense.
        """
        size = int(env.get("WORLD_SIZE", "1"))
        if size == 1:
            return cls.alone()
        local_rank = int(env["LOCAL_RANK"])
        parallelism = env.get(contract.ENV_PARALLELISM, contract.PARALLELISMS[0])
        if parallelism not in contract.PARALLELISMS:
            raise ValueError(f"{contract.ENV_PARALLELISM} is {parallelism!r}, expected one of {contract.PARALLELISMS}")
        device = torch.device("cuda", local_rank) if torch.cuda.is_available() else torch.device("cpu")
        return cls(rank=int(env["RANK"]), size=size, local_rank=local_rank, parallelism=parallelism, device=device)

    @property
    def leads(self) -> bool:
        """Rank 0: the one that writes files, results and logs."""
        return self.rank == 0

    @property
    def sharded(self) -> bool:
        """Whether weights and optimizer state lie in shards, one a rank."""
        return self.size > 1 and self.parallelism == "FSDP"

    def join(self) -> None:
        """Meet the other ranks; blocks until all are here.

        Raises StageError `AcceleratorMissing`, Transient `PeerLost` when a rank does not come.
        """
        if self.size == 1:
            return
        backend = "gloo"
        if self.device.type == "cuda":
            if self.local_rank >= torch.cuda.device_count():
                raise StageError(
                    "AcceleratorMissing",
                    f"worker {self.local_rank} of this pod has no GPU: the pod sees {torch.cuda.device_count()}",
                )
            torch.cuda.set_device(self.device)
            # gloo beside NCCL: words on the CPU need no stop of the GPU, and a dead peer shows there at once.
            backend = "cpu:gloo,cuda:nccl"
        with lost_peers():
            dist.init_process_group(
                backend,
                store=PrefixStore("finetune", _store()),
                rank=self.rank,
                world_size=self.size,
                timeout=COLLECTIVE_TIMEOUT,
            )

    def leave(self, code: int) -> None:
        """End this rank with exit code `code`. Rank 0 calls it when its result is published or its failure told;
        the others, when they did well, wait here for that: a launcher ends all when one of them ends.
        """
        if self.size == 1 or not dist.is_initialized():
            return
        if self.leads or code == ExitCode.DONE:
            try:
                self.meet(ENDED)
            except Transient as error:  # the run's outcome is rank 0's: lost is only the news of it
                print(error, file=sys.stderr)
        if code == ExitCode.DONE:  # with a peer missing this could wait for it
            dist.destroy_process_group()

    def barrier(self) -> None:
        """Wait for all ranks. Raises Transient `PeerLost`."""
        self.sum_numbers([0.0])

    def meet(self, name: str, word: str = "here") -> str:
        """The others wait for rank 0 to come here, for an hour if need be; rank 0 waits for nobody. All get its `word`.

        Not a collective: what rank 0 does meanwhile may take longer than those may. Each `name` works once.
        Raises Transient `PeerLost`.
        """
        if self.size == 1:
            return word
        with lost_peers():
            store = PrefixStore("meetings", _store())
            if self.leads:
                store.set(name, word)
                return word
            end = time.monotonic() + _PATIENCE_S
            while not store.check([name]):
                if time.monotonic() > end:
                    raise Transient(PEER_LOST, f"rank 0 has not come to {name!r} for {_PATIENCE_S:.0f} s")
                time.sleep(_POLL_S)
            return store.get(name).decode()

    def sum_(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace each tensor by its sum over the ranks, added in float32; all ranks give equal shapes in one order.

        The tensors are contiguous and on one device. Raises Transient `PeerLost`.
        """
        if self.size == 1:
            return
        with lost_peers(), torch.no_grad():
            for bucket in buckets([tensor.view(-1) for tensor in tensors], _BUCKET):
                if len(bucket) == 1 and bucket[0].dtype == torch.float32:
                    dist.all_reduce(bucket[0])  # in place
                    continue
                flat = torch.cat([piece.float() for piece in bucket])
                dist.all_reduce(flat)
                for piece, total in zip(bucket, torch.split(flat, [piece.numel() for piece in bucket]), strict=True):
                    piece.copy_(total)

    def sum_numbers(self, values: Sequence[float]) -> list[float]:
        """The sum of each value over the ranks, in float64. Raises Transient `PeerLost`."""
        if self.size == 1:
            return list(values)
        with lost_peers():
            total = torch.tensor(values, dtype=torch.float64)
            dist.all_reduce(total)
        return [float(value) for value in total]

    def sum_number(self, value: float) -> float:
        """The sum of the value over the ranks, in float64. Raises Transient `PeerLost`."""
        return self.sum_numbers([value])[0]

    def least(self, value: float) -> float:
        """The smallest of the ranks' values. Raises Transient `PeerLost`."""
        if self.size == 1:
            return value
        with lost_peers():
            least = torch.tensor(value, dtype=torch.float64)
            dist.all_reduce(least, dist.ReduceOp.MIN)
        return float(least)

    def any(self, flag: bool) -> bool:
        """Whether any rank says True. Raises Transient `PeerLost`."""
        return self.sum_number(float(flag)) > 0


@contextmanager
def lost_peers() -> Iterator[None]:
    """Turn what the libraries raise when another rank is gone or silent into Transient `PeerLost`."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        if full_disk.is_full(error):  # NCCL's too, when it is the pod's shared memory that has no room
            raise
        if isinstance(error, dist.DistError) or any(word in str(error).lower() for word in _LOST):
            first = (str(error).splitlines() or ["no message"])[0]
            raise Transient(PEER_LOST, f"another worker ended or does not answer ({first})") from error
        raise


def buckets(flats: Sequence[torch.Tensor], most: int) -> Iterator[list[torch.Tensor]]:
    """The 1-D tensors in order, cut into views, in groups of at most `most` numbers each."""
    bucket: list[torch.Tensor] = []
    held = 0
    for flat in flats:
        for piece in torch.split(flat, most):
            if bucket and held + piece.numel() > most:
                yield bucket
                bucket, held = [], 0
            bucket.append(piece)
            held += piece.numel()
    if bucket:
        yield bucket


@cache
def _store() -> Store:
    """The key-value store of the launcher on node 0, found through the environment the launcher sets."""
    store, _, _ = next(iter(rendezvous("env://", timeout=COLLECTIVE_TIMEOUT)))
    assert isinstance(store, Store)  # noqa: S101 - the library is untyped
    return store
