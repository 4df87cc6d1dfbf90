"""Two ranks that train together against one that trains alone. The ranks run this file, see `_rank`."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from unit.stages import rounding
from unit.stages.ranks import run_ranks
from unit.stages.scored import scored
from unit.stages.tiny_models import make_bert, make_llama, write_topics

from embedding_stages.encoder.model import PaddedEncoder
from embedding_stages.errors import StageError, Transient
from embedding_stages.finetune import resume
from embedding_stages.finetune.batches import examples_of_step
from embedding_stages.finetune.dataset import TrainingSet, load_training_set
from embedding_stages.finetune.sharding import local
from embedding_stages.finetune.trainer import Trainer
from embedding_stages.finetune.world import World, buckets

STEPS = 6
BATCH = 9  # 24 examples: the third step of an epoch is smaller, shares are uneven
BASES = ("bert", "llama")
CASES = [(base, parallelism) for base in BASES for parallelism in ("DDP", "FSDP")]
IDENTITY = {"seed": 1}
RATE = 1e-3
CONFIG = {"hidden_size": 32, "num_hidden_layers": 2}  # of the tiny models
LOSS_LIMIT = rounding.of_loss(CONFIG, temperature=0.1)
NO_GRADIENT = "key.bias"  # softmax cancels it: its gradient is rounding alone, which AdamW makes full updates of
Report = dict[str, Any]


def trainer_of(folder: Path, base: str, world: World | None = None, **changes: Any) -> tuple[Trainer, TrainingSet]:
    encoder = PaddedEncoder.load(folder / base, device="cpu", dtype=torch.float32)
    options: dict[str, Any] = {"temperature": 0.1, "weight_decay": 0.01, "micro_batch": 2, "texts_per_example": 1}
    trainer = Trainer(encoder, world=world, **options | changes)
    return trainer, load_training_set(folder / "set", encoder.tokenizer, negatives_per_query=3)


def towards_a_ranking(folder: Path, world: World | None = None) -> tuple[Trainer, TrainingSet]:
    trainer, data = trainer_of(folder, "bert", world)
    return trainer, replace(data, examples=scored(data.examples))


def run_steps(
    trainer: Trainer, data: TrainingSet, steps: range, limits: rounding.TrainedLimits | None = None
) -> list[float]:
    losses = []
    for step in steps:
        chosen = examples_of_step(step, examples=24, global_batch=BATCH, seed=3)
        losses.append(trainer.step([data.examples[i] for i in chosen], data.rows, RATE).loss)
        if limits:
            limits.after_step(trainer.tensors(), RATE)
    return losses


# --- what a rank does -------------------------------------------------------------------------------------------------


def _rank(folder: Path) -> None:
    """Do every case in turn and write what was seen to <folder>/rank-<rank>.json."""
    torch.set_num_threads(1)
    world = World.of(os.environ)
    world.join()
    report: Report = {"sums": _sums(world)}
    for base, parallelism in CASES:
        here = replace(world, parallelism=parallelism)
        report[f"curve-{base}-{parallelism}"] = _curve(folder, base, here)
    for parallelism in ("DDP", "FSDP"):
        here = replace(world, parallelism=parallelism)
        report[f"memory-{parallelism}"] = _short_memory_on_rank_1(folder, here)
        report[f"stop-{parallelism}"] = _stop_on_rank_1(folder, here)
        report[f"resumed-{parallelism}"] = _resumed(folder, here)
        report[f"sizes-{parallelism}"] = run_steps(*trainer_of(folder, "bert", here, sizes=(16, 8)), range(3))
        report[f"ranking-{parallelism}"] = run_steps(*towards_a_ranking(folder, here), range(3))
    sharded = replace(world, parallelism="FSDP")
    trainer, data = trainer_of(folder, "llama", sharded, bfloat16=True)
    report["bfloat16"] = run_steps(trainer, data, range(3))
    report["dtypes"] = sorted({str(value.dtype) for value in trainer._state().values()})
    report["held"] = sum(local(value).numel() for value in trainer._state().values())
    report["all"] = sum(value.numel() for value in trainer._state().values())
    world.meet("report")
    if not world.leads:
        (folder / "rank-1.json").write_text(json.dumps(report))
        os._exit(3)  # leaves the other alone
    try:
        world.barrier()
    except Transient as error:
        report["lost"] = error.reason
    (folder / "rank-0.json").write_text(json.dumps(report))
    os._exit(0)


def _sums(world: World) -> list[Any]:
    one, two = torch.full((3, 2), float(world.rank + 1)), torch.full((5,), world.rank + 0.5, dtype=torch.bfloat16)
    world.sum_([one, two])
    flags = [world.any(world.rank == 1), world.any(False)]
    return [one.flatten().tolist(), two.tolist(), flags, world.sum_number(world.rank + 0.25)]


def _curve(folder: Path, base: str, world: World) -> list[float]:
    """Train, with a resume point in the middle; rank 0 leaves the final state and the saved model."""
    name = f"{base}-{world.parallelism}"
    trainer, data = trainer_of(folder, base, world)
    losses = run_steps(trainer, data, range(3))
    resume.save(folder / f"resume-{name}", trainer, resume.Progressed(3, IDENTITY, 2, list(losses)))
    losses += run_steps(trainer, data, range(3, STEPS))
    state = trainer.tensors()
    trainer.save(folder / f"saved-{name}", folder / base)
    if world.leads:
        save_file(state, folder / f"state-{name}.safetensors")
    assert bool(state) == world.leads
    return losses


def _short_memory_on_rank_1(folder: Path, world: World) -> list[float]:
    trainer, data = trainer_of(folder, "bert", world, micro_batch=4)
    whole = trainer._encode
    limit = trainer.encoder.description.max_tokens

    def tight(rows: Any) -> torch.Tensor:
        if world.rank == 1 and len(rows) * max(map(len, rows)) > limit:
            raise torch.OutOfMemoryError("no memory left\nmore")
        return whole(rows)

    trainer._encode = tight
    losses = run_steps(trainer, data, range(2))
    return [*losses, trainer.micro_batch]


def _stop_on_rank_1(folder: Path, world: World) -> list[Any]:
    looks = iter(range(1000))

    def between() -> None:
        if world.rank == 1 and next(looks) >= 12:
            raise Transient("Interrupted", "asked")

    trainer, data = trainer_of(folder, "bert", world, between=between)
    losses: list[float] = []
    try:
        for step in range(STEPS):
            losses += run_steps(trainer, data, range(step, step + 1))
    except StageError as error:
        sizes = [float(value.grad.abs().sum()) for value in trainer.parameters.values() if value.grad is not None]
        return [error.reason, len(losses), sizes]
    return ["not stopped"]


def _resumed(folder: Path, world: World) -> list[float]:
    """Go on from what one process has left."""
    trainer, data = trainer_of(folder, "llama", world)
    earlier = resume.load(folder / "alone", trainer, IDENTITY)
    assert earlier is not None
    return [*earlier.losses, *run_steps(trainer, data, range(earlier.step, STEPS))]


# --- what is expected of them -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ranks")
    make_bert(root / "bert")
    make_llama(root / "llama")
    write_topics(root / "set")
    return root


@pytest.fixture(scope="module")
def alone(folder: Path) -> dict[str, tuple[list[float], rounding.TrainedLimits]]:
    """One process over all steps; the Llama leaves a resume point in the middle."""
    found = {}
    for base in BASES:
        trainer, data = trainer_of(folder, base)
        limits = rounding.TrainedLimits(rounding.backward_terms(CONFIG, tokens=sum(data.lengths)))
        losses = run_steps(trainer, data, range(3), limits)
        if base == "llama":
            resume.save(folder / "alone", trainer, resume.Progressed(3, IDENTITY, 2, list(losses)))
        found[base] = (losses + run_steps(trainer, data, range(3, STEPS), limits), limits)
    return found


@pytest.fixture(scope="module")
def ranks(folder: Path, alone: object) -> list[Report]:
    """What the two ranks saw."""
    run_ranks(__file__, str(folder), size=2, exit_codes=[0, 3])
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(2)]


def test_tensors_and_numbers_add_up(ranks: list[Report]) -> None:
    for rank in ranks:
        assert rank["sums"] == [[3.0] * 6, [2.0] * 5, [True, False], 1.5]


@pytest.mark.parametrize(("base", "parallelism"), CASES)
def test_two_ranks_see_the_losses_of_one(
    base: str, parallelism: str, ranks: list[Report], alone: dict[str, tuple[list[float], rounding.TrainedLimits]]
) -> None:
    for rank in ranks:
        assert rank[f"curve-{base}-{parallelism}"] == pytest.approx(alone[base][0], rel=0, abs=LOSS_LIMIT)


@pytest.mark.parametrize("parallelism", ["DDP", "FSDP"])
def test_two_ranks_train_every_size_as_one_does(parallelism: str, folder: Path, ranks: list[Report]) -> None:
    expected = run_steps(*trainer_of(folder, "bert", sizes=(16, 8)), range(3))
    for rank in ranks:
        assert rank[f"sizes-{parallelism}"] == pytest.approx(expected, rel=0, abs=LOSS_LIMIT)


@pytest.mark.parametrize("parallelism", ["DDP", "FSDP"])
def test_two_ranks_come_as_close_to_a_ranking_as_one(parallelism: str, folder: Path, ranks: list[Report]) -> None:
    expected = run_steps(*towards_a_ranking(folder), range(3))
    for rank in ranks:
        assert rank[f"ranking-{parallelism}"] == pytest.approx(expected, rel=0, abs=LOSS_LIMIT)


@pytest.mark.parametrize(("base", "parallelism"), CASES)
def test_two_ranks_end_with_the_weights_of_one(
    base: str,
    parallelism: str,
    folder: Path,
    ranks: list[Report],
    alone: dict[str, tuple[list[float], rounding.TrainedLimits]],
) -> None:
    state = load_file(folder / f"state-{base}-{parallelism}.safetensors")
    saved = PaddedEncoder.load(folder / f"saved-{base}-{parallelism}", device="cpu").module
    assert state.keys() == trainer_of(folder, base)[0].shapes().keys()
    alone[base][1].assert_same(state, skip=NO_GRADIENT)
    for name, parameter in saved.named_parameters():
        assert torch.equal(parameter, state[f"weights.{name}"])


@pytest.mark.parametrize("parallelism", ["DDP", "FSDP"])
def test_memory_short_on_one_rank_halves_the_micro_batch_of_all(
    parallelism: str, ranks: list[Report], alone: dict[str, tuple[list[float], rounding.TrainedLimits]]
) -> None:
    for rank in ranks:
        assert rank[f"memory-{parallelism}"] == pytest.approx([*alone["bert"][0][:2], 2], rel=0, abs=LOSS_LIMIT)


@pytest.mark.parametrize("parallelism", ["DDP", "FSDP"])
def test_a_rank_asked_to_stop_stops_all_at_the_same_step(parallelism: str, ranks: list[Report]) -> None:
    one, other = (rank[f"stop-{parallelism}"] for rank in ranks)
    assert one == other
    assert one[0] == "Interrupted"
    assert one[1] < STEPS
    assert one[2] == []  # no gradients are left


@pytest.mark.parametrize("parallelism", ["DDP", "FSDP"])
def test_what_one_process_left_two_go_on_with(
    parallelism: str, ranks: list[Report], alone: dict[str, tuple[list[float], rounding.TrainedLimits]]
) -> None:
    for rank in ranks:
        assert rank[f"resumed-{parallelism}"] == pytest.approx(alone["llama"][0], rel=0, abs=LOSS_LIMIT)


@pytest.mark.parametrize(("base", "parallelism"), CASES)
def test_what_two_processes_left_one_goes_on_with(
    base: str,
    parallelism: str,
    folder: Path,
    ranks: list[Report],
    alone: dict[str, tuple[list[float], rounding.TrainedLimits]],
) -> None:
    trainer, data = trainer_of(folder, base)
    earlier = resume.load(folder / f"resume-{base}-{parallelism}", trainer, IDENTITY)
    assert earlier is not None
    losses = [*earlier.losses, *run_steps(trainer, data, range(earlier.step, STEPS))]
    assert losses == pytest.approx(alone[base][0], rel=0, abs=LOSS_LIMIT)


def test_shards_in_bfloat16_keep_float32_state_half_on_each_rank(
    ranks: list[Report], alone: dict[str, tuple[list[float], rounding.TrainedLimits]]
) -> None:
    for rank in ranks:
        assert rank["bfloat16"] == pytest.approx(alone["llama"][0][:3], rel=0.05)
        assert rank["dtypes"] == ["torch.float32"]
        assert rank["held"] < 0.55 * rank["all"]


def test_a_lost_peer_is_said(ranks: list[Report]) -> None:
    assert ranks[0]["lost"] == "PeerLost"


@pytest.mark.parametrize("sizes", [(), (3,), (10,), (25,), (4, 4, 4), (1, 30, 2), (7, 3, 10, 1)])
def test_messages_hold_every_number_once_in_order(sizes: tuple[int, ...]) -> None:
    flats = [torch.arange(size, dtype=torch.float32) for size in sizes]
    groups = list(buckets(flats, 10))
    assert all(0 < sum(piece.numel() for piece in group) <= 10 for group in groups)
    joined = [value for group in groups for piece in group for value in piece.tolist()]
    assert joined == [value for flat in flats for value in flat.tolist()]


@pytest.mark.parametrize("change", [{"EFT_PARALLELISM": "TP"}, {"RANK": "one"}])
def test_a_world_that_makes_no_sense_is_refused(change: dict[str, str]) -> None:
    env = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "EFT_PARALLELISM": "FSDP"}
    assert World.of(env).sharded
    assert not World.of({}).sharded
    with pytest.raises(ValueError):  # noqa: PT011 - int's own message
        World.of(env | change)


if __name__ == "__main__":
    _rank(Path(sys.argv[1]))
