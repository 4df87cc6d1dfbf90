"""This project's own trainer and encoder, as the stages drive them.

Without a GPU the kernels run in Triton's interpreter: enough for a dry run of the smallest shape.
Options: `budget=TOKENS` sets the size of a pack, which the stage finds by itself; `lora=RANK` trains adapters of all
linear layers; `float32` embeds in full precision.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when the kernels are imported

from bench import measure
from bench.contestants.interface import Embedded, EmbedJob, Trained, TrainJob, main
from bench.contestants.master_adamw import LEARNING_RATE, WEIGHT_DECAY
from bench.workload import PASSAGES, read_corpus
from embedding_stages.contract.settings import Lora
from embedding_stages.encoder.description import describe_model
from embedding_stages.encoder.packed.encoder import PackedEncoder
from embedding_stages.encoder.packed.packs import Ragged
from embedding_stages.finetune.batches import Example
from embedding_stages.finetune.packed_lora import add_packed_adapters
from embedding_stages.finetune.packed_trainer import PackedTrainer
from embedding_stages.finetune.world import World

FLAVOUR: Final = "ours"
TEMPERATURE: Final = 0.02
_NO_PREFIXES: Final = {"query": "", "passage": ""}  # the workload's texts hold theirs


def train_steps(
    job: TrainJob, *, world: World | None = None, prepared: Callable[[PackedTrainer], None] = lambda _: None
) -> Trained:
    """The stage's trainer on token ids: it tokenizes once, before the first step. Packing and copies are timed.

    `world` shares each step between ranks; `prepared` is given the trainer before the first one.
    """
    encoder = _load(job.checkpoint / FLAVOUR, job.device)
    asked = {name: int(number) for name, number in (option.split("=") for option in job.options)}
    lora = lora_of(asked.get("lora", 0))
    trainer = PackedTrainer(
        encoder,
        temperature=TEMPERATURE,
        weight_decay=WEIGHT_DECAY,
        token_budget=asked.get("budget") or None,
        adapters=add_packed_adapters(encoder, lora, seed=1) if lora else None,
        world=world,
    )
    prepared(trainer)
    rows, steps = texts_and_steps(job)
    texts = Ragged.of(rows)
    clock = measure.StepClock(job.device)
    clock.start()
    losses = []
    for number, examples in enumerate(steps):
        following = steps[number + 1] if number + 1 < len(steps) else ()
        losses.append(trainer.step(examples, texts, LEARNING_RATE, following=following).loss)
        clock.mark()
    return Trained(
        step_ms=clock.durations_ms(),
        losses=losses,
        computed_tokens=trainer.computed_tokens,
        notes=f"packs of {trainer.token_budget} tokens at most",
    )


def lora_of(rank: int) -> Lora | None:
    """Adapters of this rank in all linear layers; None for 0."""
    return Lora(rank=rank, alpha=2 * rank) if rank else None


def texts_and_steps(job: TrainJob) -> tuple[list[list[int]], list[list[Example]]]:
    """The tokens of all texts, and the examples of each step."""
    batches = job.batches()
    width = 1 + PASSAGES
    steps = [
        [_example((step * job.examples + number) * width) for number in range(job.examples)]
        for step in range(len(batches))
    ]
    return [row.tolist() for batch in batches for example in batch for row in example], steps


def embed(job: EmbedJob) -> Embedded:
    """The encoder of prep and eval, its vectors written to the file's map while it works."""
    encoder = _load(job.checkpoint / FLAVOUR, job.device, exact="float32" in job.options)
    started = time.perf_counter()
    encoder.embed(read_corpus(job.corpus)[: job.warmup_passages], role="passage")
    warm = time.perf_counter()
    texts = read_corpus(job.corpus)
    shape = (len(texts), encoder.description.hidden_size)
    out = np.lib.format.open_memmap(job.output, mode="w+", dtype=np.float32, shape=shape)
    encoder.embed(texts, role="passage", out=out)
    return Embedded(seconds=time.perf_counter() - warm, warmup_seconds=warm - started)


def describe(folder: Path) -> None:
    """Write what the stages know of the model beside it."""
    describe_model(folder, prefixes=_NO_PREFIXES, max_tokens=512).save(folder)


def _load(folder: Path, device: str, *, exact: bool = False) -> PackedEncoder:
    describe(folder)
    dtype = torch.float32 if exact or device == "cpu" else torch.bfloat16
    return PackedEncoder.load(folder, device=device, dtype=dtype)


def _example(first: int) -> Example:
    return Example(query=first, candidates=tuple(range(first + 1, first + 1 + PASSAGES)))


if __name__ == "__main__":
    main(train_steps, embed)
