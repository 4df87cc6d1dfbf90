"""The state between attempts: weights and optimizer moments as safetensors, the rest as JSON; nothing pickled.

    <scratch>/step-00000100/state.safetensors    weights.<name>, exp_avg.<name>, exp_avg_sq.<name>
    <scratch>/step-00000100/state.json           written last; the folder is renamed into place when complete

There is no random state to keep: batches are a function of seed and step (see `batches`), dropout is off.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from embedding_stages.encoder.safetensors_check import read_header
from embedding_stages.finetune.trainer import Trainer

_TENSORS = "state.safetensors"
_STATE = "state.json"
_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True, slots=True)
class Progressed:
    """What a resumed run must know besides tensors."""

    step: int  # optimizer steps done
    identity: Mapping[str, int]  # seed, examples, global batch, steps: a state of another run is refused
    micro_batch: int
    losses: list[float]  # one a step


def save(folder: Path, trainer: Trainer, progressed: Progressed) -> None:
    """Write the state of this step, then remove older ones. A crash leaves the older state whole."""
    final = folder / f"step-{progressed.step:08d}"
    if final.exists():
        return
    partial = folder / f"{final.name}.partial"
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir(parents=True)
    tensors: dict[str, torch.Tensor] = {}
    for name, value in trainer.parameters.items():
        tensors[f"weights.{name}"] = value.detach().to("cpu").contiguous()
        for moment in _MOMENTS:
            tensors[f"{moment}.{name}"] = trainer.optimizer.state[value][moment].to("cpu").contiguous()
    save_file(tensors, partial / _TENSORS)
    (partial / _STATE).write_text(json.dumps(asdict(progressed)))
    for name in (_TENSORS, _STATE):
        with (partial / name).open("rb") as stream:
            os.fsync(stream.fileno())
    partial.rename(final)
    for other in folder.iterdir():
        if other != final:
            shutil.rmtree(other)


def load(folder: Path, trainer: Trainer, identity: Mapping[str, int]) -> Progressed | None:
    """Put the newest usable state into the trainer. None when there is none: the run starts at step 0."""
    for candidate in sorted(folder.glob("step-*"), reverse=True):
        if candidate.suffix == ".partial":
            continue
        try:
            progressed = Progressed(**json.loads((candidate / _STATE).read_bytes()))
            read_header(candidate / _TENSORS)
            tensors = load_file(candidate / _TENSORS)
            fits = all(
                tensors[f"{kind}.{name}"].shape == value.shape
                for name, value in trainer.parameters.items()
                for kind in ("weights", *_MOMENTS)
            )
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if fits and progressed.identity == dict(identity):
            _restore(trainer, tensors, progressed)
            return progressed
    return None


def _restore(trainer: Trainer, tensors: Mapping[str, torch.Tensor], progressed: Progressed) -> None:
    with torch.no_grad():
        for name, value in trainer.parameters.items():
            value.copy_(tensors[f"weights.{name}"])
            state = trainer.optimizer.state[value]
            state["step"].fill_(float(progressed.step))
            for moment in _MOMENTS:
                state[moment].copy_(tensors[f"{moment}.{name}"])
    trainer.micro_batch = min(trainer.micro_batch, progressed.micro_batch)
