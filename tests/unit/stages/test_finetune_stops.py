"""A run that is asked to stop while it validates: soon, and with nothing lost."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from unit.stages.test_finetune_training import context_of
from unit.stages.test_finetune_validation import run
from unit.stages.tiny_models import make_bert, write_topics

from embedding_stages.errors import Transient
from embedding_stages.finetune import validation
from embedding_stages.finetune.trainer import Trainer
from embedding_stages.finetune.validation import HeldOut


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("workspace")
    make_bert(root / "bert")
    write_topics(root / "set")
    return root


@pytest.mark.parametrize("place", ["the texts", "the ranking"])
def test_a_stop_is_seen_within_a_validation(place: str, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No pass and no portion of the ranking follows it, and the steps before are not lost."""
    whole, _ = run(workspace, "whole again", threading.Event())
    stopping, after = threading.Event(), []
    embed, rank, forward = Trainer.embed, validation.ndcg, Trainer._forward

    def asked_to_stop(self: Trainer, *arguments: Any) -> torch.Tensor:
        stopping.set()
        return embed(self, *arguments)

    def counted(self: Trainer, *arguments: Any) -> torch.Tensor:
        after.extend([1] * stopping.is_set())
        return forward(self, *arguments)

    def stopped_ranking(held_out: HeldOut, vectors: torch.Tensor, between: Any) -> float:
        stopping.set()
        return rank(held_out, vectors, between)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_forward", counted)
        if place == "the texts":
            patch.setattr(Trainer, "embed", asked_to_stop)
        else:
            patch.setattr(validation, "ndcg", stopped_ranking)
        with pytest.raises(Transient):
            run(workspace, f"stopped in {place}", stopping)
    assert not after
    assert context_of(workspace, f"validated-stopped in {place}").scratch("resume").joinpath("step-00000003").is_dir()
    resumed, _ = run(workspace, f"stopped in {place}", threading.Event())
    assert (resumed.losses, resumed.points) == (whole.losses, whole.points)
