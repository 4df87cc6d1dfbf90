"""What a padded step and an embedding cost on this machine's CPUs.

PYTHONPATH=stage_images python3 bench/cpu.py --model FOLDER --training-set FOLDER [--avx2] [--steps 2] [--texts 384]

FOLDERs are artefacts of a workspace: what `inputs` made of the base model, and a `trainingSet` of `prep`. It is meant
to be run in the finetune image, whose torch a virtual environment lacks. `--avx2` imitates a CPU without AVX-512.
CPU seconds count all threads, the ones that spin too: beside other work they tell more than the clock.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "DNNL_MAX_CPU_ISA": "AVX2", "OPENBLAS_CORETYPE": "Haswell"}
_AGAIN = "BENCH_CPU_AGAIN"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--training-set", type=Path, required=True)
    parser.add_argument("--avx2", action="store_true")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--batch", type=int, default=55, help="examples a step")
    parser.add_argument("--texts", type=int, default=384, help="passages to embed")
    options = parser.parse_args()
    if options.avx2 and _AGAIN not in os.environ:
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **_AVX2, _AGAIN: "1"})

    from embedding_stages.encoder import hardware

    if options.avx2:
        hardware._CPU_INFO = Path(os.devnull)
    hardware.limit_library_threads()
    measure(options)


def measure(options: argparse.Namespace) -> None:
    import torch

    from embedding_stages.encoder.model import PaddedEncoder
    from embedding_stages.finetune.batches import examples_of_step
    from embedding_stages.finetune.dataset import load_training_set
    from embedding_stages.finetune.stage import trains_in_bfloat16
    from embedding_stages.finetune.trainer import Trainer

    encoder = PaddedEncoder.load(options.model, device="cpu", dtype=torch.float32)
    lines = (options.training_set / "passages.jsonl").read_text().splitlines()[: options.texts]
    texts = [json.loads(line)["text"] for line in lines]
    encoder.embed(texts[:32], role="passage")
    timed(f"{len(texts)} passages", lambda: encoder.embed(texts, role="passage", batch_size=128) is None)
    bfloat16 = trains_in_bfloat16("cpu")
    trainer = Trainer(
        encoder, temperature=0.02, weight_decay=0.01, micro_batch=4, texts_per_example=6, bfloat16=bfloat16
    )
    data = load_training_set(options.training_set, encoder.tokenizer, negatives_per_query=4, with_scores=False)
    for step in range(options.steps):
        numbers = examples_of_step(step, examples=len(data.examples), global_batch=options.batch, seed=42)
        chosen = [data.examples[number] for number in numbers]
        timed(f"step {step}, {'bf16' if bfloat16 else 'fp32'}", lambda: trainer.step(chosen, data.rows, 1e-5))  # noqa: B023


def timed(what: str, work: Callable[[], Any]) -> None:
    began, used = time.perf_counter(), time.process_time()
    told = work() or ""
    print(f"{what}: {time.perf_counter() - began:.2f} s, CPU {time.process_time() - used:.2f} s {told}", flush=True)


if __name__ == "__main__":
    main()
