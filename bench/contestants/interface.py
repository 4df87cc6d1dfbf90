"""What a contestant is: a program run in a process of its own, which prints one line `RESULT {json}`.

Its module gives `main` two functions, one that trains and one that embeds; lengths, tokens, yardstick, sums and the
printed line are the same for all of them.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch

from bench import measure
from bench.models import SHAPES, Shape
from bench.runner import RESULT_MARK
from bench.workload import (
    PASSAGE_LENGTHS,
    Step,
    corpus_lengths,
    inference_flops,
    step_lengths,
    training_flops,
    training_steps,
)

_TRACEBACK_BEFORE_S: Final = 3  # a contestant that hangs says where, just before it is stopped


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainJob:
    """Train `warmup + steps` optimizer steps; the clock's marks go after each of them."""

    checkpoint: Path  # the folder that checkpoint.py fills: one model folder a flavour
    lengths: str
    steps: int
    warmup: int
    examples: int  # an optimizer step
    micro_batch: int  # examples
    seed: int
    shape: Shape
    device: str
    options: tuple[str, ...]  # the contestant's own switches

    def batches(self) -> list[Step]:
        """The token ids of all steps, warm-up first."""
        return training_steps(
            self.lengths, steps=self.warmup + self.steps, examples=self.examples, seed=self.seed, shape=self.shape
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What training took."""

    step_ms: list[float]  # one entry a step, warm-up included
    losses: list[float] = field(default_factory=list)  # one a step, where they can be had
    computed_tokens: int | None = None  # in all steps, padding included; None where it is not known
    notes: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedJob:
    """Read the texts of `corpus` (workload.read_corpus), write their vectors to `output` (.npy, one row a text)."""

    checkpoint: Path
    corpus: Path
    output: Path
    batch_size: int
    warmup_passages: int  # embedded before the clock starts: loads kernels, compiles
    shape: Shape
    device: str
    options: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """What embedding took: text on disk to vectors on disk."""

    seconds: float
    warmup_seconds: float  # model loading not counted
    notes: str = ""


def main(train_steps: Callable[[TrainJob], Trained], embed: Callable[[EmbedJob], Embedded]) -> None:
    """The program: parse the arguments, take the yardstick, run, print the result."""
    arguments = _parser().parse_args()
    if arguments.time_limit > _TRACEBACK_BEFORE_S:
        faulthandler.dump_traceback_later(arguments.time_limit - _TRACEBACK_BEFORE_S)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    gemm = measure.gemm_tflops(device)
    training = arguments.task == "train"
    result = _train(arguments, device, train_steps) if training else _embed(arguments, device, embed)
    result |= {
        "name": arguments.name,
        "lengths": arguments.lengths,
        "peak_gb": round(measure.peak_gb(device), 1),
        "gemm": round(gemm, 1),
        "versions": measure.versions(),
    }
    faulthandler.cancel_dump_traceback_later()
    print(RESULT_MARK + json.dumps(result), flush=True)


def _train(arguments: argparse.Namespace, device: str, train_steps: Callable[[TrainJob], Trained]) -> dict[str, Any]:
    job = TrainJob(
        checkpoint=arguments.checkpoint,
        lengths=arguments.lengths,
        steps=arguments.steps,
        warmup=arguments.warmup,
        examples=arguments.examples,
        micro_batch=min(arguments.micro_batch, arguments.examples),  # for dry runs
        seed=arguments.seed,
        shape=SHAPES[arguments.model],
        device=device,
        options=tuple(arguments.option),
    )
    trained = train_steps(job)
    if len(trained.step_ms) != job.warmup + job.steps:
        raise RuntimeError(f"{len(trained.step_ms)} steps were timed, expected {job.warmup + job.steps}")
    lengths = [step_lengths(step) for step in job.batches()]
    timed, timed_ms = lengths[job.warmup :], trained.step_ms[job.warmup :]
    seconds = sum(timed_ms) / 1000
    tokens = sum(sum(step) for step in timed)
    every = sum(sum(step) for step in lengths)
    return {
        "step_ms": round(statistics.median(timed_ms), 1),
        "all_ms": [round(duration, 1) for duration in trained.step_ms],
        "tok_s": round(tokens / seconds),
        "tflops": round(sum(training_flops(step, job.shape) for step in timed) / seconds / 1e12, 2),
        "tokens_per_step": round(tokens / len(timed)),
        "padding": None if trained.computed_tokens is None else round(trained.computed_tokens / every, 3),
        "losses": [round(loss, 5) for loss in trained.losses],
        "notes": trained.notes,
    }


def _embed(arguments: argparse.Namespace, device: str, embed: Callable[[EmbedJob], Embedded]) -> dict[str, Any]:
    job = EmbedJob(
        checkpoint=arguments.checkpoint,
        corpus=arguments.corpus,
        output=arguments.vectors,
        batch_size=arguments.batch_size,
        warmup_passages=arguments.warmup_passages,
        shape=SHAPES[arguments.model],
        device=device,
        options=tuple(arguments.option),
    )
    embedded = embed(job)
    lengths = corpus_lengths(job.corpus)
    return {
        "seconds": round(embedded.seconds, 3),
        "warmup_s": round(embedded.warmup_seconds, 1),
        "passages_s": round(len(lengths) / embedded.seconds, 1),
        "tok_s": round(sum(lengths) / embedded.seconds),
        "tflops": round(inference_flops(lengths, job.shape) / embedded.seconds / 1e12, 2),
        "notes": embedded.notes,
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    parser.add_argument("task", choices=("train", "embed"))
    parser.add_argument("--name", required=True)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--model", choices=SHAPES, required=True)
    parser.add_argument("--lengths", choices=PASSAGE_LENGTHS, required=True)
    parser.add_argument("--time-limit", type=float, default=0.0)
    parser.add_argument("--option", action="append", default=[])
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--examples", type=int, default=128)
    parser.add_argument("--micro-batch", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1234)
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--vectors", type=Path)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--warmup-passages", type=int, default=512)
    return parser
