"""The finetune stage: trainingSet and baseModel in, checkpoint out.

Counts: examples, steps, globalBatchSize, microBatchSize (as used). Details: firstLoss and lastLoss (means over
the first and last tenth of the steps), precision (bf16 or fp32), workers, warnings.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch

from embedding_stages.contract import Artefact, StageResult
from embedding_stages.encoder.hardware import has_fast_bfloat16
from embedding_stages.encoder.model import Encoder
from embedding_stages.errors import BadInput, OutOfMemory, Transient
from embedding_stages.finetune import resume
from embedding_stages.finetune.batches import examples_of_step
from embedding_stages.finetune.dataset import TrainingSet, load_training_set
from embedding_stages.finetune.scale import Scale, auto_scale
from embedding_stages.finetune.schedule import learning_rate
from embedding_stages.finetune.trainer import StepReport, Trainer
from embedding_stages.finetune.world import PEER_LOST, World, lost_peers
from embedding_stages.runner import StageContext

_LOG_EVERY = 10  # steps
_SAVE_SECONDS = 60.0  # a resume point that costs more to write than the steps since the last one saves nothing


@dataclass(frozen=True, slots=True)
class Settings:
    """NVIDIA embed recipe, profile llama. Names are those of the manifest, spec.stages.finetune."""

    epochs: int = 3
    globalBatchSize: int = 128  # noqa: N815 - examples an optimizer step
    microBatchSize: int = 4  # noqa: N815 - examples of full length a forward pass
    learningRate: float = 1e-5  # noqa: N815
    weightDecay: float = 0.01  # noqa: N815
    warmupSteps: int = 5  # noqa: N815
    temperature: float = 0.02
    negativesPerQuery: int = 4  # noqa: N815
    checkpointEverySteps: int = 100  # noqa: N815
    seed: int = 42
    precision: str = "auto"  # of matrix products: bf16 where the hardware is fast at it, else fp32

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Settings:
        """Raises BadInput `SettingInvalid` that names the field."""
        known: dict[str, Any] = {}
        for field in fields(cls):
            value = raw.get(field.name, field.default)
            if field.name == "precision":
                known[field.name] = _precision(value)
                continue
            kind: type[int | float] = int if isinstance(field.default, int) else float
            zero_is_fine = field.name in ("warmupSteps", "weightDecay", "seed")
            wrong_type = isinstance(value, bool) or not isinstance(value, int | float)
            if wrong_type or kind(value) != value or value < 0 or (value == 0 and not zero_is_fine):
                raise BadInput(
                    "SettingInvalid",
                    f"{field.name} is {value!r}, expected {'a whole number' if kind is int else 'a number'} > 0",
                    field=f"spec.stages.finetune.{field.name}",
                )
            known[field.name] = kind(value)
        return cls(**known)


def _precision(value: Any) -> str:
    if value not in ("auto", "bf16", "fp32"):
        raise BadInput(
            "SettingInvalid",
            f"precision is {value!r}, expected auto, bf16 or fp32",
            field="spec.stages.finetune.precision",
        )
    return str(value)


def work(context: StageContext, world: World | None = None) -> StageResult:
    """Train and save the checkpoint, together with the other ranks of `world`; alone when it is absent."""
    world = world or World.alone()
    settings = Settings.of(context.settings)
    world.join()
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")  # TF32 where autocast leaves float32
    base = context.input(Artefact.BASE_MODEL)
    encoder = Encoder.load(base, device=str(world.device), dtype=torch.float32)  # master weights
    data = load_training_set(
        context.input(Artefact.TRAINING_SET),
        encoder.tokenizer,
        negatives_per_query=settings.negativesPerQuery,
    )
    scale = auto_scale(
        examples=len(data.examples),
        epochs=settings.epochs,
        global_batch=settings.globalBatchSize,
        checkpoint_every=settings.checkpointEverySteps,
    )
    for warning in scale.warnings:
        context.log("warning", warning=warning)
    bfloat16 = _bfloat16(settings, encoder.device.type)
    checkpoint = context.folder(Artefact.CHECKPOINT)  # made now: later rank 0 may have published
    trainer = _trainer(encoder, settings, context, world, bfloat16=bfloat16)
    with lost_peers():
        losses = train(context, trainer, data, settings, scale)
        trainer.save(checkpoint, base)
    window = max(1, len(losses) // 10)
    return context.result(
        counts={
            "examples": len(data.examples),
            "steps": scale.total_steps,
            "globalBatchSize": scale.global_batch,
            "microBatchSize": trainer.micro_batch,
        },
        details={
            "firstLoss": sum(losses[:window]) / window,
            "lastLoss": sum(losses[-window:]) / window,
            "precision": "bf16" if bfloat16 else "fp32",
            "workers": world.size,
            "warnings": list(scale.warnings),
        },
    )


def train(context: StageContext, trainer: Trainer, data: TrainingSet, settings: Settings, scale: Scale) -> list[float]:
    """Run the steps that are left and return the loss of every step. All ranks call it and get the same.

    Saves a resume point every `checkpoint_every` steps, but not before a minute has passed since the last one, and
    when the pod is asked to stop (then Transient is raised).
    """
    identity = {
        "seed": settings.seed,
        "examples": len(data.examples),
        "globalBatch": scale.global_batch,
        "steps": scale.total_steps,
    }
    scratch = context.scratch("resume")
    earlier = resume.load(scratch, trainer, identity)
    losses = list(earlier.losses) if earlier else []
    if earlier:
        context.log("resumed", step=earlier.step, microBatchSize=trainer.micro_batch)

    def save() -> None:
        resume.save(scratch, trainer, resume.Progressed(len(losses), identity, trainer.micro_batch, list(losses)))

    saved = context.clock()
    try:
        for step in range(len(losses), scale.total_steps):
            started = time.monotonic()
            report, rate = _step(step, trainer, data, settings, scale)
            losses.append(report.loss)
            _report(context, step, scale, report, rate, time.monotonic() - started)
            if (step + 1) % scale.checkpoint_every == 0 and _due(trainer.world, context.clock() - saved):
                save()
                saved = context.clock()
            if trainer.world.size == 1:  # several ranks stop together, where the next step looks first
                context.stop_if_asked()
    except Transient as error:  # asked to stop: the step that was under way has changed nothing yet
        if error.reason != PEER_LOST:
            save()
        raise
    return losses


def _due(world: World, seconds: float) -> bool:
    """Whether it is time for a resume point: rank 0's clock counts."""
    return world.any(world.leads and seconds >= _SAVE_SECONDS)


