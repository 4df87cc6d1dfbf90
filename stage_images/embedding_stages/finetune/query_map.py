"""Training of `side: query`: the base model stays as it is and gets a linear map that queries' vectors go through.

All texts are embedded once. From these vectors the map W learns with the loss that the whole model would be trained
with: normalise(W q) is compared with passages' vectors as the base model gives them. W begins as the identity and is
drawn back to it, since it is W - I that the optimizer moves and lets decay.

Embedding takes nearly all of the time. No resume point is written: an attempt that was stopped begins again.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import torch
from torch.nn.functional import normalize

from embedding_stages.contract import MANIFEST_FILE, Artefact, StageResult
from embedding_stages.contract.settings import Finetune
from embedding_stages.encoder.description import EncoderDescription, Role, description_of
from embedding_stages.encoder.fitting import FittingEncoder, stacked
from embedding_stages.encoder.load import load_encoder
from embedding_stages.encoder.publish import publish
from embedding_stages.encoder.query_map import QueryMap
from embedding_stages.encoder.safetensors_check import ADAPTER_CONFIG
from embedding_stages.errors import OutOfMemory
from embedding_stages.finetune.batches import Example, examples_of_step
from embedding_stages.finetune.dataset import TrainingTexts, asked_texts, distinct_queries
from embedding_stages.finetune.loss import example_losses, not_finite, tables_of
from embedding_stages.finetune.origin import write_origin
from embedding_stages.finetune.scale import Scale, scale_of
from embedding_stages.finetune.schedule import learning_rate
from embedding_stages.finetune.trainer import MAX_GRAD_NORM
from embedding_stages.finetune.world import World
from embedding_stages.runner import StageContext
from embedding_stages.vectors import Vectors

_TEXTS_AT_ONCE: Final = 128  # that a padded model embeds; fewer when they do not fit
_CHUNK: Final = 4096  # texts until the ranks that wait hear of rank 0 again
_LOG_EVERY: Final = 10  # steps
# AdamW takes the learning rate times the decay off in each step. What is meant for weights in runs of many thousand
# steps is nothing in the few hundred of a map: at the setting's default this makes about as much as is learned.
_PULL: Final = 1000.0
_DONE: Final = "done"


class QueryMapTrainer:
    """Owns W - I, its optimizer, and the vectors that it learns from."""

    def __init__(
        self,
        vectors: Vectors,
        *,
        temperature: float,
        weight_decay: float,
        device: torch.device,
        sizes: Sequence[int] = (),
    ) -> None:
        """`vectors` are the base model's, float32 (rows, hidden); examples point into them."""
        self._vectors = torch.from_numpy(vectors)  # in main memory: a step takes few of them
        self._temperature = temperature
        self._sizes = tuple(sizes)  # that vectors are cut to, beside the whole
        self._device = device
        self._hidden = vectors.shape[1]
        self.change = torch.nn.Parameter(torch.zeros(self._hidden, self._hidden, device=device))
        self._optimizer = torch.optim.AdamW([self.change], lr=0.0, weight_decay=_PULL * weight_decay)

    def step(self, examples: Sequence[Example], rate: float) -> tuple[float, float]:
        """One update with learning rate `rate`: (mean loss, gradient norm before clipping).

        Raises Stopped `LossNotFinite`.
        """
        loss = self.losses(examples).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = float(torch.nn.utils.clip_grad_norm_([self.change], MAX_GRAD_NORM))
        found = float(loss.detach())
        if not (math.isfinite(found) and math.isfinite(norm)):
            raise not_finite(found, norm)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return found, norm

    def losses(self, examples: Sequence[Example]) -> torch.Tensor:
        """float32 (len(examples),), differentiable."""
        queries = [example.query for example in examples]
        rows = [*queries, *sorted({row for example in examples for row in example.candidates})]
        vectors = self._vectors[torch.tensor(rows)].to(self._device)
        asked, passages = vectors[: len(queries)], vectors[len(queries) :]
        mapped = normalize(asked + asked @ self.change.T, dim=-1)
        tables = [torch.from_numpy(table).to(self._device) for table in tables_of(examples, rows)]
        return example_losses(torch.cat([mapped, passages]), tables, self._temperature, self._sizes)

    def query_map(self) -> QueryMap:
        """W as it is now."""
        identity = torch.eye(self._hidden, device=self._device)
        return QueryMap((identity + self.change.detach()).cpu().numpy())


