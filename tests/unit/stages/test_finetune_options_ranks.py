"""Two ranks that train adapters, and that validate, against one that does it alone. The ranks run this file."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from unit.stages import rounding
from unit.stages.ranks import run_ranks
from unit.stages.tiny_models import make_bert, make_llama, write_topics

from embedding_stages.contract.settings import Lora
from embedding_stages.encoder.model import PaddedEncoder
from embedding_stages.finetune.dataset import TrainingSet, load_training_set
from embedding_stages.finetune.lora import add_adapters
from embedding_stages.finetune.trainer import Trainer
from embedding_stages.finetune.validation import Course, HeldOut, vectors_of
from embedding_stages.finetune.world import World

CASES = [(base, parallelism) for base in ("bert", "llama") for parallelism in ("DDP", "FSDP")]
CONFIG = {"hidden_size": 32, "num_hidden_layers": 2}  # of the tiny models
LOSS_LIMIT = rounding.of_loss(CONFIG, temperature=0.1)
RATE = 1e-3


def trainer_of(folder: Path, base: str, world: World | None = None) -> tuple[Trainer, TrainingSet]:
    encoder = PaddedEncoder.load(folder / base, device="cpu", dtype=torch.float32)
    adapters = add_adapters(encoder, Lora(rank=4, alpha=8), seed=1)
    options: dict[str, Any] = {"temperature": 0.1, "weight_decay": 0.01, "micro_batch": 2, "texts_per_example": 1}
    trainer = Trainer(encoder, world=world, adapters=adapters, **options)
    return trainer, load_training_set(folder / "set", encoder.tokenizer, negatives_per_query=3)


def course_of(trainer: Trainer, data: TrainingSet) -> tuple[Course, torch.Tensor]:
    """Three steps with a validation after each; at the end all vectors."""
    relevant = tuple(frozenset({example.candidates[0]}) for example in data.examples[:5])
    passages = tuple(sorted({row for example in data.examples for row in example.candidates}))
    held_out = HeldOut(tuple(example.query for example in data.examples[:5]), relevant, passages, True, 1, None)
    course = Course()
    for begin in (0, 9, 18):
        course.losses.append(trainer.step(data.examples[begin : begin + 9], data.rows, RATE).loss)
        course.validated(held_out, trainer, data)
    return course, vectors_of(trainer, range(len(data.rows)), data)


def _rank(folder: Path) -> None:
    torch.set_num_threads(1)
    world = World.of(os.environ)
    world.join()
    report: dict[str, Any] = {}
    for base, parallelism in CASES:
        trainer, data = trainer_of(folder, base, replace(world, parallelism=parallelism))
        course, vectors = course_of(trainer, data)
        trainer.save(folder / f"saved-{base}-{parallelism}", folder / base, course.best or None)
        frozen = sum(value.grad is not None for value in trainer.encoder.module.parameters() if not value.requires_grad)
        report[f"{base}-{parallelism}"] = [course.losses, course.points, vectors.tolist(), frozen, len(course.best)]
    (folder / f"rank-{world.rank}.json").write_text(json.dumps(report))
    world.barrier()
    os._exit(0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("options")
    make_bert(root / "bert")
    make_llama(root / "llama")
    write_topics(root / "set")
    run_ranks(__file__, str(root), size=2, exit_codes=[0, 0])
    return root


@pytest.mark.parametrize(("base", "parallelism"), CASES)
def test_two_ranks_do_as_one(base: str, parallelism: str, folder: Path, tmp_path: Path) -> None:
    trainer, data = trainer_of(folder, base)
    course, vectors = course_of(trainer, data)
    trainer.save(tmp_path, folder / base, course.best)
    for rank in range(2):
        report = json.loads((folder / f"rank-{rank}.json").read_text())[f"{base}-{parallelism}"]
        losses, points, found, frozen, best = report
        assert losses == pytest.approx(course.losses, rel=0, abs=LOSS_LIMIT)
        assert [step for step, _, _ in points] == [1, 2, 3]
        torch.testing.assert_close(torch.tensor(found), vectors, rtol=0, atol=1e-3)
        assert frozen == 0
        assert best == (len(trainer.parameters) if rank == 0 else 0)
    saved = load_file(folder / f"saved-{base}-{parallelism}" / "adapter" / "adapter_model.safetensors")
    alone = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert saved.keys() == alone.keys()
    encoders = [PaddedEncoder.load(path, device="cpu") for path in (folder / f"saved-{base}-{parallelism}", tmp_path)]
    one, other = (torch.from_numpy(encoder.embed(["key1 the"], role="query")) for encoder in encoders)
    torch.testing.assert_close(one, other, rtol=0, atol=1e-3)


if __name__ == "__main__":
    _rank(Path(sys.argv[1]))
