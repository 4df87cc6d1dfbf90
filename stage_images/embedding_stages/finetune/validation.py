"""Validation while training: NDCG@10 of training questions that are held out, and the best weights so far.

A held-out question searches the passages of the training set; where embedding all of them would take more than a sixth
of the training between two validations, the candidates of all held-out questions together. It is relevant what is
positive in one of the question's lines. The figure chooses among the steps of one run; it is not the evaluation's,
whose documents training has not seen.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, TypeAlias

import torch

from embedding_stages.contract.settings import Finetune, Validation
from embedding_stages.errors import BadInput, Transient
from embedding_stages.finetune.batches import Example
from embedding_stages.finetune.dataset import TrainingSet
from embedding_stages.finetune.scale import Scale
from embedding_stages.finetune.trainer import Trainer, stopped_elsewhere

if TYPE_CHECKING:
    from embedding_stages.finetune.packed_trainer import PackedTrainer  # needs Triton, which CPU images lack

AnyTrainer: TypeAlias = "Trainer | PackedTrainer"
Point = tuple[int, float, float]  # step, mean loss of the steps since the point before, NDCG@10

FEW: Final = 50  # questions; below, a choice is chance (the recipe warns of evaluations below it)
_CUT_OFF: Final = 10
_DEAR: Final = 2  # passages may be at most the texts between two validations, over this: a sixth of the time
_PRODUCTS: Final = 2**34  # between two looks at whether to stop: about a second of a few CPU cores


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What a validation asks, as rows of the training set."""

    queries: tuple[int, ...]
    relevant: tuple[frozenset[int], ...]  # of each query
    passages: tuple[int, ...]  # that are searched
    everything: bool  # whether these are all passages of the training set
    every: int  # steps
    patience: int | None  # validations without a better one that end the training

    def due(self, step: int, total: int) -> bool:
        """Whether the model is measured after so many steps; the last one always is."""
        return step == total or (step > 0 and step % self.every == 0)


@dataclass(slots=True)
class Course:
    """How a run has gone so far."""

    losses: list[float] = field(default_factory=list)  # one a step
    points: list[Point] = field(default_factory=list)  # one a validation
    best: Mapping[str, torch.Tensor] = field(default_factory=dict)  # weights of the best point; of rank 0

    @property
    def best_step(self) -> int:
        """The first step of the highest NDCG@10; 0 before the first validation."""
        return max(self.points, key=lambda point: (point[2], -point[0]))[0] if self.points else 0

    def patient(self, held_out: HeldOut | None) -> bool:
        """Whether training goes on."""
        if held_out is None or held_out.patience is None:
            return True
        return sum(step > self.best_step for step, _, _ in self.points) < held_out.patience

    def validated(
        self, held_out: HeldOut, trainer: AnyTrainer, data: TrainingSet, between: Callable[[], None] = lambda: None
    ) -> float:
        """Measure the model as it is, and keep its weights where it is the best so far; all ranks call it.

        `between` is called every second or so, and may raise Transient to end it: on all ranks, with nothing noted.
        Rank 0's figure counts: processors of another kind may round, and so rank, otherwise, and all have to go on,
        or to end, together.
        """
        world = trainer.world
        vectors = vectors_of(trainer, [*held_out.queries, *held_out.passages], data)
        found, stop = 0.0, None
        try:
            found = ndcg(held_out, vectors, between) if world.leads else 0.0
        except Transient as error:
            stop = error
        found, stopped = world.sum_numbers((found, float(stop is not None)))
        if stopped:
            raise stop or stopped_elsewhere()
        step = len(self.losses)
        since = self.losses[self.points[-1][0] if self.points else 0 :]
        self.points.append((step, sum(since) / len(since), found))
        if self.best_step == step:
            self.best = trainer.weights()
        return found


def thinned(course: Course, most: int = 16) -> list[Point]:
    """Points of the curve, evenly over the run: the first, the best and the last among them."""
    count = len(course.points)
    if count <= most:
        return list(course.points)
    chosen = {round(number * (count - 1) / (most - 2)) for number in range(most - 1)}
    return [point for number, point in enumerate(course.points) if number in chosen or point[0] == course.best_step]


