"""What a trainer over padded batches keeps between attempts and leaves behind: its state, and the checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from embedding_stages.encoder.model import PaddedEncoder
from embedding_stages.finetune.lora import Adapters
from embedding_stages.finetune.optimizer import MOMENTS
from embedding_stages.finetune.sharding import Shards, fill, whole
from embedding_stages.finetune.world import World


class Kept:
    """Weights and moments by name. With shards all ranks call each method together."""

    encoder: PaddedEncoder
    world: World
    micro_batch: int
    parameters: dict[str, torch.nn.Parameter]  # that are trained
    optimizer: torch.optim.AdamW
    _shards: Shards | None
    _adapters: Adapters | None

    @property
    def trained(self) -> int:
        """How many numbers are trained."""
        return sum(value.numel() for value in self.parameters.values())

    def tensors(self) -> dict[str, torch.Tensor]:
        """A copy of the state, whole and on the CPU: weights.<name>, exp_avg.<name>, exp_avg_sq.<name>.

        All ranks call it; rank 0 gets the tensors, the others an empty dictionary. Later steps leave them alone.
        """
        return self._copied(self._state())

    def shapes(self) -> dict[str, torch.Size]:
        """What `tensors` and `restore` speak of."""
        return {key: value.shape for key, value in self._state().items()}

    def restore(self, tensors: Mapping[str, torch.Tensor], *, step: int, micro_batch: int) -> None:
        """Go on from a resume point after `step` steps; all ranks call it with the same whole tensors."""
        with torch.no_grad():
            for key, value in self._state().items():
                fill(value, tensors[key])
            for value in self.parameters.values():
                self.optimizer.state[value]["step"].fill_(float(step))
        self.micro_batch = min(self.micro_batch, micro_batch)

    def weights(self) -> dict[str, torch.Tensor]:
        """A copy of the weights by name, whole and on the CPU; only on rank 0. All ranks call it."""
        return self._copied({name: value.detach() for name, value in self.parameters.items()})

    def save(self, folder: Path, base: Path, weights: Mapping[str, torch.Tensor] | None = None) -> None:
        """Write the trained model; `base` is the folder it came from. All ranks call it, rank 0 writes.

        `weights`, which rank 0 has of `weights()`, are written in the place of what the model has now.
        """
        if self._adapters:
            now = self.weights()  # whatever is saved: rank 0 alone knows, and with shards all do this together
            trained = weights or now
            if self.world.leads:
                self._adapters.save(folder, base, trained, self.encoder.description)
            return
        if self._shards is None:
            if self.world.leads:
                with torch.no_grad():
                    for name, value in (weights or {}).items():
                        self.parameters[name].copy_(value)
                self.encoder.save(folder)
            return
        encoder = PaddedEncoder.load(base, device="cpu", dtype=torch.float32) if self.world.leads else None
        there = dict(encoder.module.named_parameters()) if encoder else {}
        with torch.no_grad():
            for name, value in self.parameters.items():
                tensor = whole(value.detach())
                if name in there:
                    there[name].copy_((weights or {}).get(name, tensor))
        if encoder:
            encoder.description = self.encoder.description
            encoder.save(folder)

    def _copied(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Whole and on the CPU, on rank 0; all ranks call it."""
        found: dict[str, torch.Tensor] = {}
        for name, value in tensors.items():
            tensor = whole(value)
            if self.world.leads:
                found[name] = tensor.to("cpu", copy=True).contiguous()
        return found

    def _state(self) -> dict[str, torch.Tensor]:
        moments = {
            f"{moment}.{name}": self.optimizer.state[value][moment]
            for moment in MOMENTS
            for name, value in self.parameters.items()
        }
        return {f"weights.{name}": value.detach() for name, value in self.parameters.items()} | moments
