"""The state between attempts: weights and optimizer moments as safetensors, the rest as JSON; nothing pickled.

    <scratch>/step-00000100/state.safetensors    weights.<name>, exp_avg.<name>, exp_avg_sq.<name>; best.<name>
                                                 where validations choose what is published
    <scratch>/step-00000100/state.json           written last; the folder is renamed into place when complete

There is no random state to keep: batches are a function of seed and step (see `batches`), dropout is off.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import torch
from safetensors.torch import load_file

from embedding_stages.encoder.safetensors_check import read_header
from embedding_stages.errors import Transient, is_absent
from embedding_stages.finetune import stream
from embedding_stages.finetune.world import World

_TENSORS = "state.safetensors"
_STATE = "state.json"
_BEST = "best."


@dataclass(frozen=True, slots=True)
class Progressed:
    """What a resumed run must know besides tensors."""

    step: int  # optimizer steps done
    identity: Mapping[str, int]  # seed, examples, global batch, steps: a state of another run is refused
    micro_batch: int
    losses: list[float]  # one a step
    points: Sequence[tuple[int, float, float]] = ()  # of each validation: step, loss, NDCG@10
    best: Mapping[str, torch.Tensor] = field(default_factory=dict)  # the weights of the best of them, of rank 0

    def to_json(self) -> dict[str, object]:
        """Without tensors, and without what a run that validates nothing lacks: earlier releases read it too."""
        found: dict[str, object] = {
            "step": self.step,
            "identity": dict(self.identity),
            "micro_batch": self.micro_batch,
            "losses": self.losses,
        }
        return found | ({"points": [list(point) for point in self.points]} if self.points else {})


class Resumable(Protocol):
    """What a trainer offers so that its state can be kept; see `Trainer` for what the methods promise."""

    world: World

    def tensors(self) -> Mapping[str, torch.Tensor]: ...
    def shapes(self) -> Mapping[str, torch.Size]: ...
    def restore(self, tensors: Mapping[str, torch.Tensor], *, step: int, micro_batch: int) -> None: ...


def save(folder: Path, trainer: Resumable, progressed: Progressed) -> None:
    """Write the state of this step, then remove older ones. A crash leaves the older state whole.

    All ranks call it; rank 0 writes and the others wait for it. Raises OSError on rank 0, Transient `PeerLost`.
    """
    tensors = trainer.tensors()
    try:
        if trainer.world.leads:
            _write(folder, tensors, progressed)
    finally:
        trainer.world.meet(f"saved-{progressed.step}")


class Background:
    """Writes resume points while training goes on; one at a time. One that fails is logged, and the next one tried."""

    def __init__(self, folder: Path, log: Callable[..., None]) -> None:
        self._folder = folder
        self._log = log
        self._thread: threading.Thread | None = None
        self._failure: Exception | None = None  # of the thread
        self._failed: Exception | None = None  # of the last resume point that was waited for

    @property
    def busy(self) -> bool:
        """Whether a resume point is being written."""
        return self._thread is not None and self._thread.is_alive()

    def save(self, trainer: Resumable, progressed: Progressed) -> None:
        """Copy the state of this step and write it from another thread. All ranks call it; rank 0 writes.

        Waits for the resume point before. Raises what ended it when the one before that failed too: a volume that
        takes nothing any more shall end the run soon, not when it is done.
        """
        before, failure = self._failed, self.finish()
        if before is not None and failure is not None:
            raise failure
        tensors = trainer.tensors()
        if trainer.world.leads:
            self._thread = threading.Thread(target=self._write, args=(tensors, progressed), name="resume point")
            self._thread.start()

    def finish(self) -> Exception | None:
        """Wait for what is being written, and return what ended the last resume point before it was complete."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
            self._failed, self._failure = self._failure, None
            if self._failed is not None:
                self._log("resume point not written", error=str(self._failed))
        return self._failed

    def _write(self, tensors: Mapping[str, torch.Tensor], progressed: Progressed) -> None:
        try:
            _write(self._folder, tensors, progressed)
        except Exception as error:  # whatever it is: the thread has nobody else to tell
            self._failure = error


def load(folder: Path, trainer: Resumable, identity: Mapping[str, int]) -> Progressed | None:
    """Put the newest usable state into the trainer. None when there is none: the run starts at step 0.

    All ranks read the same files; how many there are is not part of the state. Raises Transient `PeerLost`, or
    `ResumePointUnseen` when a rank does not find what rank 0 has found.
    """
    tensors, progressed = _newest(folder, trainer.shapes(), identity) or ({}, None)
    step = progressed.step if progressed else 0
    leaders = trainer.world.sum_number(step if trainer.world.leads else 0)
    if trainer.world.any(step != leaders):
        raise Transient("ResumePointUnseen", f"the workers do not all see the resume point of step {leaders:.0f}")
    if progressed:
        trainer.restore(tensors, step=step, micro_batch=progressed.micro_batch)
    return progressed


def _write(folder: Path, tensors: Mapping[str, torch.Tensor], progressed: Progressed) -> None:
    final = folder / f"step-{progressed.step:08d}"
    if final.exists():
        return
    for cut_off in folder.glob("*.partial"):  # of any step: the volume may have room for two states, not three
        shutil.rmtree(cut_off)
    partial = folder / f"{final.name}.partial"
    partial.mkdir(parents=True)
    try:
        stream.write({**tensors, **{_BEST + name: best for name, best in progressed.best.items()}}, partial / _TENSORS)
        (partial / _STATE).write_text(json.dumps(progressed.to_json()))
        for name in (_TENSORS, _STATE):
            with (partial / name).open("rb") as written:
                os.fsync(written.fileno())
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)  # or the checkpoint finds the volume full of half a state
        raise
    partial.rename(final)
    for other in folder.iterdir():
        if other != final:
            shutil.rmtree(other)


def _newest(
    folder: Path, shapes: Mapping[str, torch.Size], identity: Mapping[str, int]
) -> tuple[dict[str, torch.Tensor], Progressed] | None:
    for candidate in sorted(folder.glob("step-*"), reverse=True):
        if candidate.suffix == ".partial":
            continue
        try:
            progressed = Progressed(**json.loads((candidate / _STATE).read_bytes()))
            read_header(candidate / _TENSORS)
            tensors = load_file(candidate / _TENSORS)  # maps the file: a node's ranks share its pages
            fits = all(tensors[key].shape == shape for key, shape in shapes.items())
            if progressed.points:
                progressed = replace(progressed, best=_best(tensors, shapes))
        except OSError as error:  # one that is not given now would be removed by the next one that is written
            if not is_absent(error):
                raise
            continue
        except (ValueError, KeyError, TypeError):
            continue
        if fits and progressed.identity == dict(identity):
            return tensors, progressed
    return None


def _best(tensors: Mapping[str, torch.Tensor], shapes: Mapping[str, torch.Size]) -> dict[str, torch.Tensor]:
    """The best weights by name. Raises KeyError where one is missing."""
    names = (name.removeprefix("weights.") for name in shapes if name.startswith("weights."))
    return {name: tensors[_BEST + name] for name in names}
