"""Weights, gradients and optimizer state in shards, one a rank (FSDP2), with free micro-batches on each rank.

FSDP gathers weights in a forward pass and adds up gradients in a backward pass: every rank would have to do the same
passes, and none could stop in the middle. So a step does its own passes between two tiny ones that are the same
everywhere: the first gathers the weights, the last adds up the gradients. Between them no rank waits for another.
What that costs is memory for the whole weights, in the precision of the products, and their gradients in a step;
the master weights and the optimizer's moments, three quarters of the state or more, stay in shards.

The library's modules take seconds to import, so they are imported where there are shards.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from embedding_stages.encoder.model import PaddedEncoder
from embedding_stages.errors import OutOfMemory
from embedding_stages.finetune.world import World, lost_peers

if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule
    from torch.distributed.tensor import DTensor


class Shards:
    """The encoder's module, cut over the ranks layer by layer; its parameters become DTensors."""

    def __init__(self, encoder: PaddedEncoder, world: World, *, bfloat16: bool) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

        self._encoder = encoder
        self._size = world.size
        mesh = init_device_mesh(world.device.type, (world.size,))
        policy = MixedPrecisionPolicy(
            param_dtype=torch.bfloat16 if bfloat16 else None, reduce_dtype=torch.float32 if bfloat16 else None
        )
        self._parts: list[FSDPModule] = []
        for part in (*encoder.backbone.layers(), encoder.module):
            sharded = fully_shard(part, mesh=mesh, mp_policy=policy, reshard_after_forward=False)
            assert isinstance(sharded, FSDPModule)  # noqa: S101 - the library changes the module's class
            self._parts.append(sharded)
        self._root = self._parts[-1]
        self._root.set_reshard_after_backward(False)

    def gather(self) -> None:
        """Have the whole weights here until `add_up`; a collective. Raises OutOfMemory, Transient `PeerLost`."""
        self._root.set_requires_gradient_sync(False)
        try:
            with lost_peers(), torch.no_grad():
                self._tiny_pass()
        except torch.OutOfMemoryError as error:
            raise _too_large(error) from error

    def add_up(self) -> None:
        """Sum the ranks' gradients into the shards and drop the whole weights; a collective.

        Raises OutOfMemory, Transient `PeerLost`.
        """
        self._root.set_requires_gradient_sync(True)
        try:
            with lost_peers():
                (self._tiny_pass().sum() * 0.0).backward()  # type: ignore[no-untyped-call]
        except torch.OutOfMemoryError as error:
            raise _too_large(error) from error
        self.drop()
        for parameter in self._encoder.module.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(self._size)  # the library takes the mean over the ranks

    def drop(self) -> None:
        """Have the shards alone again."""
        for part in self._parts:
            part.reshard()

    def _tiny_pass(self) -> torch.Tensor:
        return self._encoder.vectors([[0]])


def squared_norm(gradients: Sequence[torch.Tensor]) -> float:
    """Of this rank's shards: the sum over the ranks is that of the whole gradient."""
    norms = [torch.linalg.vector_norm(local(value), dtype=torch.float32) for value in gradients]
    return float(torch.stack(norms).double().square().sum())


def local(tensor: torch.Tensor) -> torch.Tensor:
    """What this rank holds of the tensor."""
    shard = _shard(tensor)
    return tensor if shard is None else shard.to_local()


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """The full tensor; a collective for a shard."""
    shard = _shard(tensor)
    return tensor if shard is None else shard.full_tensor()


def fill(target: torch.Tensor, values: torch.Tensor) -> None:
    """Copy the full tensor `values` into the tensor or shard `target`; a collective for a shard."""
    shard = _shard(target)
    if shard is not None:
        from torch.distributed.tensor import distribute_tensor

        values = distribute_tensor(values.to(target.device), shard.device_mesh, shard.placements)
    target.copy_(values)


def _shard(tensor: torch.Tensor) -> DTensor | None:
    """The tensor if it is a shard, which nothing can be before the library is imported."""
    if "torch.distributed.tensor" not in sys.modules:
        return None
    from torch.distributed.tensor import DTensor

    return tensor if isinstance(tensor, DTensor) else None


def _too_large(error: torch.OutOfMemoryError) -> OutOfMemory:
    cause = str(error).splitlines()[0]
    return OutOfMemory("GPUOutOfMemory", f"the step's weights do not fit the accelerator: use a larger one ({cause})")
