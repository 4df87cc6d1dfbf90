"""Two ranks over packs against one, with adapters, a pool of in-batch negatives, and a stop. They run this file."""

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
from unit.stages.test_packed_options import CONFIG, DATA, EXAMPLES, LOSS_LIMIT, ROWS, TERMS, Case, begun
from unit.stages.tiny_models import make_llama

from embedding_stages.encoder.packed.encoder import PackedEncoder
from embedding_stages.encoder.packed.packs import Ragged
from embedding_stages.errors import Transient
from embedding_stages.finetune.in_batch import Pool
from embedding_stages.finetune.packed_lora import add_packed_adapters
from embedding_stages.finetune.packed_trainer import PackedTrainer
from embedding_stages.finetune.validation import vectors_of
from embedding_stages.finetune.world import World

CASES = {
    "adapters of one layer": Case(make_llama, CONFIG, ("layers.1.mlp.down_proj",)),
    "a pool": Case(make_llama, CONFIG, ("q_proj",), pool=True),
}
RATE = 1e-3


def trainer_of(folder: Path, case: Case, world: World | None = None) -> PackedTrainer:
    encoder = PackedEncoder.load(folder / "base", device="cpu", dtype=torch.float32)
    assert case.lora is not None
    trainer = PackedTrainer(
        encoder,
        adapters=add_packed_adapters(encoder, case.lora, seed=3),
        pool=Pool(DATA) if case.pool else None,
        temperature=0.1,
        weight_decay=0.01,
        token_budget=32,
        world=world,
    )
    flats = {"weights": trainer.master, **trainer.moments}
    state = {f"{kind}.{name}": view.clone() for kind, flat in flats.items() for name, view in trainer.moved.views(flat)}
    trainer.restore(begun(state), step=0, micro_batch=1)
    return trainer


def _rank(folder: Path) -> None:
    torch.set_num_threads(1)
    world = World.of(os.environ)
    world.join()
    report: dict[str, Any] = {}
    for name, case in CASES.items():
        trainer = trainer_of(folder, case, world)
        report[name] = [trainer.step(EXAMPLES, Ragged.of(ROWS), RATE).loss for _ in range(2)]
        if world.leads:
            torch.save({key: value.clone() for key, value in trainer.tensors().items()}, folder / f"{name}.pt")
    if world.rank == 1:  # asked to stop while it embeds for a validation

        def asked() -> None:
            raise Transient("Interrupted", "asked to stop")

        trainer._between = asked
    try:
        vectors_of(trainer, range(len(ROWS)), DATA)
    except Transient as error:
        report["stopped"] = error.reason
    (folder / f"rank-{world.rank}.json").write_text(json.dumps(report))
    world.barrier()
    os._exit(0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("packed-options-ranks")
    make_llama(root / "base", **CONFIG)
    return root


def test_two_ranks_train_as_one_and_stop_together(folder: Path) -> None:
    run_ranks(__file__, str(folder), size=2, exit_codes=[0, 0])
    reports = [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(2)]
    assert [report["stopped"] for report in reports] == ["Interrupted", "Interrupted"]
    for name, case in CASES.items():
        alone, limits = trainer_of(folder, case), rounding.TrainedLimits(TERMS)
        for step in range(2):
            loss = alone.step(EXAMPLES, Ragged.of(ROWS), RATE).loss
            limits.after_step({key: value.clone() for key, value in alone.tensors().items()}, RATE)
            for report in reports:
                assert report[name][step] == pytest.approx(loss, rel=0, abs=LOSS_LIMIT)
        limits.assert_same(torch.load(folder / f"{name}.pt", weights_only=True))


if __name__ == "__main__":
    _rank(Path(sys.argv[1]))