def curve_of(course: Course, most: int = 8) -> list[tuple[int, *tuple[float, ...]]]:
    """The learning curve, short enough for a result: points of the validations, else of eighths of the run."""
    if course.points:
        return [*thinned(course)]
    ends = sorted({-(-len(course.losses) * part // most) for part in range(1, most + 1)})
    spans = zip([0, *ends], ends, strict=False)
    return [(end, sum(course.losses[begin:end]) / (end - begin)) for begin, end in spans]


def hold_out(
    data: TrainingSet, queries: Sequence[str], settings: Validation, *, seed: int
) -> tuple[TrainingSet, list[Example]]:
    """(what is left to train with, what is held out): whole questions, with all of their lines; drawn with the seed.

    `queries` are the texts of the first rows. Raises BadInput `TrainingSetTooSmall`.
    """
    lines: dict[str, list[Example]] = {}
    for example in data.examples:
        lines.setdefault(queries[example.query], []).append(example)
    if len(lines) < 2:
        raise BadInput(
            "TrainingSetTooSmall",
            "of one question none can be held out; add pairs or documents, or leave the field out",
            field=Validation.FIELD,
        )
    names = sorted(lines)
    random.Random(f"{seed}/validation").shuffle(names)  # noqa: S311 - not a secret
    count = max(1, min(settings.questions, round(settings.share * len(names)), len(names) - 1))
    chosen = set(names[:count])
    kept = [example for example in data.examples if queries[example.query] not in chosen]
    return replace(data, examples=kept), [example for name in names[:count] for example in lines[name]]


def plan(
    data: TrainingSet, held: Sequence[Example], queries: Sequence[str], settings: Finetune, scale: Scale
) -> HeldOut:
    """What is asked, of which passages, how often. `data` is what is left to train with."""
    assert settings.validation is not None  # noqa: S101 - nothing would be held out
    relevant: dict[str, set[int]] = {}
    first: dict[str, int] = {}
    for example in held:
        text = queries[example.query]
        relevant.setdefault(text, set()).add(example.candidates[0])
        first.setdefault(text, example.query)
    every = settings.validation.everySteps or scale.checkpoint_every
    texts = every * scale.global_batch * (2 + settings.negativesPerQuery)
    everything = range(len(queries), len(data.rows))
    affordable = len(everything) * _DEAR <= texts
    own = sorted({row for example in held for row in example.candidates})
    return HeldOut(
        queries=tuple(first.values()),
        relevant=tuple(frozenset(relevant[text]) for text in first),
        passages=tuple(everything if affordable else own),
        everything=affordable,
        every=every,
        patience=settings.validation.patience,
    )


def vectors_of(trainer: AnyTrainer, numbers: Sequence[int], data: TrainingSet) -> torch.Tensor:
    """float32 (len(numbers), vector size) on the CPU: these rows by the model as it is; each rank encodes its share.

    All ranks call it, and where one is asked to stop, all do: its peers would wait for its share. Raises
    torch.OutOfMemoryError where a single text does not fit, what the trainer's `between` raises, Transient `PeerLost`.
    """
    world = trainer.world
    mine = numbers[world.rank :: world.size]
    found = torch.zeros(len(numbers), trainer.encoder.description.vector_size, device=trainer.encoder.device)
    stop: Transient | None = None
    try:
        with torch.no_grad():
            texts = data.rows if isinstance(trainer, Trainer) else data.packed
            found[world.rank :: world.size] = trainer.embed(mine, texts)  # type: ignore[arg-type]  # of its own kind
    except Transient as error:
        stop = error
    if world.any(stop is not None):
        raise stop or stopped_elsewhere()
    world.sum_([found])
    return found.cpu()


def ndcg(held_out: HeldOut, vectors: torch.Tensor, between: Callable[[], None] = lambda: None) -> float:
    """The mean NDCG@10; `vectors` are those of the queries, then of the passages. Raises what `between` raises."""
    asked, searched = vectors[: len(held_out.queries)], vectors[len(held_out.queries) :]
    place = {row: number for number, row in enumerate(held_out.passages)}
    relevant = [{place[row] for row in rows} for rows in held_out.relevant]
    gains = [1 / math.log2(2 + rank) for rank in range(_CUT_OFF)]
    depth = min(_CUT_OFF, len(searched))
    total, done = 0.0, 0
    at_once = max(1, min(1024, _PRODUCTS // max(1, searched.numel())))
    for some in torch.split(asked, at_once):
        between()
        for found in (some @ searched.T).topk(depth, dim=1).indices.tolist():
            right = relevant[done]
            ideal = sum(gains[: len(right)])
            total += sum(gains[rank] for rank, number in enumerate(found) if number in right) / ideal
            done += 1
    return total / done
