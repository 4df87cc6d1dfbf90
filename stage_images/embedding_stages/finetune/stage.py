"""The finetune stage: trainingSet and baseModel in, checkpoint out.

Counts: examples, steps, globalBatchSize, microBatchSize (as used), tokensPerPack (of the packed
trainer). Details: loss (contrastive: the recipe's; ranking: towards the teacher's scores), firstLoss and lastLoss
(means over the first and last tenth of the steps), precision (bf16 or fp32), workers, warnings, and side where
only queries' was trained (see query_map).
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from embedding_stages.contract import PEER_LOST, Artefact, StageResult
from embedding_stages.contract.settings import QUERY_SIDE, Finetune
from embedding_stages.encoder.hardware import has_fast_bfloat16
from embedding_stages.encoder.load import AnyEncoder, load_encoder
from embedding_stages.encoder.model import PaddedEncoder
from embedding_stages.errors import OutOfMemory, Transient, settings_of
from embedding_stages.finetune import resume
from embedding_stages.finetune.batches import Example, examples_of_step
from embedding_stages.finetune.dataset import TrainingSet, asked_texts, tokenized
from embedding_stages.finetune.origin import write_origin
from embedding_stages.finetune.query_map import tune_queries
from embedding_stages.finetune.scale import Scale, scale_of
from embedding_stages.finetune.schedule import learning_rate
from embedding_stages.finetune.trainer import StepReport, Trainer
from embedding_stages.finetune.world import ENDED, World, lost_peers
from embedding_stages.runner import StageContext

if TYPE_CHECKING:
    from embedding_stages.finetune.packed_trainer import PackedTrainer  # needs Triton, which CPU images lack

AnyTrainer: TypeAlias = "Trainer | PackedTrainer"
_LOG_EVERY = 10  # steps
_REFUSED = "refused"  # rank 0's word about an input
_SAVE_SECONDS = 60.0  # a resume point that costs more to write than the steps since the last one saves nothing


def work(context: StageContext, world: World | None = None) -> StageResult:
    """Train and save the checkpoint, together with the other ranks of `world`; alone when it is absent."""
    world = world or World.alone()
    settings = settings_of(Finetune, context.settings)
    world.join()
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")  # TF32 where autocast leaves float32
    base = checked_input(Artefact.BASE_MODEL, context, world)
    if settings.side == QUERY_SIDE:
        return tune_queries(context, world, settings, base, checked_input(Artefact.TRAINING_SET, context, world))
    bfloat16 = trains_in_bfloat16(world.device.type)
    encoder = _encoder(base, context, world, bfloat16=bfloat16)
    encoder.description = encoder.description.offering(settings.matryoshka)
    context.log("model loaded", device=str(world.device), packed=not isinstance(encoder, PaddedEncoder))
    texts = asked_texts(checked_input(Artefact.TRAINING_SET, context, world), settings)
    data = tokenized(texts, encoder.tokenizer)
    scale = scale_of(settings, examples=len(data.examples), ranking=data.scored, log=context.log)
    checkpoint = context.folder(Artefact.CHECKPOINT)  # made now: later rank 0 may have published
    with lost_peers():
        trainer = _trainer(encoder, settings, context, world, data, bfloat16=bfloat16)
        losses = train(context, trainer, data, settings, scale)
        trainer.save(checkpoint, base)
    if world.leads:
        write_origin(context, checkpoint, examples=len(data.examples), how="all weights")
    context.log("checkpoint written")
    window = max(1, len(losses) // 10)
    return context.result(
        counts={
            "examples": len(data.examples),
            "steps": scale.total_steps,
            "globalBatchSize": scale.global_batch,
            "microBatchSize": trainer.micro_batch,
            **({} if isinstance(trainer, Trainer) else {"tokensPerPack": trainer.token_budget}),
        },
        details={
            "loss": "ranking" if texts.scored else "contrastive",
            "firstLoss": sum(losses[:window]) / window,
            "lastLoss": sum(losses[-window:]) / window,
            "precision": "bf16" if bfloat16 else "fp32",
            "workers": world.size,
            "warnings": list(scale.warnings),
        },
    )


def checked_input(name: Artefact, context: StageContext, world: World) -> Path:
    """The folder of an input that rank 0 has checked; the other ranks wait for it instead of reading all bytes too.

    Where rank 0 finds damage they read nothing, since what they find would be told in its place, and end after it.
    Raises StageError `ArtefactMissing` or `ArtefactDamaged`, Transient `PeerLost`.
    """
    place = f"checked-{name}"
    if not world.leads:
        if world.meet(place) == _REFUSED:
            world.meet(ENDED)
            raise Transient(PEER_LOST, f"rank 0 refuses the input {name}: its result says why")
        return context.input(name, checked=True)
    try:
        folder = context.input(name)
    except Exception:
        with suppress(Transient):  # the damage is the news
            world.meet(place, _REFUSED)
        raise
    world.meet(place)
    return folder


def train(
    context: StageContext, trainer: AnyTrainer, data: TrainingSet, settings: Finetune, scale: Scale
) -> list[float]:
    """Run the steps that are left and return the loss of every step. All ranks call it and get the same.

    Saves a resume point every `checkpoint_every` steps, but not before a minute has passed since the last one, and
    when the pod is asked to stop (then Transient is raised).
    """
    identity = {
        "seed": settings.seed,
        "examples": len(data.examples),
        "globalBatch": scale.global_batch,
        "steps": scale.total_steps,
        **({"ranking": 1} if data.scored else {}),  # resume points of the recipe's runs stay as they are
    }
    scratch = context.scratch("resume")
    background = resume.Background(scratch, context.log)
    earlier = resume.load(scratch, trainer, identity)
    losses = list(earlier.losses) if earlier else []
    if earlier:
        context.log("resumed", step=earlier.step, microBatchSize=trainer.micro_batch)

    def progressed() -> resume.Progressed:
        return resume.Progressed(len(losses), identity, trainer.micro_batch, list(losses))

    saved = context.clock()
    try:
        for step in range(len(losses), scale.total_steps):
            started = time.monotonic()
            report, rate = _step(step, trainer, data, settings, scale)
            losses.append(report.loss)
            _report(context, step, scale, report, rate, time.monotonic() - started)
            on_time = (step + 1) % scale.checkpoint_every == 0
            if on_time and _due(trainer.world, context.clock() - saved, busy=background.busy):
                background.save(trainer, progressed())
                saved = context.clock()
            if trainer.world.size == 1:  # several ranks stop together, where the next step looks first
                context.stop_if_asked()
    except Transient as error:  # asked to stop: the step that was under way has changed nothing yet
        if error.reason != PEER_LOST:
            background.finish()
            try:
                resume.save(scratch, trainer, progressed())
            except OSError as full:  # the next attempt goes on from an older one
                context.log("resume point not written", error=str(full))
        raise
    finally:
        background.finish()
    return losses


def _due(world: World, seconds: float, *, busy: bool) -> bool:
    """Whether it is time for a resume point: rank 0's clock counts, and nobody waits for one that is being written."""
    return world.any(world.leads and seconds >= _SAVE_SECONDS and not busy)


