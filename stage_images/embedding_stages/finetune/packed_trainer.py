"""One optimizer step over packs: the same update as `Trainer`, without a padded token.

The loss compares a question with its own candidates only, so an example's gradient does not depend on what else is
in its pack: packs are free to be as large as the memory allows and their gradients add up to the step's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from embedding_stages.encoder.packed import ops
from embedding_stages.encoder.packed.encoder import PackedEncoder
from embedding_stages.encoder.packed.packs import Ints, Pack, Ragged, balanced
from embedding_stages.errors import OutOfMemory
from embedding_stages.finetune.batches import Example
from embedding_stages.finetune.loss import candidate_loss, not_finite
from embedding_stages.finetune.trainer import MAX_GRAD_NORM, StepReport

MOST_TOKENS: Final = 32768  # of a pack: larger ones train no faster (docs/benchmarks.md)
_LEAST_TOKENS: Final = 1024


@dataclass(frozen=True, slots=True)
class PreparedStep:
    """The packs of a step with the tables of their losses, in main memory."""

    examples: tuple[Example, ...]
    packs: tuple[tuple[Pack, tuple[Ints, Ints, Ints]], ...]
    budget: int


class PackedTrainer:
    """Owns the float32 master weights and the moments, as flat arrays beside the model's flat weights."""

    def __init__(
        self,
        encoder: PackedEncoder,
        *,
        temperature: float,
        weight_decay: float,
        token_budget: int,
        between: Callable[[], None] = lambda: None,
    ) -> None:
        self.encoder = encoder
        self.token_budget = token_budget
        self.updates = 0
        self.computed_tokens = 0  # in all steps, filler included
        self._temperature = temperature
        self._between = between  # called between packs; may raise to abandon the step
        self._settings = ops.AdamW(beta1=0.9, beta2=0.999, eps=1e-8, decay=weight_decay, most=MAX_GRAD_NORM)
        model = encoder.model
        self.gradient = model.hold_gradients()
        self.master = model.flat if model.flat.dtype == torch.float32 else model.flat.float()
        self.moments = {name: torch.zeros_like(self.master) for name in ("exp_avg", "exp_avg_sq")}
        self._prepared: PreparedStep | None = None

    def step(
        self,
        examples: Sequence[Example],
        texts: Ragged,
        rate: float,
        *,
        following: Sequence[Example] = (),
    ) -> StepReport:
        """One update with learning rate `rate`. An exception leaves weights and optimizer as they were.

        `following` are the next step's examples: their packs are built while the accelerator is busy.
        Raises OutOfMemory when one example does not fit, StageError `LossNotFinite`.
        """
        while True:
            try:
                prepared = self._take(examples, texts)
                loss = self._gradients(prepared)
                break
            except torch.OutOfMemoryError as error:
                cause = str(error).splitlines()[0]  # not the error: its frames hold the step's tensors
            except BaseException:
                self.encoder.model.drop_gradients()
                raise
            self._give_way(cause)
        self.encoder.model.finish_gradients()
        norm = torch.linalg.vector_norm(self.gradient, dtype=torch.float32)
        self._update(norm, rate)
        if following:
            self._prepared = self._prepare(following, texts)
        found, length = torch.stack([loss, norm]).tolist()  # waits for the accelerator
        if not (math.isfinite(found) and math.isfinite(length)):
            raise not_finite(found, length)  # nothing was updated: the kernel looks at the norm
        self.updates += 1
        self.computed_tokens += sum(pack.size for pack, _ in prepared.packs)
        return StepReport(loss=found, grad_norm=length, tokens=sum(pack.tokens for pack, _ in prepared.packs))

    def probe(self, examples: Sequence[Example], texts: Ragged) -> None:
        """One forward and backward pass whose gradients are dropped: what it takes of memory shows.

        Raises torch.OutOfMemoryError.
        """
        try:
            self._gradients(self._prepare(examples, texts))
        finally:
            self.encoder.model.drop_gradients()

    def _take(self, examples: Sequence[Example], texts: Ragged) -> PreparedStep:
        prepared, self._prepared = self._prepared, None
        if prepared is not None and prepared.examples == tuple(examples) and prepared.budget == self.token_budget:
            return prepared
        return self._prepare(examples, texts)

    def _prepare(self, examples: Sequence[Example], texts: Ragged) -> PreparedStep:
        """Whole examples dealt to packs of equal size; a text that several examples of a pack share is in it once."""
        lengths = texts.lengths
        weights = [int(sum(lengths[row] for row in (example.query, *example.candidates))) for example in examples]
        packs = []
        for group in balanced(weights, self.token_budget):
            chosen = [examples[number] for number in group]
            rows = sorted({row for example in chosen for row in (example.query, *example.candidates)})
            packs.append((self.encoder.pack(texts, rows), _tables(chosen, rows)))
        return PreparedStep(examples=tuple(examples), packs=tuple(packs), budget=self.token_budget)

    def _gradients(self, prepared: PreparedStep) -> torch.Tensor:
        """The mean loss of the step's examples, on the accelerator; gradients are left in the model."""
        total = torch.zeros((), device=self.encoder.device)
        for pack, tables in prepared.packs:
            self._between()
            there = self.encoder.send(pack, tables)
            queries, candidates, present = there.extra
            vectors = self.encoder.vectors(there)
            losses = candidate_loss(vectors[queries], vectors[candidates], present.bool(), self._temperature)
            loss = losses.sum() / len(prepared.examples)
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return total

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
        if self.encoder.device.type == "cuda":
            torch.cuda.empty_cache()
        if self.token_budget <= _LEAST_TOKENS:
            raise OutOfMemory(
                "GPUOutOfMemory",
                "one example does not fit the accelerator's memory: lower the base model's maxTokens or use a "
                f"larger accelerator ({cause})",
            )
        self.token_budget //= 2


def _tables(examples: Sequence[Example], rows: Sequence[int]) -> tuple[Ints, Ints, Ints]:
    """Places in the pack: queries (e,), candidates (e, c), and which candidates exist (e, c)."""
    place = {row: number for number, row in enumerate(rows)}
    width = max(len(example.candidates) for example in examples)
    candidates = np.zeros((len(examples), width), dtype=np.int32)
    present = np.zeros((len(examples), width), dtype=np.int32)
    for number, example in enumerate(examples):
        count = len(example.candidates)
        candidates[number, :count] = [place[row] for row in example.candidates]
        present[number, :count] = 1
    queries = np.array([place[example.query] for example in examples], dtype=np.int32)
    return queries, candidates, present
