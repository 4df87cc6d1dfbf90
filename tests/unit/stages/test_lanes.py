"""A step that several threads share: the same update, the same in every run, and nothing left of one that failed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from unit.stages import rounding
from unit.stages.test_finetune_training import LOSS_LIMIT, NO_GRADIENT, data_of, made, terms_of, trainer_of

from embedding_stages.contract.settings import Lora
from embedding_stages.encoder import model
from embedding_stages.encoder.model import PaddedEncoder
from embedding_stages.errors import Transient
from embedding_stages.finetune import lanes, on_cpu
from embedding_stages.finetune.lora import add_adapters
from embedding_stages.finetune.trainer import Trainer

RATE = 1e-3


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("workspace"))


@pytest.fixture(autouse=True)
def _small_tables_are_kept_as_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_cpu, "_LARGE", 1)


def with_threads(monkeypatch: pytest.MonkeyPatch, threads: int, base: Path, **changes: Any) -> Trainer:
    monkeypatch.setattr(model, "usable_cpus", lambda: threads)
    if changes.pop("lora", False):
        encoder = PaddedEncoder.load(base, device="cpu", dtype=torch.float32)
        adapters = add_adapters(encoder, Lora(rank=4, alpha=8), seed=1)
        options: dict[str, Any] = {"temperature": 0.1, "weight_decay": 0.01, "micro_batch": 4, "texts_per_example": 1}
        return Trainer(encoder, adapters=adapters, **options | changes)
    return trainer_of(base, **changes)


@pytest.mark.parametrize("examples", [7, 2], ids=["a share for each", "a lane without any"])
@pytest.mark.parametrize(
    ("base", "changes"), [("bert", {}), ("llama", {}), ("llama", {"lora": True})], ids=["BERT", "Llama", "adapters"]
)
def test_three_lanes_train_as_one(
    base: str, changes: dict[str, Any], examples: int, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, three = (with_threads(monkeypatch, threads, workspace / base, **changes) for threads in (1, 3))
    assert one._lanes is None
    assert three._lanes is not None
    assert len(three._lanes) == 3
    data = data_of(workspace, one)
    limits = rounding.TrainedLimits(terms_of(data))
    for _ in range(2):
        expected = one.step(data.examples[:examples], data.rows, RATE)
        found = three.step(data.examples[:examples], data.rows, RATE)
        limits.after_step(one.tensors(), RATE)
        assert found.loss == pytest.approx(expected.loss, rel=0, abs=LOSS_LIMIT)
        assert found.tokens == expected.tokens
    limits.assert_same(three.tensors(), skip=(NO_GRADIENT, ".lora_A") if changes else NO_GRADIENT)
    assert torch.get_num_threads() == 3


def test_a_step_of_lanes_is_the_same_in_every_run(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states = []
    for _ in range(3):
        trainer = with_threads(monkeypatch, 3, workspace / "bert")
        data = data_of(workspace, trainer)
        trainer.step(data.examples[:7], data.rows, RATE)
        states.append(trainer.tensors())
    assert all(torch.equal(value, state[key]) for state in states[1:] for key, value in states[0].items())


@pytest.mark.parametrize("which", [0, 1], ids=["the first lane", "another"])
def test_a_step_that_a_lane_left_is_left_by_all(which: int, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, whole = (with_threads(monkeypatch, 2, workspace / "bert") for _ in range(2))
    data = data_of(workspace, trainer)
    assert trainer._lanes is not None
    lane = trainer._lanes._lanes[which]

    def stopped(_: Sequence[Sequence[int]]) -> torch.Tensor:
        raise Transient("Interrupted", "asked to stop")

    broken = lanes.Lane(stopped, lane.parameters)
    kept, trainer._lanes._lanes = (
        trainer._lanes._lanes,
        [broken if number == which else each for number, each in enumerate(trainer._lanes._lanes)],
    )
    before = trainer.tensors()
    with pytest.raises(Transient, match="asked to stop"):
        trainer.step(data.examples[:7], data.rows, RATE)
    assert all(value.grad is None for each in kept for value in each.parameters.values())
    assert all(torch.equal(value, before[key]) for key, value in trainer.tensors().items())
    trainer._lanes._lanes = kept
    for each in (trainer, whole):
        each.step(data.examples[:7], data.rows, RATE)
    there = whole.tensors()
    assert all(torch.equal(value, there[key]) for key, value in trainer.tensors().items())


@pytest.mark.parametrize(
    ("changes", "spare", "threads", "count"),
    [
        ({}, 2**29, 2, 2),
        ({}, 2**29, 7, 7),
        ({}, 2**29, 1, None),
        ({}, 0, 2, None),
        ({"micro_batch": 3}, 2**29, 4, None),
        ({"bfloat16": True}, 2**29, 2, 2),
        ({"bfloat16": True}, 200_000, 2, None),
        ({}, 200_000, 2, 2),
    ],
    ids=[
        "two CPUs",
        "seven",
        "one",
        "no room for a second gradient",
        "no room for a long example each",
        "bfloat16",
        "no room for weights in bfloat16",
        "room for a gradient",
    ],
)
def test_one_lane_a_cpu_or_none(
    changes: dict[str, Any],
    spare: int,
    threads: int,
    count: int | None,
    workspace: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lanes, "_SPARE", spare)
    monkeypatch.setattr(on_cpu, "TOKENS", 0)
    found = with_threads(monkeypatch, threads, workspace / "bert", **{"micro_batch": 16} | changes)._lanes
    assert (None if found is None else len(found)) == count
