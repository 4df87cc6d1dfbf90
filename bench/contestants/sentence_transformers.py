"""sentence-transformers: its stock trainer with in-batch negatives, and `encode`.

Inputs are never padded: with flash-attention's name on the path (flash_attn_stand_in) the library packs a batch into
one row by itself. Without a GPU it pads, which is enough for a dry run.

Options: `padded` runs sdpa on padded batches; `compiled` has torch compile the training step.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from typing import Any, Final

import datasets
import numpy as np
import torch
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.base.modules import Normalize, Transformer
from sentence_transformers.base.sampler import DefaultBatchSampler
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers import TrainerCallback

from bench import measure
from bench.contestants.interface import Embedded, EmbedJob, Trained, TrainJob, main
from bench.contestants.master_adamw import LEARNING_RATE, MAX_NORM, WEIGHT_DECAY
from bench.workload import MAX_TOKENS, Step, as_text, read_corpus

FLAVOUR: Final = "sentence_transformers"
SCALE: Final = 50.0  # 1 / the recipe's temperature
_CAUSAL_BY_DEFAULT: Final = ("llama", "ministral3")
_COLUMNS: Final = ("anchor", "positive", "negative_1", "negative_2", "negative_3", "negative_4")


class _InOrder(DefaultBatchSampler):
    """Batches in the order of the data: every contestant sees the same examples in the same step."""

    def __iter__(self) -> Iterator[list[int]]:
        count = len(self.sampler)
        for start in range(0, count - self.batch_size + 1, self.batch_size):
            yield list(range(start, start + self.batch_size))


class _Marks(TrainerCallback):
    """Marks the clock at the optimizer's steps."""

    def __init__(self, clock: measure.StepClock) -> None:
        self._clock = clock

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._clock.start()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self._clock.mark()


def train_steps(job: TrainJob) -> Trained:
    """The stock trainer: fp32 weights under bf16 autocast, the texts tokenized in the loop, as it does by default."""
    model = _load(job, torch.float32)
    clock = measure.StepClock(job.device)
    with tempfile.TemporaryDirectory() as folder:
        trainer = SentenceTransformerTrainer(
            model=model,
            args=_arguments(job, folder),
            train_dataset=_dataset(job.batches()),
            loss=MultipleNegativesRankingLoss(model, scale=SCALE),
            callbacks=[_Marks(clock)],
        )
        trainer.train()
        losses = [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
    accumulated = job.examples // job.micro_batch
    notes = f"{job.micro_batch} x {accumulated}, in-batch negatives; {_describe(model)}"
    return Trained(step_ms=clock.durations_ms(), losses=losses, notes=notes)


def embed(job: EmbedJob) -> Embedded:
    """`encode`, which sorts by length; weights in bf16."""
    model = _load(job, torch.bfloat16).eval()

    def encode(texts: list[str]) -> np.ndarray[Any, Any]:
        return model.encode(texts, batch_size=job.batch_size, show_progress_bar=False, convert_to_numpy=True)

    started = time.perf_counter()
    encode(read_corpus(job.corpus)[: job.warmup_passages])
    measure.synchronize(job.device)
    warm = time.perf_counter()
    np.save(job.output, encode(read_corpus(job.corpus)))
    seconds = time.perf_counter() - warm
    notes = f"batch {job.batch_size}; {_describe(model)}"
    return Embedded(seconds=seconds, warmup_seconds=warm - started, notes=notes)


def _load(job: TrainJob | EmbedJob, dtype: torch.dtype) -> SentenceTransformer:
    unpadded = job.device == "cuda" and "padded" not in job.options
    attention = "flash_attention_2" if unpadded else "sdpa"
    transformer = Transformer(
        str(job.checkpoint / FLAVOUR),
        model_kwargs={"attn_implementation": attention, "dtype": dtype},
        max_seq_length=MAX_TOKENS,
    )
    if job.shape.family in _CAUSAL_BY_DEFAULT and not job.shape.causal:
        for layer in transformer.model.layers:  # the library's class says causal, whatever config.json says
            layer.self_attn.is_causal = False
    modules = [transformer, Pooling(job.shape.hidden, job.shape.pooling), Normalize()]
    model = SentenceTransformer(modules=modules, device=job.device)
    if unpadded and not transformer.can_flatten_inputs:
        raise RuntimeError("sentence-transformers would pad: the flash-attention stand-in is not on the path")
    return model


def _arguments(job: TrainJob, folder: str) -> SentenceTransformerTrainingArguments:
    if job.examples % job.micro_batch:
        raise ValueError(f"{job.examples} examples a step cannot be cut into micro-batches of {job.micro_batch}")
    cuda = job.device == "cuda"
    return SentenceTransformerTrainingArguments(
        folder,
        max_steps=job.warmup + job.steps,
        per_device_train_batch_size=job.micro_batch,
        gradient_accumulation_steps=job.examples // job.micro_batch,
        batch_sampler=_InOrder,
        bf16=cuda,
        torch_compile="compiled" in job.options,
        use_cpu=not cuda,
        optim="adamw_torch_fused" if cuda else "adamw_torch",
        learning_rate=LEARNING_RATE,
        weight_decay=WEIGHT_DECAY,
        max_grad_norm=MAX_NORM,
        lr_scheduler_type="constant",
        dataloader_num_workers=0,  # forked workers beside the tokenizer's threads can hang; tokenizing is quick here
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        seed=job.seed,
    )


def _dataset(steps: list[Step]) -> datasets.Dataset:
    examples = [example for step in steps for example in step]
    columns = {name: [as_text(example[i]) for example in examples] for i, name in enumerate(_COLUMNS)}
    return datasets.Dataset.from_dict(columns)


def _describe(model: SentenceTransformer) -> str:
    config = model[0].model.config
    unpadded = "unpadded" if model[0].can_flatten_inputs else "padded"
    return f"{config._attn_implementation}, {unpadded}, causal {getattr(config, 'is_causal', None)}"


if __name__ == "__main__":
    main(train_steps, embed)
