"""The finetune stage: trainingSet and baseModel in, checkpoint out.

Counts: examples, steps, globalBatchSize, microBatchSize (as used), tokensPerPack (of the packed
trainer), heldOutQuestions (of validations). Details: loss (contrastive: the recipe's; ranking: towards the teacher's
scores), firstLoss and lastLoss (means over the first and last tenth of the steps), precision (bf16 or fp32), workers,
warnings, trained (numbers in adapters), side where only queries' was trained (see query_map), and validation where
there is one: bestStep, whose weights are published; searched (passages: all of the training set; candidates: those of
the held-out questions). curve: at most 16 of [step, mean loss since the point before it in the log], with NDCG@10
behind these where there is a validation.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from embedding_stages.contract import PEER_LOST, Artefact, StageResult
from embedding_stages.contract.settings import QUERY_SIDE, Finetune
from embedding_stages.encoder.hardware import has_fast_bfloat16
from embedding_stages.encoder.load import AnyEncoder, load_encoder
from embedding_stages.encoder.model import PaddedEncoder
from embedding_stages.errors import OutOfMemory, Transient, settings_of
from embedding_stages.finetune.batches import Example
from embedding_stages.finetune.dataset import TrainingSet, asked_texts, distinct_queries, tokenized
from embedding_stages.finetune.in_batch import Pool
from embedding_stages.finetune.lora import add_adapters
from embedding_stages.finetune.origin import write_origin
from embedding_stages.finetune.query_map import tune_queries
from embedding_stages.finetune.scale import scale_of
from embedding_stages.finetune.trainer import Trainer
from embedding_stages.finetune.training import train
from embedding_stages.finetune.validation import FEW, AnyTrainer, Course, HeldOut, curve_of, hold_out, plan
from embedding_stages.finetune.world import ENDED, World, lost_peers
from embedding_stages.runner import StageContext

_REFUSED = "refused"  # rank 0's word about an input


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
    encoder = _encoder(base, context, world, settings, bfloat16=bfloat16)
    encoder.description = encoder.description.offering(settings.matryoshka)
    context.log("model loaded", device=str(world.device), packed=not isinstance(encoder, PaddedEncoder))
    texts = asked_texts(checked_input(Artefact.TRAINING_SET, context, world), settings)
    data, held = tokenized(texts, encoder.tokenizer), list[Example]()
    if settings.validation:
        data, held = hold_out(data, texts.queries, settings.validation, seed=settings.seed)
    scale = scale_of(settings, examples=len(data.examples), ranking=data.scored, log=context.log)
    held_out = plan(data, held, texts.queries, settings, scale) if held else None
    checkpoint = context.folder(Artefact.CHECKPOINT)  # made now: later rank 0 may have published
    with lost_peers():
        trainer = _trainer(encoder, settings, context, world, data, bfloat16=bfloat16)
        course = train(context, trainer, data, settings, scale, held_out)
        trainer.save(checkpoint, base, course.best or None)
    if world.leads:
        how = "adapters of low rank, merged into the weights" if settings.lora else "all weights"
        write_origin(context, checkpoint, questions=distinct_queries(texts.queries, data.examples), how=how)
    context.log("checkpoint written")
    losses = course.losses
    window = max(1, len(losses) // 10)
    return context.result(
        counts={
            "examples": len(data.examples),
            "steps": len(losses),
            "globalBatchSize": scale.global_batch,
            "microBatchSize": trainer.micro_batch,
            **({"heldOutQuestions": len(held_out.queries)} if held_out else {}),
            **({} if isinstance(trainer, Trainer) else {"tokensPerPack": trainer.token_budget}),
        },
        details={
            "loss": "ranking" if texts.scored else "contrastive",
            "firstLoss": sum(losses[:window]) / window,
            "lastLoss": sum(losses[-window:]) / window,
            "precision": "bf16" if bfloat16 else "fp32",
            "workers": world.size,
            **({"trained": trainer.trained} if settings.lora else {}),
            "warnings": [*scale.warnings, *_few(held_out)],
            "curve": [[step, *(round(value, 4) for value in values)] for step, *values in curve_of(course)],
            **({"validation": _told(course, held_out)} if held_out else {}),
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


def _few(held_out: HeldOut | None) -> list[str]:
    asked = len(held_out.queries) if held_out else FEW
    if asked >= FEW:
        return []
    return [f"validation asks only {asked} questions, fewer than {FEW}: which weights are best is chance"]


def _told(course: Course, held_out: HeldOut) -> dict[str, Any]:
    """What validations have found, short enough for a result."""
    return {
        "bestStep": course.best_step,
        "searched": "passages" if held_out.everything else "candidates",
    }


def trains_in_bfloat16(device: str) -> bool:
    """The recipe trains in bf16; a CPU without instructions for it would be slower than in fp32."""
    products = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return device == "cuda" or (products and has_fast_bfloat16())


def _encoder(base: Path, context: StageContext, world: World, settings: Finetune, *, bfloat16: bool) -> AnyEncoder:
    """Packed where that works; shards are the library's business, so they keep its modules.

    Beside adapters nothing is worth a shard: the weights have neither gradients nor moments, and in a step of `Shards`
    they are whole on every rank as well, in the number format that packs have them in.
    """
    device = str(world.device)
    if world.sharded and not settings.lora:
        return PaddedEncoder.load(base, device=device, dtype=torch.float32)
    dtype = torch.bfloat16 if bfloat16 else torch.float32
    # Weights that stay as they are need no more digits than the products have; shards are cut from float32.
    halved = settings.lora and bfloat16 and world.device.type == "cuda" and not world.sharded
    padded_dtype = torch.bfloat16 if halved else torch.float32
    return load_encoder(base, device=device, dtype=dtype, padded_dtype=padded_dtype, log=context.log)


def _trainer(
    encoder: AnyEncoder, settings: Finetune, context: StageContext, world: World, data: TrainingSet, *, bfloat16: bool
) -> AnyTrainer:
    """The trainer for this encoder, its packs measured. Raises OutOfMemory when the state alone does not fit."""
    common: dict[str, Any] = {
        "temperature": settings.temperature,
        "weight_decay": settings.weightDecay,
        "texts_per_example": 2 + settings.negativesPerQuery,
        "sizes": encoder.description.dimensions[1:] if settings.matryoshka else (),
        "pool": Pool(data) if settings.inBatchNegatives else None,
        "between": context.stop_if_asked,
        "world": world,
    }
    adapted: dict[str, Any] = {"seed": settings.seed, "base_name": context.request.base_model.get("name") or None}
    try:
        if isinstance(encoder, PaddedEncoder):
            if settings.lora:
                common["adapters"] = add_adapters(encoder, settings.lora, **adapted)
            return Trainer(encoder, micro_batch=settings.microBatchSize, bfloat16=bfloat16, **common)
        from embedding_stages.finetune.packed_lora import add_packed_adapters
        from embedding_stages.finetune.packed_trainer import PackedTrainer

        if settings.lora:
            common["adapters"] = add_packed_adapters(encoder, settings.lora, **adapted)
        packed = PackedTrainer(encoder, **common)
    except torch.OutOfMemoryError as error:
        raise OutOfMemory(
            "GPUOutOfMemory", f"weights and optimizer do not fit the accelerator: use a larger one ({error})"
        ) from error
    packed.find_budget(data.examples, data.packed)
    context.log("packs measured", tokensPerPack=packed.token_budget)
    return packed
