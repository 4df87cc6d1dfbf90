"""One optimizer step over packs: the same update as `Trainer`, without a padded token.

Where the loss compares a question with its own candidates only, an example's gradient does not depend on what else is
in its pack: packs are as large as the memory allows, and their gradients add up to the step's. With in-batch negatives
the loss takes the vectors of all packs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from embedding_stages.encoder.packed import ops
from embedding_stages.encoder.packed.device import DevicePack
from embedding_stages.encoder.packed.encoder import PackedEncoder
from embedding_stages.encoder.packed.packs import Ragged, consecutive
from embedding_stages.errors import OutOfMemory, Transient
from embedding_stages.finetune.batches import Example, Part, split
from embedding_stages.finetune.exchange import Exchange
from embedding_stages.finetune.in_batch import Pool, SharedPool
from embedding_stages.finetune.loss import example_losses, not_finite
from embedding_stages.finetune.memory import in_parts, largest_pack
from embedding_stages.finetune.packed_kept import PackedKept
from embedding_stages.finetune.packed_lora import PackedLora
from embedding_stages.finetune.packed_steps import PreparedStep, StepPack, of_examples, of_rows
from embedding_stages.finetune.trainer import MAX_GRAD_NORM, StepReport, stopped_elsewhere
from embedding_stages.finetune.world import World

MOST_TOKENS: Final = 32768  # of a pack: larger ones train no faster (docs/benchmarks.md)
_FULL_HIDDEN: Final = 2048  # the hidden size at which they do not; narrower models take more tokens to fill a GPU
_MOST_PACKS: Final = 4  # of MOST_TOKENS in one
_LEAST_TOKENS: Final = 1024


def most_tokens(hidden_size: int) -> int:
    """Tokens of a pack above which a model of this hidden size trains no faster."""
    return MOST_TOKENS * min(_MOST_PACKS, max(1, _FULL_HIDDEN // hidden_size))


class PackedTrainer(PackedKept):
    """Owns the float32 master weights and the moments, as flat arrays beside the flat weights that it trains."""

    def __init__(
        self,
        encoder: PackedEncoder,
        *,
        temperature: float,
        weight_decay: float,
        token_budget: int | None = None,
        texts_per_example: int = 6,
        sizes: Sequence[int] = (),
        adapters: PackedLora | None = None,
        pool: Pool | None = None,
        between: Callable[[], None] = lambda: None,
        world: World | None = None,
    ) -> None:
        super().__init__(encoder, adapters)
        self.world = world or World.alone()
        self.token_budget = token_budget or most_tokens(encoder.description.hidden_size)
        self._tokens_per_example = texts_per_example * encoder.description.max_tokens
        self.updates = 0
        self.computed_tokens = 0  # in all steps, filler included
        self._temperature = temperature
        self._sizes = tuple(sizes)  # that vectors are cut to, beside the whole
        self._between = between  # called between packs; may raise to abandon the step
        self._settings = ops.AdamW(beta1=0.9, beta2=0.999, eps=1e-8, decay=weight_decay, most=MAX_GRAD_NORM)
        self._pool: SharedPool | None = None  # of in-batch negatives
        if pool:
            self._pool = SharedPool(pool, encoder, self.world, temperature=temperature, sizes=self._sizes)
        self._exchange = Exchange(self.world, self.gradient, self.moved.finishing_order())
        self._prepared: PreparedStep | None = None

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
        built while the accelerator is busy. Raises OutOfMemory when one example does not fit, Stopped
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
                self.moved.finish_gradients()
            finally:
                self.moved.drop_gradients()
            return total

        self._exchange.warm_up()
        try:
            found = largest_pack(use, device=self.encoder.device, most=self.token_budget)
        except torch.OutOfMemoryError:
            found = _LEAST_TOKENS  # the first step will say so if even that is too much
        self.token_budget = int(self.world.least(found))

    def embed(self, numbers: Sequence[int], texts: Ragged) -> torch.Tensor:
        """float32 (len(numbers), vector size): these rows by the model as it is. See `Trainer.embed`."""
        rows = np.asarray(numbers, dtype=np.int64)
        found = torch.zeros(len(rows), self.encoder.description.vector_size, device=self.encoder.device)

        def use(group: NDArray[np.int64]) -> None:
            self._between()
            vectors = self.encoder.vectors(self.encoder.send(self.encoder.pack(texts, rows[group])))
            found[torch.from_numpy(group).to(found.device)] = vectors

        with torch.no_grad():
            in_parts(consecutive(texts.lengths[rows], self.token_budget), use)
        return found

    def _mine(self, examples: Sequence[Example], lengths: NDArray[np.int64]) -> list[Example]:
        """The examples whose losses this rank computes: with one pool for all of them, all."""
        return list(examples) if self._pool else split(examples, lengths, self.world.size)[self.world.rank]

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
                self.moved.drop_gradients()
                raise
            self._exchange.finish()
            short, stopped = self.world.sum_numbers((float(bool(cause)), float(stop is not None)))
            if not short and not stopped:
                return loss
            self.moved.drop_gradients()
            if stopped:
                raise stop or stopped_elsewhere()
            self._give_way(cause or "on another worker")

    def _take(self, examples: Sequence[Example], texts: Ragged) -> PreparedStep:
        prepared, self._prepared = self._prepared, None
        if prepared is not None and prepared.examples == tuple(examples) and prepared.budget == self.token_budget:
            return prepared
        return self._prepare(examples, texts)

    def _prepare(self, examples: Sequence[Example], texts: Ragged) -> PreparedStep:
        if self._pool:
            return of_rows(self.encoder, examples, self._pool.dealt(examples, texts.lengths), texts, self.token_budget)
        return of_examples(self.encoder, examples, texts, self.token_budget)

    def _gradients(self, prepared: PreparedStep, weight: float, total: torch.Tensor) -> None:
        """Add weight * (sum of the examples' losses) to `total`; its gradients are left where they are held."""
        if self._pool:
            part = Part(prepared.examples, tuple(each.rows for each in prepared.packs), frozenset())
            with self._pool.exchanging(part):
                self._pool_gradients(self._pool, part, prepared, weight, total)
        else:
            for number, each in enumerate(prepared.packs, start=1):
                there, vectors = self._vectors(each)
                loss = example_losses(vectors, there.extra, self._temperature, self._sizes).sum() * weight
                with self._summing() if number == len(prepared.packs) else nullcontext():
                    loss.backward()  # type: ignore[no-untyped-call]
                total += loss.detach()
        self.moved.finish_gradients()

    def _pool_gradients(
        self, pool: SharedPool, part: Part, prepared: PreparedStep, weight: float, total: torch.Tensor
    ) -> None:
        """`_gradients` with in-batch negatives: this rank encodes its share of the step's texts, and the loss of all
        examples is computed everywhere. Only rank 0 adds it, or the sum would count it once a rank.

        The loss needs all vectors, memory holds the graph of one pack: the others are encoded without a graph first
        and again once the gradient at their vectors is known.
        """
        packs, leaves, vectors = prepared.packs, list[torch.Tensor](), torch.zeros(0)
        for number, each in enumerate(packs, start=1):
            with torch.set_grad_enabled(number == len(packs)):
                _, vectors = self._vectors(each)
            leaves.append(vectors.detach().requires_grad_())
        if not leaves:  # more ranks than texts
            return
        loss = pool.losses(part, torch.cat(leaves)).sum() * weight
        loss.backward()  # type: ignore[no-untyped-call]
        for number in reversed(range(len(packs))):
            if number + 1 < len(packs):
                _, vectors = self._vectors(packs[number])
            with self._summing() if number == 0 else nullcontext():
                vectors.backward(leaves[number].grad)  # type: ignore[no-untyped-call]
        if self.world.leads:
            total += loss.detach()

    def _vectors(self, each: StepPack) -> tuple[DevicePack, torch.Tensor]:
        """The pack on the accelerator, and its vectors."""
        self._between()
        there = self.encoder.send(each.pack, each.tables)
        self.computed_tokens += each.pack.size
        return there, self.encoder.vectors(there)

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
            self.moved.flat,
            self.gradient,
            self.master,
            self.moments["exp_avg"],
            self.moments["exp_avg_sq"],
            norm,
            decayed=self.moved.decayed,
            rate=rate,
            step=self.updates + 1,
        )

    def _give_way(self, cause: str) -> None:
        """Free the step's memory and halve the packs."""
        self.moved.drop_gradients()
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
