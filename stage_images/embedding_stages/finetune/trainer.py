"""One optimizer step: exact gradients of the global batch through forward passes that fit the memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch

from embedding_stages.contract import INTERRUPTED
from embedding_stages.encoder.model import PaddedEncoder
from embedding_stages.errors import OutOfMemory, Transient
from embedding_stages.finetune import on_cpu
from embedding_stages.finetune.batches import Example, Part, groups_of, plan_rows, plan_step, split
from embedding_stages.finetune.in_batch import Pool, SharedPool
from embedding_stages.finetune.kept import Kept
from embedding_stages.finetune.lanes import Encode, Lanes
from embedding_stages.finetune.lora import Adapters
from embedding_stages.finetune.loss import example_losses, not_finite, tables_of
from embedding_stages.finetune.memory import in_parts
from embedding_stages.finetune.optimizer import optimizer_of
from embedding_stages.finetune.precision import bfloat16_products
from embedding_stages.finetune.sharding import Shards, squared_norm
from embedding_stages.finetune.world import World

MAX_GRAD_NORM = 1.0  # NVIDIA embed recipe, profile llama


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one step did."""

    loss: float  # mean over the step's examples
    grad_norm: float  # before clipping
    tokens: int  # of the distinct texts, without padding


class Trainer(Kept):
    """Owns the optimizer. `encode` maps token rows to vectors (n, hidden); a faster one may replace it.

    `micro_batch` is how many examples' texts of full length one forward pass may hold; when the accelerator's
    memory is too small it is halved and the step is done again, with the same global batch.
    """

    def __init__(
        self,
        encoder: PaddedEncoder,
        *,
        temperature: float,
        weight_decay: float,
        micro_batch: int,
        texts_per_example: int,
        sizes: Sequence[int] = (),
        adapters: Adapters | None = None,
        pool: Pool | None = None,
        bfloat16: bool = False,
        encode: Encode | None = None,
        between: Callable[[], None] = lambda: None,
        world: World | None = None,
    ) -> None:
        self.encoder = encoder
        self.world = world or World.alone()
        self.micro_batch = micro_batch
        self._temperature = temperature
        self._sizes = tuple(sizes)  # that vectors are cut to, beside the whole
        self._bfloat16 = bfloat16
        self._tokens_per_example = texts_per_example * encoder.description.max_tokens
        self._encode = encode or encoder.vectors
        self._between = between  # called between forward passes; may raise Transient to abandon the step
        self._least_tokens = 0  # of a part, whatever the micro-batch
        if encoder.device.type == "cpu" and not self.world.sharded:
            self._least_tokens = on_cpu.TOKENS
            on_cpu.keep_sparse(encoder.module)
        self._shards = Shards(encoder, self.world, bfloat16=bfloat16) if self.world.sharded else None
        self._pool: SharedPool | None = None  # of in-batch negatives
        if pool:
            self._pool = SharedPool(pool, encoder, self.world, temperature=temperature, sizes=self._sizes)
        self._adapters = adapters  # that are trained in the place of the weights
        named = encoder.module.named_parameters()
        self.parameters = {name: value for name, value in named if value.requires_grad}
        self.optimizer = optimizer_of(self.parameters, weight_decay)
        self._lanes: Lanes | None = None
        if encoder.device.type == "cpu" and not (self.world.sharded or pool or encode):
            examples = self._token_budget // self._tokens_per_example  # of full length, whose graphs may be kept
            self._lanes = Lanes.of(encoder, self._encode, self.parameters, most=examples, short=bfloat16)

    def step(self, examples: Sequence[Example], rows: Sequence[Sequence[int]], rate: float) -> StepReport:
        """One update with learning rate `rate`. An exception leaves weights and optimizer as they were.

        Every rank gets the whole step's examples, does its share of them and reports the whole step; memory that is
        short on one rank, or SIGTERM on one, is everybody's. Raises OutOfMemory when a micro-batch of one example
        does not fit, Stopped `LossNotFinite`, what `between` raises, Transient `PeerLost`.
        """
        lengths = [len(row) for row in rows]
        share = examples if self._pool else split(examples, lengths, self.world.size)[self.world.rank]
        loss = self._agreed_gradients(share, rows, lengths, weight=1.0 / len(examples))
        norm = self._finish_gradients()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self.optimizer.zero_grad(set_to_none=True)
            raise not_finite(loss, norm)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        used = {row for example in examples for row in (example.query, *example.candidates)}
        return StepReport(loss=loss, grad_norm=norm, tokens=sum(lengths[row] for row in used))

    def embed(self, numbers: Sequence[int], rows: Sequence[Sequence[int]]) -> torch.Tensor:
        """float32 (len(numbers), vector size): these rows by the model as it is, in training's precision.

        With shards all ranks call it together. Memory that is short makes the passes smaller; raises
        torch.OutOfMemoryError when a single row does not fit, what `between` raises.
        """
        found = torch.zeros(len(numbers), self.encoder.description.vector_size, device=self.encoder.device)
        lengths = [len(rows[number]) for number in numbers]
        longest_first = sorted(range(len(numbers)), key=lambda place: -lengths[place])
        groups = groups_of(longest_first, lengths, self._token_budget)

        def use(group: tuple[int, ...]) -> None:
            self._between()
            found[list(group)] = self._forward([numbers[place] for place in group], rows, self._encode)

        if self._shards:
            self._shards.gather()
        try:
            with torch.no_grad():
                in_parts(groups, use)
        finally:
            if self._shards:
                self._shards.drop()
        return found

    def _agreed_gradients(
        self, mine: Sequence[Example], rows: Sequence[Sequence[int]], lengths: Sequence[int], *, weight: float
    ) -> float:
        """The step's loss over all ranks, with this rank's gradients in the parameters.

        A rank without memory, or asked to stop, does not leave: its peers would wait for it. It says so in the sum.
        """
        while True:
            loss, cause, stop = 0.0, "", None
            if self._shards:
                self._shards.gather()
            try:
                loss = self._gradients(mine, rows, lengths, weight=weight)
            except torch.OutOfMemoryError as error:
                cause = f"{error}\n".splitlines()[0] or "no memory"  # not the error: its frames hold tensors
            except Transient as error:
                stop = error
            except BaseException:
                self.optimizer.zero_grad(set_to_none=True)
                raise
            loss, short, stopped = self.world.sum_numbers((loss, float(bool(cause)), float(stop is not None)))
            if not short and not stopped:
                return loss
            if self._shards:
                self._shards.add_up()  # the library gives unsummed gradients away in no other way
            self.optimizer.zero_grad(set_to_none=True)
            if stopped:
                raise stop or stopped_elsewhere()
            self._give_way(cause or "on another worker")

    @property
    def _token_budget(self) -> int:
        """Padded tokens whose graphs may be kept at once."""
        return max(self.micro_batch * self._tokens_per_example, self._least_tokens)

    def _gradients(
        self, examples: Sequence[Example], rows: Sequence[Sequence[int]], lengths: Sequence[int], *, weight: float
    ) -> float:
        """weight * (sum of the examples' losses); its gradients are left in the parameters."""
        if not examples:
            return 0.0
        if self._pool:
            return self._pool_gradients(self._pool, examples, rows, lengths, weight=weight)
        count = len(self._lanes) if self._lanes else 1
        budget = self._token_budget // count

        def of_share(encode: Encode, share: Sequence[Example]) -> float:
            parts = plan_step(share, lengths, token_budget=budget) if share else []
            return sum(self._part_gradients(part, rows, encode, weight=weight) for part in parts)

        if self._lanes is None:
            return of_share(self._encode, examples)
        return self._lanes.run(of_share, split(examples, lengths, count))

    def _pool_gradients(
        self,
        pool: SharedPool,
        examples: Sequence[Example],
        rows: Sequence[Sequence[int]],
        lengths: Sequence[int],
        *,
        weight: float,
    ) -> float:
        """`_gradients` with in-batch negatives: this rank encodes its share of the step's texts, and the loss of all
        examples is computed everywhere. Only rank 0 tells it, or the sum would count it once a rank.
        """
        part = plan_rows(examples, pool.dealt(examples, lengths), lengths, token_budget=self._token_budget)
        with pool.exchanging(part):
            loss = self._part_gradients(part, rows, self._encode, weight=weight)
        return loss if self.world.leads else 0.0

    def _finish_gradients(self) -> float:
        """Add up the ranks' gradients and clip them; the norm before that."""
        on_cpu.make_dense(self.parameters.values())
        if self._shards is None:
            if self.world.size > 1:
                for value in self.parameters.values():  # a rank without examples has none
                    value.grad = torch.zeros_like(value) if value.grad is None else value.grad
                self.world.sum_([value.grad for value in self.parameters.values() if value.grad is not None])
            return float(torch.nn.utils.clip_grad_norm_(self.parameters.values(), MAX_GRAD_NORM))
        self._shards.add_up()
        gradients = [value.grad for value in self.parameters.values() if value.grad is not None]
        norm = math.sqrt(self.world.sum_number(squared_norm(gradients)))
        for gradient in gradients:
            gradient.mul_(min(1.0, MAX_GRAD_NORM / (norm + 1e-6)))  # as torch.nn.utils.clip_grad_norm_
        return norm

    def _part_gradients(self, part: Part, rows: Sequence[Sequence[int]], encode: Encode, *, weight: float) -> float:
        """Adds the gradients of weight * (sum of the part's losses); returns that value.

        The loss needs all vectors at once, memory holds only the kept groups' graphs: the others are encoded
        without a graph first and again once the gradient at their vectors is known.
        """
        graphs: dict[int, torch.Tensor] = {}
        leaves: list[torch.Tensor] = []
        for number, group in enumerate(part.groups):
            self._between()
            with torch.set_grad_enabled(number in part.kept):
                vectors = self._forward(group, rows, encode)
            if number in part.kept:
                graphs[number] = vectors
            leaves.append(vectors.detach().requires_grad_())
        if not leaves:  # more ranks than texts
            return 0.0
        loss = weight * self._loss(part, torch.cat(leaves))
        loss.backward()  # type: ignore[no-untyped-call]
        order = [*graphs, *(number for number in range(len(leaves)) if number not in graphs)]
        for number in order:
            self._between()
            vectors = graphs.pop(number) if number in graphs else self._forward(part.groups[number], rows, encode)
            vectors.backward(leaves[number].grad)  # type: ignore[no-untyped-call]
            del vectors
        return float(loss.detach())

    def _loss(self, part: Part, table: torch.Tensor) -> torch.Tensor:
        """Sum of the part's losses; `table` holds the vectors in the order of the part's groups."""
        if self._pool:
            return self._pool.losses(part, table).sum()
        tables = tables_of(part.examples, [row for group in part.groups for row in group])
        there = [torch.from_numpy(each).to(table.device) for each in tables]
        return example_losses(table, there, self._temperature, self._sizes).sum()

    def _forward(self, group: Sequence[int], rows: Sequence[Sequence[int]], encode: Encode) -> torch.Tensor:
        """float32 (len(group), hidden); with bfloat16 the master weights and gradients stay float32."""
        autocast = self._bfloat16 and self._shards is None  # shards come together in bfloat16
        with bfloat16_products(self.encoder.device.type) if autocast else nullcontext():
            return encode([rows[row] for row in group]).float()

    def _give_way(self, cause: str) -> None:
        """Free the step's memory and halve the micro-batch."""
        self.optimizer.zero_grad(set_to_none=True)
        if self.encoder.device.type == "cuda":
            torch.cuda.empty_cache()
        if self.micro_batch <= 1:
            raise OutOfMemory(
                "GPUOutOfMemory",
                "one example does not fit the accelerator's memory: lower the base model's maxTokens or use a "
                f"larger accelerator ({cause})",
            )
        self._least_tokens = 0
        self.micro_batch //= 2


def stopped_elsewhere() -> Transient:
    """What a worker raises because another one was asked to stop."""
    return Transient(INTERRUPTED, "another worker was asked to stop; the next attempt resumes here")
