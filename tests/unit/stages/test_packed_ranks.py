"""Two ranks over packs against one. The ranks run this file, see `_rank`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    os.environ["TRITON_INTERPRET"] = "1"  # as conftest.py says to pytest

import pytest
import torch
from unit.stages import rounding
from unit.stages.ranks import run_ranks
from unit.stages.scored import scored
from unit.stages.tiny_models import make_bert, make_llama

from embedding_stages.encoder.packed.encoder import PackedEncoder
from embedding_stages.encoder.packed.packs import Ragged
from embedding_stages.finetune import resume
from embedding_stages.finetune.batches import Example
from embedding_stages.finetune.packed_trainer import PackedTrainer
from embedding_stages.finetune.world import World

ROWS = [[5, 6, 7], [9] * 20, [8], [5, 6, 9, 11], [12] * 7]
STEPS = [[Example(0, (1, 2)), Example(3, (4, 2)), Example(2, (4, 1))], [Example(3, (1, 4))]]  # then rank 1 has none
CONFIG = {"hidden_size": 64, "num_hidden_layers": 2}
LOSS_LIMIT = rounding.of_loss(CONFIG, temperature=0.1)
RATE = 1e-3
IDENTITY = {"seed": 1}
Report = dict[str, Any]


BUDGETS = [40, 4096]  # tokens: in the first step more than one pack, of which the last one alone ends in messages


def trainer_of(folder: Path, world: World | None = None) -> PackedTrainer:
    encoder = PackedEncoder.load(folder / "base", device="cpu", dtype=torch.float32)
    return PackedTrainer(encoder, temperature=0.1, weight_decay=0.01, world=world)


def run_steps(trainer: PackedTrainer, limits: rounding.TrainedLimits | None = None) -> list[float]:
    losses = []
    for examples, trainer.token_budget in zip(STEPS, BUDGETS, strict=True):
        losses.append(trainer.step(examples, Ragged.of(ROWS), RATE).loss)
        if limits:
            limits.after_step({key: value.clone() for key, value in trainer.tensors().items()}, RATE)
    return losses


def _rank(folder: Path) -> None:
    torch.set_num_threads(1)
    world = World.of(os.environ)
    world.join()
    trainer = trainer_of(folder, world)
    report: Report = {"losses": run_steps(trainer), "least": world.least(world.rank + 4)}
    resume.save(folder / "point", trainer, resume.Progressed(2, IDENTITY, 1, report["losses"]))
    if world.rank == 1:  # memory is short here alone, once
        send, left = trainer.encoder.send, [1]

        def short_of_memory(*arguments: Any) -> Any:
            if left:
                left.pop()
                raise torch.OutOfMemoryError("no room")
            return send(*arguments)

        trainer.encoder.send = short_of_memory  # type: ignore[method-assign]
    report["short"] = trainer.step(STEPS[0], Ragged.of(ROWS), RATE).loss
    report["budget"] = trainer.token_budget
    trainer.token_budget = 4096
    if world.rank == 1:  # and here in the middle of the backward pass that ends a step
        advance, once = trainer._exchange.advance, [1]

        def short_after_a_layer(ranges: int) -> None:
            advance(ranges)
            if once and ranges == 2:
                once.pop()
                raise torch.OutOfMemoryError("no room")

        trainer._exchange.advance = short_after_a_layer  # type: ignore[method-assign]
    report["late"] = trainer.step(STEPS[0], Ragged.of(ROWS), RATE).loss
    report["ranking"] = trainer.step(scored(STEPS[0]), Ragged.of(ROWS), RATE).loss
    (folder / f"rank-{world.rank}.json").write_text(json.dumps(report))
    world.barrier()
    os._exit(0)


@pytest.fixture(scope="module", params=[make_llama, make_bert])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("packed-ranks")
    request.param(root / "base", **CONFIG)
    return root


@pytest.fixture(scope="module")
def ranks(folder: Path) -> list[Report]:
    """What the two ranks saw."""
    run_ranks(__file__, str(folder), size=2, exit_codes=[0, 0])
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(2)]


def test_two_ranks_train_as_one(folder: Path, ranks: list[Report]) -> None:
    alone = trainer_of(folder)
    limits = rounding.TrainedLimits(rounding.backward_terms(CONFIG, tokens=sum(map(len, ROWS))))
    losses = run_steps(alone, limits)
    for rank in ranks:
        assert rank["losses"] == pytest.approx(losses, rel=0, abs=LOSS_LIMIT)
        assert rank["least"] == 4
    resumed = trainer_of(folder)
    assert resume.load(folder / "point", resumed, IDENTITY) is not None
    limits.assert_same(resumed.tensors(), skip="key.bias")  # whose gradient is rounding alone
    assert resumed.updates == 2

    # Memory short on one rank halves the packs of both, and the step is the same.
    third = alone.step(STEPS[0], Ragged.of(ROWS), RATE).loss
    for rank in ranks:
        assert rank["short"] == pytest.approx(third, rel=0, abs=LOSS_LIMIT)
        assert rank["budget"] == 2048

    # So it does when a part of the gradients had been summed already.
    fourth = alone.step(STEPS[0], Ragged.of(ROWS), RATE).loss
    for rank in ranks:
        assert rank["late"] == pytest.approx(fourth, rel=0, abs=LOSS_LIMIT)

    # A teacher's scores go with their examples to whichever rank computes them.
    fifth = alone.step(scored(STEPS[0]), Ragged.of(ROWS), RATE).loss
    for rank in ranks:
        assert rank["ranking"] == pytest.approx(fifth, rel=0, abs=LOSS_LIMIT)


if __name__ == "__main__":
    _rank(Path(sys.argv[1]))