def _bfloat16(settings: Settings, device: str) -> bool:
    """The recipe trains in bf16; a CPU without instructions for it would be slower than in fp32."""
    if settings.precision == "auto":
        products = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        return device == "cuda" or (products and has_fast_bfloat16())
    return settings.precision == "bf16"


def _trainer(encoder: Encoder, settings: Settings, context: StageContext, world: World, *, bfloat16: bool) -> Trainer:
    try:
        return Trainer(
            encoder,
            temperature=settings.temperature,
            weight_decay=settings.weightDecay,
            micro_batch=settings.microBatchSize,
            texts_per_example=2 + settings.negativesPerQuery,
            bfloat16=bfloat16,
            between=context.stop_if_asked,
            world=world,
        )
    except torch.OutOfMemoryError as error:
        raise OutOfMemory(
            "GPUOutOfMemory", f"weights and optimizer do not fit the accelerator: use a larger one ({error})"
        ) from error


def _step(step: int, trainer: Trainer, data: TrainingSet, settings: Settings, scale: Scale) -> tuple[StepReport, float]:
    numbers = examples_of_step(step, examples=len(data.examples), global_batch=scale.global_batch, seed=settings.seed)
    rate = learning_rate(
        step, peak=settings.learningRate, warmup_steps=settings.warmupSteps, total_steps=scale.total_steps
    )
    return trainer.step([data.examples[number] for number in numbers], data.rows, rate), rate


def _report(context: StageContext, step: int, scale: Scale, report: StepReport, rate: float, seconds: float) -> None:
    context.progress(step + 1, scale.total_steps)
    if step % _LOG_EVERY == 0 or step + 1 == scale.total_steps:
        context.log(
            "step",
            step=step + 1,
            loss=round(report.loss, 6),
            lr=rate,
            gradNorm=round(report.grad_norm, 4),
            tokensPerSecond=round(report.tokens / max(seconds, 1e-9)),
        )
