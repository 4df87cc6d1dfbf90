"""Does the packed trainer train as the padded one does? First gradients, then loss curves on the same batches.

python3 bench/agree.py [--layers 4] [--examples 16] [--steps 50] [--model bert-base] [--lora] [--in-batch] [--dense]

The reference is the padded trainer in float32. Printed for each of the others: the relative error and the cosine of
the first step's gradient over all weights, and how far its losses are from the reference's. A run "within noise" is as
far away as the padded trainer in bfloat16 is. Exit status 1 where packs are further away: in float32 by more than
EXACT of the gradient, in half precision by more than NOISE times what the padded trainer is.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when the kernels are imported

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "stage_images")]

from bench.checkpoint import write_checkpoint  # noqa: E402
from bench.models import DEFAULT, SHAPES, Shape  # noqa: E402
from bench.workload import PASSAGES, training_steps  # noqa: E402
from embedding_stages.contract.settings import Lora  # noqa: E402
from embedding_stages.encoder.dense import DenseLayer  # noqa: E402
from embedding_stages.encoder.dense_head import save_layer  # noqa: E402
from embedding_stages.encoder.description import describe_model  # noqa: E402
from embedding_stages.encoder.model import PaddedEncoder  # noqa: E402
from embedding_stages.encoder.packed.encoder import PackedEncoder  # noqa: E402
from embedding_stages.encoder.packed.packs import Ragged  # noqa: E402
from embedding_stages.finetune.batches import Example  # noqa: E402
from embedding_stages.finetune.dataset import TrainingSet  # noqa: E402
from embedding_stages.finetune.in_batch import Pool  # noqa: E402
from embedding_stages.finetune.lora import add_adapters  # noqa: E402
from embedding_stages.finetune.packed_lora import add_packed_adapters  # noqa: E402
from embedding_stages.finetune.packed_trainer import PackedTrainer  # noqa: E402
from embedding_stages.finetune.schedule import learning_rate  # noqa: E402
from embedding_stages.finetune.trainer import Trainer  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SETTINGS: dict[str, Any] = {"temperature": 0.02, "weight_decay": 0.01, "texts_per_example": 1 + PASSAGES}
LORA = Lora(rank=8, alpha=16)
EXACT = 1e-3  # of the gradient, in float32
BUDGET = 4096  # tokens: a step has several packs
NOISE = 3.0  # times the padded trainer's error, in half precision
Gradients = dict[str, torch.Tensor]
Seen = tuple[Gradients, list[float]]


@dataclass(frozen=True)
class Run:
    """What every trainer gets."""

    folder: Path
    rows: list[list[int]]
    steps: list[list[Example]]
    rates: list[float]
    lora: bool
    in_batch: bool

    @property
    def settings(self) -> dict[str, Any]:
        examples = [example for step in self.steps for example in step]
        return SETTINGS | {"pool": Pool(TrainingSet(self.rows, examples)) if self.in_batch else None}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=SHAPES, default=DEFAULT)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--examples", type=int, default=16)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--rate", type=float, default=1e-5)
    parser.add_argument("--lora", action="store_true", help="train adapters of all linear layers")
    parser.add_argument("--in-batch", action="store_true", help="with the passages of a step's other questions")
    parser.add_argument("--dense", action="store_true", help="two Dense modules behind the pooling")
    parser.add_argument("--work", type=Path, default=Path("/tmp/bench-agree"))
    options = parser.parse_args()
    shape = replace(SHAPES[options.model], layers=options.layers)
    folder = options.work / f"{options.model}-{options.layers}{'-dense' if options.dense else ''}"
    if not folder.exists():
        write_checkpoint(folder, shape)
        if options.dense:
            _write_dense(folder / "ours", shape.hidden)
    describe_model(folder / "ours", prefixes={"query": "", "passage": ""}, max_tokens=512).save(folder / "ours")
    torch.backends.cuda.matmul.allow_tf32 = False
    rows, steps = _batches(shape, options.steps, options.examples)
    rates = [
        learning_rate(step, peak=options.rate, warmup_steps=5, total_steps=options.steps)
        for step in range(options.steps)
    ]
    run = Run(folder / "ours", rows, steps, rates, options.lora, options.in_batch)
    short = torch.bfloat16 if DEVICE == "cuda" else torch.float32
    contestants: dict[str, Callable[[], Seen]] = {
        "padded, float32": lambda: _padded(run, bfloat16=False),
        "padded, bfloat16": lambda: _padded(run, bfloat16=DEVICE == "cuda"),
        "packed, float32": lambda: _packed(run, torch.float32),
        f"packed, {short}".replace("torch.", ""): lambda: _packed(run, short),
    }
    _, padded, exact, *rounded = _report({name: each() for name, each in contestants.items()})  # none without a GPU
    return int(exact > EXACT or any(error > max(EXACT, NOISE * padded) for error in rounded))


def _write_dense(folder: Path, hidden: int) -> None:
    """Two Dense modules as EmbeddingGemma has them: four times as wide and back, float32, no biases."""
    generator = torch.Generator().manual_seed(0)
    names = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Dense", "Dense"), ("3_Dense", "Dense")]
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (path, kind) in enumerate(names)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    pooling = {"word_embedding_dimension": hidden, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    for name, width, size in (("2_Dense", hidden, 4 * hidden), ("3_Dense", 4 * hidden, hidden)):
        layer = DenseLayer(folder=name, in_features=width, out_features=size, bias=False, activation="identity")
        save_layer(folder, layer, {"weight": torch.randn(size, width, generator=generator) / width**0.5})


def _batches(shape: Shape, steps: int, examples: int) -> tuple[list[list[int]], list[list[Example]]]:
    batches = training_steps("A", steps=steps, examples=examples, seed=5, shape=shape)
    rows = [row.tolist() for batch in batches for example in batch for row in example]
    width = 1 + PASSAGES
    firsts = [[(step * examples + number) * width for number in range(examples)] for step in range(steps)]
    return rows, [[Example(first, tuple(range(first + 1, first + width))) for first in step] for step in firsts]


def _padded(run: Run, *, bfloat16: bool) -> Seen:
    encoder = PaddedEncoder.load(run.folder, device=DEVICE, dtype=torch.float32)
    adapters = add_adapters(encoder, LORA, seed=1) if run.lora else None
    trainer = Trainer(encoder, micro_batch=16, bfloat16=bfloat16, adapters=adapters, **run.settings)
    rows, first = run.rows, run.steps[0]
    trainer._gradients(first, rows, [len(row) for row in rows], weight=1 / len(first))
    found = {name: value.grad.double().cpu() for name, value in trainer.parameters.items() if value.grad is not None}
    trainer.optimizer.zero_grad(set_to_none=True)
    return found, [trainer.step(step, rows, rate).loss for step, rate in zip(run.steps, run.rates, strict=True)]


def _packed(run: Run, dtype: torch.dtype) -> Seen:
    encoder = PackedEncoder.load(run.folder, device=DEVICE, dtype=dtype)
    adapters = add_packed_adapters(encoder, LORA, seed=1) if run.lora else None
    trainer = PackedTrainer(encoder, adapters=adapters, token_budget=BUDGET, **run.settings)
    texts, first = Ragged.of(run.rows), run.steps[0]
    trainer._gradients(trainer._prepare(first, texts), 1 / len(first), torch.zeros((), device=DEVICE))
    found = {name: view.double().cpu() for name, view in trainer.moved.views(trainer.gradient)}
    trainer.moved.drop_gradients()
    return found, [trainer.step(step, texts, rate).loss for step, rate in zip(run.steps, run.rates, strict=True)]


def _report(seen: dict[str, Seen]) -> list[float]:
    """Prints the table; the errors of the gradients, in its order."""
    errors: list[float] = []
    (exact, curve), *_ = seen.values()
    whole = torch.cat([exact[name].reshape(-1) for name in sorted(exact)])
    print("| trainer | gradient's error | cosine | losses' largest distance | mean distance | first, last loss |")
    print("|---|---:|---:|---:|---:|---|")
    for name, (gradients, losses) in seen.items():
        found = torch.cat([gradients[key].reshape(-1) for key in sorted(exact)])
        error = float((found - whole).norm() / whole.norm())
        errors.append(error)
        cosine = float(torch.nn.functional.cosine_similarity(found, whole, dim=0))
        far = [abs(one - other) for one, other in zip(losses, curve, strict=True)]
        print(
            f"| {name} | {error:.2e} | {cosine:.6f} | {max(far):.2e} | {sum(far) / len(far):.2e} "
            f"| {losses[0]:.4f}, {losses[-1]:.4f} |"
        )
    print("CURVES " + json.dumps({name: [round(loss, 5) for loss in losses] for name, (_, losses) in seen.items()}))
    return errors


if __name__ == "__main__":
    raise SystemExit(main())
