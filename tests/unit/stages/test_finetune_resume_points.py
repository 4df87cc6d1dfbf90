"""A stopped run and its successor: they end where an uninterrupted run does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from unit.stages.scored import scored
from unit.stages.test_finetune_training import (
    SETTINGS,
    context_of,
    data_of,
    made,
    micro_batches,
    trainer_of,
    weights_of,
)

from embedding_stages.contract.settings import Finetune
from embedding_stages.errors import Transient, settings_of
from embedding_stages.finetune import resume
from embedding_stages.finetune.scale import auto_scale
from embedding_stages.finetune.trainer import Trainer
from embedding_stages.finetune.training import train


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("workspace"))


@pytest.fixture(autouse=True, scope="module")
def micro_batches_count() -> Iterator[None]:
    with micro_batches():
        yield


class StopAfter(threading.Event):
    """SIGTERM seen at the n-th look."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.looks = looks

    def is_set(self) -> bool:
        self.looks -= 1
        return self.looks < 0


def run_training(
    workspace: Path,
    fingerprint: str,
    stopping: threading.Event,
    damage: Callable[[Path], None] = lambda _: None,
    *,
    ranking: bool = False,
) -> tuple[list[float], Trainer]:
    context = context_of(workspace, fingerprint)
    damage(context.scratch("resume"))
    context.stopping = stopping
    settings = settings_of(Finetune, SETTINGS)
    trainer = trainer_of(workspace / "bert", micro_batch=2, between=context.stop_if_asked)
    data = data_of(workspace, trainer)
    data = replace(data, examples=scored(data.examples)) if ranking else data
    scale = auto_scale(examples=len(data.examples), epochs=4, global_batch=8, checkpoint_every=2)
    return train(context, trainer, data, settings, scale).losses, trainer


@pytest.fixture(scope="module")
def uninterrupted(workspace: Path) -> tuple[list[float], dict[str, torch.Tensor]]:
    losses, trainer = run_training(workspace, "whole", threading.Event())
    return losses, weights_of(trainer)


@pytest.mark.parametrize("looks", [0, 1, 4, 17, 40])
def test_a_stopped_run_saves_and_its_successor_ends_at_the_same_place(
    looks: int, workspace: Path, uninterrupted: tuple[list[float], dict[str, torch.Tensor]]
) -> None:
    with pytest.raises(Transient):
        run_training(workspace, f"stopped-{looks}", StopAfter(looks))
    losses, trainer = run_training(workspace, f"stopped-{looks}", threading.Event())
    assert losses == uninterrupted[0]
    assert all(torch.equal(value, uninterrupted[1][name]) for name, value in weights_of(trainer).items())


def test_a_stopped_run_towards_a_ranking_ends_at_the_same_place(workspace: Path) -> None:
    """And a resume point of a run towards the label is not one of it."""
    whole, trainer = run_training(workspace, "ranking", threading.Event(), ranking=True)
    with pytest.raises(Transient):
        run_training(workspace, "ranking-stopped", StopAfter(40), ranking=True)
    with pytest.raises(Transient):
        run_training(workspace, "label-stopped", StopAfter(40))
    for name in ("ranking-stopped", "label-stopped"):
        losses, resumed = run_training(workspace, name, threading.Event(), ranking=True)
        assert losses == whole
        assert all(torch.equal(value, trainer.parameters[name]) for name, value in weights_of(resumed).items())


def _cut_tensors(folder: Path) -> None:
    for path in folder.glob("*/state.safetensors"):
        path.write_bytes(path.read_bytes()[:-1])


def _cut_json(folder: Path) -> None:
    for path in folder.glob("*/state.json"):
        path.write_text("{")


def _half_written(folder: Path) -> None:
    for path in folder.glob("step-*"):
        path.rename(path.with_name(path.name + ".partial"))


@pytest.mark.parametrize("damage", [_cut_tensors, _cut_json, _half_written])
def test_a_damaged_resume_point_is_not_used(
    damage: Callable[[Path], None],
    workspace: Path,
    uninterrupted: tuple[list[float], dict[str, torch.Tensor]],
) -> None:
    name = f"damaged-{damage.__name__}"
    with pytest.raises(Transient):
        run_training(workspace, name, StopAfter(40))
    losses, _ = run_training(workspace, name, threading.Event(), damage)
    assert losses == uninterrupted[0]


def test_a_resume_point_of_another_run_is_not_used(workspace: Path, tmp_path: Path) -> None:
    trainer = trainer_of(workspace / "bert")
    resume.save(tmp_path, trainer, resume.Progressed(3, {"seed": 1}, 4, [0.5, 0.4, 0.3]))
    assert resume.load(tmp_path, trainer, {"seed": 2}) is None
    assert resume.load(tmp_path, trainer, {"seed": 1}) is not None


def test_only_the_newest_resume_point_is_kept(workspace: Path, tmp_path: Path) -> None:
    trainer = trainer_of(workspace / "bert")
    for step in (1, 2):
        resume.save(tmp_path, trainer, resume.Progressed(step, {}, 4, [0.5] * step))
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000002"]
    assert not list(tmp_path.rglob("*.pt"))
