"""What a trainer over packs keeps between attempts and leaves behind: its state, and the checkpoint. See `kept`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from embedding_stages.encoder.packed.base import Trained
from embedding_stages.encoder.packed.encoder import PackedEncoder
from embedding_stages.finetune.memory import SHARE
from embedding_stages.finetune.packed_lora import PackedLora
from embedding_stages.finetune.world import World


class PackedKept:
    """The float32 master weights and the moments, flat arrays that are laid out like the flat weights."""

    encoder: PackedEncoder
    world: World
    updates: int  # steps that were done

    def __init__(self, encoder: PackedEncoder, adapters: PackedLora | None) -> None:
        self.encoder = encoder
        self._adapters = adapters  # that are trained in the place of the weights
        self.moved: Trained = adapters.weights if adapters else encoder.model
        self.gradient = self.moved.hold_gradients()
        self.master = adapters.master if adapters else encoder.master_weights()
        self.moments = {name: torch.zeros_like(self.master) for name in ("exp_avg", "exp_avg_sq")}
        self._copies: dict[str, torch.Tensor] = {}  # of the state, for resume points; made once

    @property
    def trained(self) -> int:
        """How many numbers are trained."""
        return sum(view.numel() for _, view in self.moved.views())

    def tensors(self) -> dict[str, torch.Tensor]:
        """A copy of the state that later steps leave alone, float32, in `shapes`' words; only on rank 0.

        On the accelerator where it has room, so that the next step need not wait for the copy, else in main memory.
        The next call overwrites it.
        """
        if not self.world.leads:
            return {}
        flats = {"weights": self.master, **self.moments}
        if not self._copies:
            device = self.encoder.device
            room = _has_room(device, sum(flat.nbytes for flat in flats.values()))
            self._copies = {
                kind: torch.empty_like(flat, device=device if room else "cpu") for kind, flat in flats.items()
            }
        for kind, flat in flats.items():
            self._copies[kind].copy_(flat)
        return dict(self._named(self._copies))

    def shapes(self) -> dict[str, torch.Size]:
        """weights.<name>, exp_avg.<name>, exp_avg_sq.<name>, by the names of `Trained.views`."""
        flats = {"weights": self.master, **self.moments}
        return {name: view.shape for name, view in self._named(flats)}

    def restore(self, tensors: Mapping[str, torch.Tensor], *, step: int, micro_batch: int) -> None:  # noqa: ARG002
        """Go on from a resume point after `step` steps. The size of packs is measured anew, not restored."""
        for name, view in self._named({"weights": self.master, **self.moments}):
            view.copy_(tensors[name])
        self.moved.flat.copy_(self.master)
        self.updates = step

    def weights(self) -> dict[str, torch.Tensor]:
        """A copy of the trained weights by name, on the CPU; only on rank 0."""
        named = self.moved.views(self.master) if self.world.leads else ()
        return {name: view.to("cpu", copy=True).contiguous() for name, view in named}

    def save(self, folder: Path, base: Path, weights: Mapping[str, torch.Tensor] | None = None) -> None:
        """Write the trained model; rank 0 alone does. See `Kept.save`."""
        if not self.world.leads:
            return
        if self._adapters:
            self._adapters.adapters.save(folder, base, weights or self.weights(), self.encoder.description)
            return
        for name, view in self.moved.views(self.master) if weights else ():
            view.copy_((weights or {})[name])
        self.encoder.save(folder, self.master)

    def _named(self, flats: Mapping[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
        """Views of flat arrays by name, one kind after the other."""
        for kind, flat in flats.items():
            for name, view in self.moved.views(flat):
                yield f"{kind}.{name}", view


def _has_room(device: torch.device, size: int) -> bool:
    """Whether `size` more bytes leave the next step the memory that it took before."""
    if device.type != "cuda":
        return True
    free, total = torch.cuda.mem_get_info(device)
    return free - size > (1 - SHARE) * total
