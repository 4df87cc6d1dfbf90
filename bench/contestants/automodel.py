"""NVIDIA NeMo Automodel: the bi-encoder classes that the embed recipe runs.

The model, the collator and the step are Automodel's own. The loop around them and the optimizer are not: the loop is
what its recipe does on one GPU (without checkpoints and validation), the optimizer stands in for Transformer Engine's.

Options: `collated` collates all batches before the clock starts.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Final

import numpy as np
import torch
from nemo_automodel import NeMoAutoModelBiEncoder
from nemo_automodel._transformers.retrieval import BiEncoderModel
from nemo_automodel.components.datasets.llm import BiEncoderCollator
from nemo_automodel.components.models.llama_bidirectional import model as llama_bidirectional
from nemo_automodel.recipes.retrieval.mine_hard_negatives import MineHardNegativesRecipe
from nemo_automodel.recipes.retrieval.train_bi_encoder import TrainBiEncoderRecipe
from transformers import PreTrainedTokenizerFast

from bench import measure
from bench.contestants.interface import Embedded, EmbedJob, Trained, TrainJob, main
from bench.contestants.master_adamw import MasterAdamW
from bench.workload import MAX_TOKENS, PASSAGE_PREFIX, PASSAGES, QUERY_PREFIX, Example, as_text, read_corpus

FLAVOUR: Final = "automodel"
BACKBONE: Final = llama_bidirectional.LlamaBidirectionalModel  # importing it makes its model_type known
TEMPERATURE: Final = 0.02  # the recipe's
_PAD_TO: Final = 8  # the recipe's
_LOAD: Final = {"attn_implementation": "sdpa", "pooling": "avg", "l2_normalize": True}

Batch = dict[str, torch.Tensor]


def train_steps(job: TrainJob) -> Trained:
    """The recipe's optimizer step, batch after batch, each collated when its turn comes (it has no workers)."""
    model = _load(job).train()
    notes = f"micro-batch {job.micro_batch}, {_describe(model)}"
    optimizer = MasterAdamW(model.named_parameters(), fused=job.device == "cuda")
    recipe = _recipe(job, model_parts=[model], train_n_passages=PASSAGES, temperature=TEMPERATURE)
    collator = _collator(job)
    steps: list[Any] = [_micro_batches([_record(example) for example in step], job) for step in job.batches()]
    if "collated" in job.options:
        steps = [[collator(records) for records in step] for step in steps]
        notes += ", collated before the clock"
        collator = _as_is
    clock, losses, computed = measure.StepClock(job.device), [], 0
    clock.start()
    for step in steps:
        buffer: list[torch.Tensor] = []
        for position, records in enumerate(step):
            batch = collator(records)
            computed += batch["q_input_ids"].numel() + batch["d_input_ids"].numel()
            TrainBiEncoderRecipe._forward_backward_step(
                recipe, position, batch, loss_buffer=buffer, num_batches=len(step), is_train=True
            )
        optimizer.step()
        losses.append(torch.stack(buffer).mean().item())  # the recipe waits for its loss after every step, too
        clock.mark()
    return Trained(step_ms=clock.durations_ms(), losses=losses, computed_tokens=computed, notes=notes)


def embed(job: EmbedJob) -> Embedded:
    """The encoding of its mining step; the passages hold their prefix already."""
    model = _load(job).eval()
    recipe = _recipe(job, model=model, tokenizer=_tokenizer(job))

    def encode(texts: list[str]) -> np.ndarray[Any, Any]:
        return MineHardNegativesRecipe._encode_texts(recipe, texts, job.batch_size, MAX_TOKENS)

    started = time.perf_counter()
    encode(read_corpus(job.corpus)[: job.warmup_passages])
    measure.synchronize(job.device)
    warm = time.perf_counter()
    np.save(job.output, encode(read_corpus(job.corpus)))
    seconds = time.perf_counter() - warm
    notes = f"batch {job.batch_size}, in the corpus's order; {_describe(model)}"
    return Embedded(seconds=seconds, warmup_seconds=warm - started, notes=notes)


def _load(job: TrainJob | EmbedJob) -> torch.nn.Module:
    folder = str(job.checkpoint / FLAVOUR)
    if job.device == "cpu":  # for dry runs: what wraps the model asks for a GPU
        return BiEncoderModel.build(folder, task="embedding", dtype=torch.bfloat16, **_LOAD)
    model = NeMoAutoModelBiEncoder.from_pretrained(
        folder, use_liger_kernel=True, use_sdpa_patching=True, torch_dtype=torch.bfloat16, **_LOAD
    )
    if not isinstance(model.model, BACKBONE):
        raise TypeError(f"Automodel loaded {type(model.model).__name__}, expected {BACKBONE.__name__}")
    return model.to(job.device)


def _tokenizer(job: TrainJob | EmbedJob) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast.from_pretrained(job.checkpoint / FLAVOUR)


def _recipe(job: TrainJob | EmbedJob, **attributes: Any) -> SimpleNamespace:
    """What the recipe's methods read of `self`, without its distributed set-up."""
    place = SimpleNamespace(device=torch.device(job.device))
    return SimpleNamespace(dist_env=place, distributed_config=None, **attributes)


def _collator(job: TrainJob) -> Callable[[Any], Batch]:
    return BiEncoderCollator(
        _tokenizer(job),
        MAX_TOKENS,
        MAX_TOKENS,
        query_prefix=as_text([QUERY_PREFIX]),
        passage_prefix=as_text([PASSAGE_PREFIX]),
        pad_to_multiple_of=_PAD_TO,
    )


def _as_is(batch: Batch) -> Batch:
    return batch


def _record(example: Example) -> dict[str, Any]:
    """An example as its dataset gives it: the collator puts the prefixes, so they are left out here."""
    return {"question": as_text(example[0][1:]), "doc_text": [as_text(row[1:]) for row in example[1:]]}


def _micro_batches(records: list[dict[str, Any]], job: TrainJob) -> list[list[dict[str, Any]]]:
    return [records[start : start + job.micro_batch] for start in range(0, len(records), job.micro_batch)]


def _describe(model: Any) -> str:
    backbone = model.model
    return (
        f"{type(backbone).__name__} with {type(backbone.norm).__name__}, {backbone.config._attn_implementation}, "
        f"causal {backbone.config.is_causal}"
    )


if __name__ == "__main__":
    main(train_steps, embed)
