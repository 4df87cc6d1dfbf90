"""One optimizer step: exact gradients of the global batch through forward passes that fit the memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch

from embedding_stages.encoder.model import Encoder
from embedding_stages.errors import OutOfMemory, StageError
from embedding_stages.finetune.batches import Example, Part, plan_step
from embedding_stages.finetune.loss import candidate_loss
from embedding_stages.finetune.precision import bfloat16_products

Encode = Callable[[Sequence[Sequence[int]]], torch.Tensor]
MAX_GRAD_NORM = 1.0  # NVIDIA embed recipe, profile llama
_BETAS = (0.9, 0.999)  # torch's defaults, the recipe's too
_EPSILON = 1e-8


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one step did."""

    loss: float  # mean over the step's examples
    grad_norm: float  # before clipping
    tokens: int  # of the distinct texts, without padding


class Trainer:
    """Owns the optimizer. `encode` maps token rows to vectors (n, hidden); a faster one may replace it.

    `micro_batch` is how many examples' texts of full length one forward pass may hold; when the accelerator's
    memory is too small it is halved and the step is done again, with the same global batch.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        temperature: float,
        weight_decay: float,
        micro_batch: int,
        texts_per_example: int,
        bfloat16: bool = False,
        encode: Encode | None = None,
        between: Callable[[], None] = lambda: None,
    ) -> None:
        self.encoder = encoder
        self.micro_batch = micro_batch
        self._temperature = temperature
        self._bfloat16 = bfloat16
        self._tokens_per_example = texts_per_example * encoder.description.max_tokens
        self._encode = encode or encoder.vectors
        self._between = between  # called between forward passes; may raise to abandon the step
        self.parameters = dict(encoder.module.named_parameters())
        self.optimizer = _optimizer(self.parameters, weight_decay)

    def step(self, examples: Sequence[Example], rows: Sequence[Sequence[int]], rate: float) -> StepReport:
        """One update with learning rate `rate`. An exception leaves weights and optimizer as they were.

        Raises OutOfMemory when a micro-batch of one example does not fit, StageError `LossNotFinite`.
        """
        lengths = [len(row) for row in rows]
        while True:
            try:
                loss, tokens = self._gradients(examples, rows, lengths)
                break
            except torch.OutOfMemoryError as error:
                cause = str(error).splitlines()[0]  # not the error: its frames hold the step's tensors
            except BaseException:
                self.optimizer.zero_grad(set_to_none=True)
                raise
            self._give_way(cause)
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters.values(), MAX_GRAD_NORM))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self.optimizer.zero_grad(set_to_none=True)
            raise StageError(
                "LossNotFinite",
                f"loss {loss}, gradient norm {norm}: lower spec.stages.finetune.learningRate or look for "
                "damaged training texts",
            )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return StepReport(loss=loss, grad_norm=norm, tokens=tokens)

    def _gradients(
        self, examples: Sequence[Example], rows: Sequence[Sequence[int]], lengths: Sequence[int]
    ) -> tuple[float, int]:
        """(mean loss, tokens of distinct texts); gradients are left in the parameters."""
        budget = self.micro_batch * self._tokens_per_example
        total = 0.0
        for part in plan_step(examples, lengths, token_budget=budget):
            total += self._part_gradients(part, rows, weight=1.0 / len(examples))
        used = {row for example in examples for row in (example.query, *example.candidates)}
        return total, sum(lengths[row] for row in used)

    def _part_gradients(self, part: Part, rows: Sequence[Sequence[int]], *, weight: float) -> float:
        """Adds the gradients of weight * (sum of the part's losses); returns that sum.

        The loss needs all vectors at once, memory holds only the kept groups' graphs: the others are encoded
        without a graph first and again once the gradient at their vectors is known.
        """
        graphs: dict[int, torch.Tensor] = {}
        leaves: list[torch.Tensor] = []
        for number, group in enumerate(part.groups):
            self._between()
            with torch.set_grad_enabled(number in part.kept):
                vectors = self._forward(group, rows)
            if number in part.kept:
                graphs[number] = vectors
            leaves.append(vectors.detach().requires_grad_())
        loss = weight * self._loss(part, torch.cat(leaves))
        loss.backward()  # type: ignore[no-untyped-call]
        order = [*graphs, *(number for number in range(len(leaves)) if number not in graphs)]
        for number in order:
            self._between()
            vectors = graphs.pop(number) if number in graphs else self._forward(part.groups[number], rows)
            vectors.backward(leaves[number].grad)  # type: ignore[no-untyped-call]
            del vectors
        return float(loss.detach())

    def _loss(self, part: Part, table: torch.Tensor) -> torch.Tensor:
        """Sum of the part's losses; `table` holds the vectors in the order of the part's groups."""
        place = {row: index for index, row in enumerate(row for group in part.groups for row in group)}
        width = max(len(example.candidates) for example in part.examples)
        queries = [place[example.query] for example in part.examples]
        candidates = [[place[row] for row in example.candidates] for example in part.examples]
        present = [[True] * len(row) + [False] * (width - len(row)) for row in candidates]
        padded = [row + [0] * (width - len(row)) for row in candidates]
        return candidate_loss(
            table[torch.tensor(queries, device=table.device)],
            table[torch.tensor(padded, device=table.device)],
            torch.tensor(present, device=table.device),
            self._temperature,
        ).sum()

    def _forward(self, group: Sequence[int], rows: Sequence[Sequence[int]]) -> torch.Tensor:
        """float32 (len(group), hidden); with bfloat16 the master weights and gradients stay float32."""
        with bfloat16_products(self.encoder.device.type) if self._bfloat16 else nullcontext():
            return self._encode([rows[row] for row in group]).float()

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
        self.micro_batch //= 2


def _optimizer(parameters: dict[str, torch.nn.Parameter], weight_decay: float) -> torch.optim.AdamW:
    """AdamW without decay on norms and biases. Its state is made here: memory runs out now or not at all."""
    plain = [value for name, value in parameters.items() if "norm" in name.lower() or name.endswith("bias")]
    chosen = {id(value) for value in plain}
    decayed = [value for value in parameters.values() if id(value) not in chosen]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}],
        lr=0.0,
        betas=_BETAS,
        eps=_EPSILON,
        fused=True,
    )
    for value in parameters.values():
        optimizer.state[value] = {
            "step": torch.zeros((), dtype=torch.float32, device=value.device),
            "exp_avg": torch.zeros_like(value),
            "exp_avg_sq": torch.zeros_like(value),
        }
    return optimizer