def tune_queries(
    context: StageContext, world: World, settings: Finetune, base: Path, training_set: Path
) -> StageResult:
    """The stage's work for `side: query`. Rank 0 does it alone, the others wait and have nothing to say.

    Raises BadInput as `asked_texts` does, OutOfMemory `GPUOutOfMemory`, Stopped `LossNotFinite`, Transient
    when the pod is asked to stop, or `PeerLost`.
    """
    checkpoint = context.folder(Artefact.CHECKPOINT)  # made now: later rank 0 may have published
    if not world.leads:
        _Rank0(world).wait()
        return context.result()
    texts = asked_texts(training_set, settings)
    description = description_of(base).offering(settings.matryoshka)
    scale = scale_of(settings, examples=len(texts.examples), ranking=texts.scored, log=context.log)
    rank_0 = _Rank0(world)
    vectors = _embed(context, world, base, texts, steps=scale.total_steps, after_part=lambda: rank_0.tell("on"))
    try:
        trainer = QueryMapTrainer(
            vectors,
            temperature=settings.temperature,
            weight_decay=settings.weightDecay,
            device=world.device,
            sizes=description.dimensions[1:] if settings.matryoshka else (),
        )
        losses = _train(context, trainer, texts.examples, settings, scale, texts=len(vectors))
    except torch.OutOfMemoryError as error:
        message = f"the query map and its optimizer do not fit the accelerator: use a larger one ({error})"
        raise OutOfMemory("GPUOutOfMemory", message) from error
    save_checkpoint(trainer.query_map(), base, checkpoint, description)
    questions = distinct_queries(texts.queries, texts.examples)
    write_origin(context, checkpoint, questions=questions, how="a map of queries' vectors alone")
    rank_0.tell(_DONE)
    context.log("checkpoint written")
    window = max(1, len(losses) // 10)
    return context.result(
        counts={
            "examples": len(texts.examples),
            "steps": scale.total_steps,
            "globalBatchSize": scale.global_batch,
            "microBatchSize": scale.global_batch,  # a step's vectors always fit
        },
        details={
            "side": settings.side,
            "loss": "ranking" if texts.scored else "contrastive",
            "firstLoss": sum(losses[:window]) / window,
            "lastLoss": sum(losses[-window:]) / window,
            "precision": "bf16" if world.device.type == "cuda" else "fp32",  # that the texts were embedded in
            "workers": world.size,
            "warnings": list(scale.warnings),
        },
    )


def save_checkpoint(query_map: QueryMap, base: Path, folder: Path, description: EncoderDescription) -> None:
    """The base model's files, its weights byte for byte, the map beside them and in what describes the model."""

    def ignored(at: str, _names: list[str]) -> set[str]:
        # Readers that have peft would look for the adapters that this file of the base model speaks of. In a folder of
        # its own, as training with adapters leaves them, nobody does.
        return {MANIFEST_FILE, ADAPTER_CONFIG} if Path(at) == base else set()

    shutil.copytree(base, folder, ignore=ignored, copy_function=shutil.copyfile, dirs_exist_ok=True)
    publish(replace(description, query_map=True), query_map, base, folder)


def _embed(
    context: StageContext,
    world: World,
    base: Path,
    texts: TrainingTexts,
    *,
    steps: int,
    after_part: Callable[[], None],
) -> Vectors:
    """float32 (rows of `texts`, hidden) of the base model; progress counts texts, and the steps to come."""
    encoder = load_encoder(base, device=str(world.device), log=context.log)
    context.log("model loaded", device=str(world.device), packed=not encoder.batched)
    fitting = FittingEncoder(encoder, _TEXTS_AT_ONCE, context.log)
    rows = len(texts.queries) + len(texts.passages)

    def parts() -> Iterator[Vectors]:
        done = 0

        def progress(of_part: int, _: int) -> None:
            context.stop_if_asked()
            context.progress(done + of_part, rows + steps)

        roles: tuple[tuple[Role, Sequence[str]], ...] = (("query", texts.queries), ("passage", texts.passages))
        for role, some in roles:
            for start in range(0, len(some), _CHUNK):
                part = fitting.embed(some[start : start + _CHUNK], role=role, progress=progress)
                yield part
                after_part()
                done += len(part)

    return stacked(rows, parts())


def _train(
    context: StageContext,
    trainer: QueryMapTrainer,
    examples: Sequence[Example],
    settings: Finetune,
    scale: Scale,
    *,
    texts: int,
) -> list[float]:
    """The loss of every step. `texts` were embedded before it, and count as progress."""
    losses: list[float] = []
    for step in range(scale.total_steps):
        context.stop_if_asked()
        numbers = examples_of_step(step, examples=len(examples), global_batch=scale.global_batch, seed=settings.seed)
        rate = learning_rate(
            step, peak=settings.learningRate, warmup_steps=settings.warmupSteps, total_steps=scale.total_steps
        )
        loss, norm = trainer.step([examples[number] for number in numbers], rate)
        losses.append(loss)
        context.progress(texts + step + 1, texts + scale.total_steps, loss=loss)
        if step % _LOG_EVERY == 0 or step + 1 == scale.total_steps:
            context.log("step", step=step + 1, loss=round(loss, 6), lr=rate, gradNorm=round(norm, 4))
    return losses


class _Rank0:
    """Rank 0's word to those that wait: that it goes on, or is done. They give it up after an hour of silence."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._told = 0

    def tell(self, word: str) -> None:
        """The others hear it when they come here; rank 0 waits for nobody. Raises Transient `PeerLost`."""
        self._say(word)

    def wait(self) -> None:
        """Until rank 0 is done. Raises Transient `PeerLost`."""
        while self._say("") != _DONE:
            pass

    def _say(self, word: str) -> str:
        self._told += 1
        return self._world.meet(f"query-map-{self._told}", word)
