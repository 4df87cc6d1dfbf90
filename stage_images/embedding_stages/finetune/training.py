"""The steps of a run, from the first or from a resume point to the last, with validations and resume points between."""

from __future__ import annotations

import time
from typing import Final

import torch

from embedding_stages.contract import PEER_LOST
from embedding_stages.contract.settings import Finetune
from embedding_stages.errors import OutOfMemory, Transient
from embedding_stages.finetune import resume
from embedding_stages.finetune.batches import Example, examples_of_step
from embedding_stages.finetune.dataset import TrainingSet
from embedding_stages.finetune.scale import Scale
from embedding_stages.finetune.schedule import learning_rate
from embedding_stages.finetune.trainer import StepReport, Trainer
from embedding_stages.finetune.validation import AnyTrainer, Course, HeldOut
from embedding_stages.finetune.world import World
from embedding_stages.runner import StageContext

_LOG_EVERY: Final = 10  # steps
_SAVE_SECONDS: Final = 60.0  # a resume point that costs more to write than the steps since the last one saves nothing


def train(
    context: StageContext,
    trainer: AnyTrainer,
    data: TrainingSet,
    settings: Finetune,
    scale: Scale,
    held_out: HeldOut | None = None,
) -> Course:
    """Run the steps that are left. All ranks call it and get the same, but for the best weights, which rank 0 has.

    Saves a resume point every `checkpoint_every` steps, but not before a minute has passed since the last one, and
    when the pod is asked to stop (then Transient is raised).
    """
    identity = _identity(data, settings, scale, held_out)
    scratch = context.scratch("resume")
    background = resume.Background(scratch, context.log)
    course = _begun(context, trainer, resume.load(scratch, trainer, identity))
    saved = context.clock()
    try:
        _validate(context, trainer, data, scale, held_out, course)  # that the attempt before had no time for
        while len(course.losses) < scale.total_steps and course.patient(held_out):
            step, started = len(course.losses), time.monotonic()
            report, rate = _step(step, trainer, data, settings, scale)
            course.losses.append(report.loss)
            _report(context, step, scale, report, rate, time.monotonic() - started)
            _validate(context, trainer, data, scale, held_out, course)
            on_time = (step + 1) % scale.checkpoint_every == 0
            if on_time and _due(trainer.world, context.clock() - saved, busy=background.busy):
                background.save(trainer, _progressed(course, identity, trainer))
                saved = context.clock()
            if trainer.world.size == 1:  # several ranks stop together, where the next step looks first
                context.stop_if_asked()
    except Transient as error:  # asked to stop: the step that was under way has changed nothing yet
        if error.reason != PEER_LOST:
            background.finish()
            try:
                resume.save(scratch, trainer, _progressed(course, identity, trainer))
            except OSError as full:  # the next attempt goes on from an older one
                context.log("resume point not written", error=str(full))
        raise
    finally:
        background.finish()
    return course


def _identity(data: TrainingSet, settings: Finetune, scale: Scale, held_out: HeldOut | None) -> dict[str, int]:
    """What a resume point has to be of; those of runs without what joined later stay as they are."""
    validation = {"heldOut": len(held_out.queries), "validationSteps": held_out.every} if held_out else {}
    return {
        "seed": settings.seed,
        "examples": len(data.examples),
        "globalBatch": scale.global_batch,
        "steps": scale.total_steps,
        **({"ranking": 1} if data.scored else {}),
        **({"inBatch": 1} if settings.inBatchNegatives else {}),
        **validation,
    }


def _begun(context: StageContext, trainer: AnyTrainer, earlier: resume.Progressed | None) -> Course:
    if earlier is None:
        return Course()
    context.log("resumed", step=earlier.step, microBatchSize=trainer.micro_batch)
    best = earlier.best if trainer.world.leads else {}
    return Course(
        losses=list(earlier.losses),
        points=[(int(step), loss, found) for step, loss, found in earlier.points],
        best={name: tensor.clone() for name, tensor in best.items()},  # not the file's pages: it will be removed
    )


def _progressed(course: Course, identity: dict[str, int], trainer: AnyTrainer) -> resume.Progressed:
    return resume.Progressed(
        len(course.losses), identity, trainer.micro_batch, list(course.losses), list(course.points), course.best
    )


def _validate(
    context: StageContext,
    trainer: AnyTrainer,
    data: TrainingSet,
    scale: Scale,
    held_out: HeldOut | None,
    course: Course,
) -> None:
    """Measure the model where that is due and was not done."""
    step = len(course.losses)
    if (
        held_out is None
        or not held_out.due(step, scale.total_steps)
        or (course.points and course.points[-1][0] == step)
    ):
        return
    started = time.monotonic()
    try:
        found = course.validated(held_out, trainer, data, context.stop_if_asked)
    except torch.OutOfMemoryError as error:
        raise OutOfMemory(
            "GPUOutOfMemory",
            "a validation does not fit the accelerator's memory beside the training: lower the base model's maxTokens, "
            f"leave spec.stages.finetune.validation out or use a larger accelerator ({str(error).splitlines()[0]})",
        ) from error
    context.log(
        "validated",
        step=step,
        loss=round(course.points[-1][1], 6),
        ndcgAt10=round(found, 6),
        best=course.best_step,
        seconds=round(time.monotonic() - started, 1),
    )
    if not course.patient(held_out):
        context.log("training ends early", step=step, best=course.best_step)


def _due(world: World, seconds: float, *, busy: bool) -> bool:
    """Whether it is time for a resume point: rank 0's clock counts, and nobody waits for one that is being written."""
    return world.any(world.leads and seconds >= _SAVE_SECONDS and not busy)


def _examples(step: int, data: TrainingSet, settings: Finetune, scale: Scale) -> list[Example]:
    if step >= scale.total_steps:
        return []
    numbers = examples_of_step(step, examples=len(data.examples), global_batch=scale.global_batch, seed=settings.seed)
    return [data.examples[number] for number in numbers]


def _step(
    step: int, trainer: AnyTrainer, data: TrainingSet, settings: Finetune, scale: Scale
) -> tuple[StepReport, float]:
    examples = _examples(step, data, settings, scale)
    rate = learning_rate(
        step, peak=settings.learningRate, warmup_steps=settings.warmupSteps, total_steps=scale.total_steps
    )
    if isinstance(trainer, Trainer):
        return trainer.step(examples, data.rows, rate), rate
    following = _examples(step + 1, data, settings, scale)
    return trainer.step(examples, data.packed, rate, following=following), rate


def _report(context: StageContext, step: int, scale: Scale, report: StepReport, rate: float, seconds: float) -> None:
    tokens_per_second = report.tokens / max(seconds, 1e-9)
    context.progress(step + 1, scale.total_steps, loss=report.loss, tokens_per_second=tokens_per_second)
    if step % _LOG_EVERY == 0 or step + 1 == scale.total_steps:
        context.log(
            "step",
            step=step + 1,
            loss=round(report.loss, 6),
            lr=rate,
            gradNorm=round(report.grad_norm, 4),
            tokensPerSecond=round(tokens_per_second),
        )
