"""One optimizer step over packs: the same update as `Trainer`, without a padded token.

The loss compares a question with its own candidates only, so an example's gradient does not depend on what else is
in its pack: packs are free to be as large as the memory allows and their gradients add up to the step's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from embedding_stages.contract import INTERRUPTED
from embedding_stages.encoder.packed import ops
from embedding_stages.encoder.packed.encoder import PackedEncoder
from embedding_stages.encoder.packed.packs import Ints, Pack, Ragged, balanced, consecutive
from embedding_stages.errors import OutOfMemory, Transient
from embedding_stages.finetune.batches import Example, split
from embedding_stages.finetune.exchange import Exchange
from embedding_stages.finetune.loss import example_losses, not_finite, tables_of
from embedding_stages.finetune.memory import SHARE, in_parts, largest_pack
from embedding_stages.finetune.trainer import MAX_GRAD_NORM, StepReport
from embedding_stages.finetune.world import World

MOST_TOKENS: Final = 32768  # of a pack: larger ones train no faster (docs/benchmarks.md)
_FULL_HIDDEN: Final = 2048  # the hidden size at which they do not; narrower models take more tokens to fill a GPU
_MOST_PACKS: Final = 4  # of MOST_TOKENS in one
_LEAST_TOKENS: Final = 1024


def most_tokens(hidden_size: int) -> int:
    """Tokens of a pack above which a model of this hidden size trains no faster."""
    return MOST_TOKENS * min(_MOST_PACKS, max(1, _FULL_HIDDEN // hidden_size))


@dataclass(frozen=True, slots=True)
class PreparedStep:
    """The packs of a step with the tables of their losses, in main memory."""

    examples: tuple[Example, ...]
    packs: tuple[tuple[Pack, tuple[Ints, ...]], ...]
    budget: int


class PackedTrainer:
    """Owns the float32 master weights and the moments, as flat arrays beside the model's flat weights."""

    def __init__(
        self,
        encoder: PackedEncoder,
        *,
        temperature: float,
        weight_decay: float,
        token_budget: int | None = None,
        texts_per_example: int = 6,
        sizes: Sequence[int] = (),
        between: Callable[[], None] = lambda: None,
        world: World | None = None,
    ) -> None:
        self.encoder = encoder
        self.world = world or World.alone()
        self.token_budget = token_budget or most_tokens(encoder.description.hidden_size)
        self._tokens_per_example = texts_per_example * encoder.description.max_tokens
        self.updates = 0
        self.computed_tokens = 0  # in all steps, filler included
        self._temperature = temperature
        self._sizes = tuple(sizes)  # that vectors are cut to, beside the whole
        self._between = between  # called between packs; may raise to abandon the step
        self._settings = ops.AdamW(beta1=0.9, beta2=0.999, eps=1e-8, decay=weight_decay, most=MAX_GRAD_NORM)
        model = encoder.model
        self.gradient = model.hold_gradients()
        self._exchange = Exchange(self.world, self.gradient, model.finishing_order())
        self.master = encoder.master_weights()
        self.moments = {name: torch.zeros_like(self.master) for name in ("exp_avg", "exp_avg_sq")}
        self._prepared: PreparedStep | None = None
        self._copies: dict[str, torch.Tensor] = {}  # of the state, for resume points; made once

    @property
    def micro_batch(self) -> int:
        """Examples of full length that a pack has room for: what resume points and results speak of."""
        return max(1, self.token_budget // self._tokens_per_example)

    def step(
        self,
        examples: Sequence[Example],
        texts: Ragged,
        rate: float,
        *,
        following: Sequence[Example] = (),
    ) -> StepReport:
        """One update with learning rate `rate`. An exception leaves weights and optimizer as they were.

        Every rank gets the whole step's examples and does its share. `following` are the next step's: their packs are
        built while the accelerator is busy. Raises OutOfMemory when one example does not fit, StageError
        `LossNotFinite`, what `between` raises, Transient `PeerLost`.
        """
        lengths = texts.lengths
        mine = self._mine(examples, lengths)
        total = self._agreed_gradients(mine, texts, weight=1.0 / len(examples))
        self.world.sum_([total])
        norm = torch.linalg.vector_norm(self.gradient, dtype=torch.float32)
        self._update(torch.where(total.isfinite(), norm, math.nan), rate)
        if following:
            self._prepared = self._prepare(self._mine(following, lengths), texts)
        loss, length = float(total), float(norm)  # waits for the accelerator: nothing before this line does
        if not (math.isfinite(loss) and math.isfinite(length)):
            raise not_finite(loss, length)  # nothing was updated: the kernel looks at the norm
        self.updates += 1
        used = {row for example in examples for row in (example.query, *example.candidates)}
        return StepReport(loss=loss, grad_norm=length, tokens=int(lengths[list(used)].sum()))

    def find_budget(self, examples: Sequence[Example], texts: Ragged) -> None:
        """Make packs as large as the memory allows; all ranks take the smallest of theirs. Nothing is updated."""
        lengths = texts.lengths

        def use(tokens: int) -> int:
            chosen: list[Example] = []
            total = 0
            while total < tokens:
                example = examples[len(chosen) % len(examples)]
                chosen.append(example)
                total += int(sum(lengths[row] for row in (example.query, *example.candidates)))
            try:
                # Not `_prepare`: a text that examples share has to be in the pack once for each.
                rows = [row for example in chosen for row in (example.query, *example.candidates)]
                self.encoder.vectors(self.encoder.send(self.encoder.pack(texts, rows))).sum().backward()  # type: ignore[no-untyped-call]
                self.encoder.model.finish_gradients()
            finally:
                self.encoder.model.drop_gradients()
            return total

        self._exchange.warm_up()
        try:
            found = largest_pack(use, device=self.encoder.device, most=self.token_budget)
        except torch.OutOfMemoryError:
            found = _LEAST_TOKENS  # the first step will say so if even that is too much
        self.token_budget = int(self.world.least(found))

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
        """weights.<name on disk>, exp_avg.<name>, exp_avg_sq.<name>."""
        flats = {"weights": self.master, **self.moments}
        return {name: view.shape for name, view in self._named(flats)}

    def restore(self, tensors: Mapping[str, torch.Tensor], *, step: int, micro_batch: int) -> None:  # noqa: ARG002
        """Go on from a resume point after `step` steps. The size of packs is measured anew, not restored."""
        for name, view in self._named({"weights": self.master, **self.moments}):
            view.copy_(tensors[name])
        self.encoder.model.flat.copy_(self.master)
        self.updates = step

    def weights(self) -> dict[str, torch.Tensor]:
        """A copy of the weights by the names on disk, on the CPU; only on rank 0."""
        named = self.encoder.model.on_disk(self.master) if self.world.leads else ()
        return {name: view.to("cpu", copy=True).contiguous() for name, view in named}

    def embed(self, numbers: Sequence[int], texts: Ragged) -> torch.Tensor:
        """float32 (len(numbers), vector size): these rows by the model as it is. See `Trainer.embed`."""
        rows = np.asarray(numbers, dtype=np.int64)
        found = torch.zeros(len(rows), self.encoder.description.vector_size, device=self.encoder.device)

        def use(group: NDArray[np.int64]) -> None:
            vectors = self.encoder.vectors(self.encoder.send(self.encoder.pack(texts, rows[group])))
            found[torch.from_numpy(group).to(found.device)] = vectors

        with torch.no_grad():
            in_parts(consecutive(texts.lengths[rows], self.token_budget), use)
        return found

    def save(
        self,
        folder: Path,
        base: Path,  # noqa: ARG002 - the encoder knows where it came from
        weights: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        """Write the trained model; rank 0 alone does. See `Trainer.save`."""
        if self.world.leads:
            for name, view in self.encoder.model.on_disk(self.master) if weights else ():
                view.copy_((weights or {})[name])
            self.encoder.save(folder, self.master)

    def _named(self, flats: Mapping[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
        """Views of flat arrays by the names on disk, one kind after the other."""
        for kind, flat in flats.items():
            for name, view in self.encoder.model.on_disk(flat):
                yield f"{kind}.{name}", view

    def _mine(self, examples: Sequence[Example], lengths: NDArray[np.int64]) -> list[Example]:
        return split(examples, lengths, self.world.size)[self.world.rank]

    def _agreed_gradients(self, mine: Sequence[Example], texts: Ragged, *, weight: float) -> torch.Tensor:
        """This rank's part of the step's loss, with the gradients of all ranks in the model.

        A rank without memory, or asked to stop, does not leave: its peers would wait for it. It sends what it has and
        says that the sum is worth nothing.
        """
        while True:
            cause, stop = "", None
            loss = torch.zeros((), device=self.encoder.device)
            self._exchange.begin()
            try:
                self._gradients(self._take(mine, texts), weight, loss)
            except torch.OutOfMemoryError as error:
                cause = str(error).splitlines()[0]  # not the error: its frames hold the step's tensors
            except Transient as error:
                stop = error
            except BaseException:
                self.encoder.model.drop_gradients()
                raise
            self._exchange.finish()
            short, stopped = self.world.sum_numbers((float(bool(cause)), float(stop is not None)))
            if not short and not stopped:
                return loss
            self.encoder.model.drop_gradients()
            if stopped:
                raise stop or Transient(INTERRUPTED, "another worker was asked to stop; the next attempt resumes here")
            self._give_way(cause or "on another worker")

    def _take(self, examples: Sequence[Example], texts: Ragged) -> PreparedStep:
        prepared, self._prepared = self._prepared, None
        if prepared is not None and prepared.examples == tuple(examples) and prepared.budget == self.token_budget:
            return prepared
        return self._prepare(examples, texts)

    def _prepare(self, examples: Sequence[Example], texts: Ragged) -> PreparedStep:
        """Whole examples dealt to packs of equal size; a text that several examples of a pack share is in it once."""
        if not examples:
            return PreparedStep(examples=(), packs=(), budget=self.token_budget)
        lengths = texts.lengths
        weights = [int(sum(lengths[row] for row in (example.query, *example.candidates))) for example in examples]
        packs = []
        for group in balanced(weights, self.token_budget):
            chosen = [examples[number] for number in group]
            rows = sorted({row for example in chosen for row in (example.query, *example.candidates)})
            packs.append((self.encoder.pack(texts, rows), tables_of(chosen, rows)))
        return PreparedStep(examples=tuple(examples), packs=tuple(packs), budget=self.token_budget)

    def _gradients(self, prepared: PreparedStep, weight: float, total: torch.Tensor) -> None:
        """Add weight * (sum of the examples' losses) to `total`; its gradients are left in the model."""
        for number, (pack, tables) in enumerate(prepared.packs, start=1):
            self._between()
            there = self.encoder.send(pack, tables)
            losses = example_losses(self.encoder.vectors(there), there.extra, self._temperature, self._sizes)
            loss = losses.sum() * weight
            with self._summing() if number == len(prepared.packs) else nullcontext():
                loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
            self.computed_tokens += pack.size
        self.encoder.model.finish_gradients()

    @contextmanager
    def _summing(self) -> Iterator[None]:
        """During the last backward pass of a step each layer's gradients are final once it is through."""
        model, layers = self.encoder.model, self.encoder.model.shape.layers
        model.layer_done = lambda number: self._exchange.advance(layers - number)
        try:
            yield
        finally:
            model.layer_done = None

    def _update(self, norm: torch.Tensor, rate: float) -> None:
        ops.adamw_(
            self._settings,
            self.encoder.model.flat,
            self.gradient,
            self.master,
            self.moments["exp_avg"],
            self.moments["exp_avg_sq"],
            norm,
            decayed=self.encoder.model.decayed,
            rate=rate,
            step=self.updates + 1,
        )

    def _give_way(self, cause: str) -> None:
        """Free the step's memory and halve the packs."""
        self.encoder.model.drop_gradients()
        self._prepared = None
        self._copies = {}
        if self.encoder.device.type == "cuda":
            torch.cuda.empty_cache()
        if self.token_budget <= _LEAST_TOKENS:
            raise OutOfMemory(
                "GPUOutOfMemory",
                "one example does not fit the accelerator's memory: lower the base model's maxTokens or use a "
                f"larger accelerator ({cause})",
            )
        self.token_budget //= 2


def _has_room(device: torch.device, size: int) -> bool:
    """Whether `size` more bytes leave the next step the memory that it took before."""
    if device.type != "cuda":
        return True
    free, total = torch.cuda.mem_get_info(device)
    return free - size > (1 - SHARE) * total
