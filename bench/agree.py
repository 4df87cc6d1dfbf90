"""Does the packed trainer train as the padded one does? First gradients, then loss curves on the same batches.

python3 bench/agree.py [--layers 4] [--examples 16] [--steps 50]

The reference is the padded trainer in float32. Printed for each of the others: the relative error and the cosine of
the first step's gradient over all weights, and how far its losses are from the reference's. A run "within noise" is as
far away as the padded trainer in bfloat16 is.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when the kernels are imported

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "stage_images")]

from bench.checkpoint import write_checkpoint  # noqa: E402
from bench.models import DEFAULT, SHAPES, Shape  # noqa: E402
from bench.workload import PASSAGES, training_steps  # noqa: E402
from embedding_stages.encoder.description import describe_model  # noqa: E402
from embedding_stages.encoder.model import PaddedEncoder  # noqa: E402
from embedding_stages.encoder.packed.encoder import PackedEncoder  # noqa: E402
from embedding_stages.encoder.packed.packs import Ragged  # noqa: E402
from embedding_stages.finetune.batches import Example  # noqa: E402
from embedding_stages.finetune.packed_trainer import PackedTrainer  # noqa: E402
from embedding_stages.finetune.schedule import learning_rate  # noqa: E402
from embedding_stages.finetune.trainer import Trainer  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SETTINGS = {"temperature": 0.02, "weight_decay": 0.01, "texts_per_example": 1 + PASSAGES}
Gradients = dict[str, torch.Tensor]
Seen = tuple[Gradients, list[float]]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", choices=SHAPES, default=DEFAULT)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--examples", type=int, default=16)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--rate", type=float, default=1e-5)
    parser.add_argument("--work", type=Path, default=Path("/tmp/bench-agree"))
    options = parser.parse_args()
    shape = replace(SHAPES[options.model], layers=options.layers)
    folder = options.work / f"{options.model}-{options.layers}"
    if not folder.exists():
        write_checkpoint(folder, shape)
    describe_model(folder / "ours", prefixes={"query": "", "passage": ""}, max_tokens=512).save(folder / "ours")
    torch.backends.cuda.matmul.allow_tf32 = False
    rows, steps = _batches(shape, options.steps, options.examples)
    rates = [
        learning_rate(step, peak=options.rate, warmup_steps=5, total_steps=options.steps)
        for step in range(options.steps)
    ]
    short = torch.bfloat16 if DEVICE == "cuda" else torch.float32
    contestants: dict[str, Callable[[], Seen]] = {
        "padded, float32": lambda: _padded(folder / "ours", rows, steps, rates, bfloat16=False),
        "padded, bfloat16": lambda: _padded(folder / "ours", rows, steps, rates, bfloat16=DEVICE == "cuda"),
        "packed, float32": lambda: _packed(folder / "ours", rows, steps, rates, torch.float32),
        f"packed, {short}".replace("torch.", ""): lambda: _packed(folder / "ours", rows, steps, rates, short),
    }
    _report({name: run() for name, run in contestants.items()})


def _batches(shape: Shape, steps: int, examples: int) -> tuple[list[list[int]], list[list[Example]]]:
    batches = training_steps("A", steps=steps, examples=examples, seed=5, shape=shape)
    rows = [row.tolist() for batch in batches for example in batch for row in example]
    width = 1 + PASSAGES
    firsts = [[(step * examples + number) * width for number in range(examples)] for step in range(steps)]
    return rows, [[Example(first, tuple(range(first + 1, first + width))) for first in step] for step in firsts]


def _padded(
    folder: Path, rows: list[list[int]], steps: list[list[Example]], rates: list[float], *, bfloat16: bool
) -> Seen:
    encoder = PaddedEncoder.load(folder, device=DEVICE, dtype=torch.float32)
    trainer = Trainer(encoder, micro_batch=16, bfloat16=bfloat16, **SETTINGS)
    trainer._gradients(steps[0], rows, [len(row) for row in rows], weight=1 / len(steps[0]))
    first = {name: value.grad.double().cpu() for name, value in trainer.parameters.items() if value.grad is not None}
    trainer.optimizer.zero_grad(set_to_none=True)
    return first, [trainer.step(step, rows, rate).loss for step, rate in zip(steps, rates, strict=True)]


def _packed(
    folder: Path, rows: list[list[int]], steps: list[list[Example]], rates: list[float], dtype: torch.dtype
) -> Seen:
    encoder = PackedEncoder.load(folder, device=DEVICE, dtype=dtype)
    trainer = PackedTrainer(encoder, **SETTINGS)
    texts = Ragged.of(rows)
    trainer._gradients(trainer._prepare(steps[0], texts), 1 / len(steps[0]), torch.zeros((), device=DEVICE))
    first = {name: view.double().cpu() for name, view in encoder.model.on_disk(trainer.gradient)}
    encoder.model.drop_gradients()
    return first, [trainer.step(step, texts, rate).loss for step, rate in zip(steps, rates, strict=True)]


def _report(seen: dict[str, Seen]) -> None:
    (exact, curve), *_ = seen.values()
    whole = torch.cat([exact[name].reshape(-1) for name in sorted(exact)])
    print("| trainer | gradient's error | cosine | losses' largest distance | mean distance | first, last loss |")
    print("|---|---:|---:|---:|---:|---|")
    for name, (gradients, losses) in seen.items():
        found = torch.cat([gradients[key].reshape(-1) for key in sorted(exact)])
        error = float((found - whole).norm() / whole.norm())
        cosine = float(torch.nn.functional.cosine_similarity(found, whole, dim=0))
        far = [abs(one - other) for one, other in zip(losses, curve, strict=True)]
        print(
            f"| {name} | {error:.2e} | {cosine:.6f} | {max(far):.2e} | {sum(far) / len(far):.2e} "
            f"| {losses[0]:.4f}, {losses[-1]:.4f} |"
        )
    print("CURVES " + json.dumps({name: [round(loss, 5) for loss in losses] for name, (_, losses) in seen.items()}))


if __name__ == "__main__":
    main()