def trains_in_bfloat16(device: str) -> bool:
    """The recipe trains in bf16; a CPU without instructions for it would be slower than in fp32."""
    products = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return device == "cuda" or (products and has_fast_bfloat16())


def _encoder(base: Path, context: StageContext, world: World, *, bfloat16: bool) -> AnyEncoder:
    """Packed where that works; shards are the library's business, so they keep its modules."""
    device = str(world.device)
    if world.sharded:
        return PaddedEncoder.load(base, device=device, dtype=torch.float32)
    dtype = torch.bfloat16 if bfloat16 else torch.float32
    return load_encoder(base, device=device, dtype=dtype, padded_dtype=torch.float32, log=context.log)


def _trainer(
    encoder: AnyEncoder, settings: Finetune, context: StageContext, world: World, data: TrainingSet, *, bfloat16: bool
) -> AnyTrainer:
    """The trainer for this encoder, its packs measured. Raises OutOfMemory when the state alone does not fit."""
    common: dict[str, Any] = {
        "temperature": settings.temperature,
        "weight_decay": settings.weightDecay,
        "texts_per_example": 2 + settings.negativesPerQuery,
        "sizes": encoder.description.dimensions[1:] if settings.matryoshka else (),
        "between": context.stop_if_asked,
        "world": world,
    }
    try:
        if isinstance(encoder, PaddedEncoder):
            return Trainer(encoder, micro_batch=settings.microBatchSize, bfloat16=bfloat16, **common)
        from embedding_stages.finetune.packed_trainer import PackedTrainer

        packed = PackedTrainer(encoder, **common)
    except torch.OutOfMemoryError as error:
        raise OutOfMemory(
            "GPUOutOfMemory", f"weights and optimizer do not fit the accelerator: use a larger one ({error})"
        ) from error
    packed.find_budget(data.examples, data.packed)
    context.log("packs measured", tokensPerPack=packed.token_budget)
    return packed


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
