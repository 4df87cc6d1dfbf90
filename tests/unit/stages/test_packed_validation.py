"""Validation over packs: the vectors of padded batches, and the best weights in the checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from unit.stages import rounding
from unit.stages.test_packed_model import CONFIG, EXAMPLES, ROWS, _packed, _padded
from unit.stages.tiny_models import make_llama

from embedding_stages.encoder.packed.packs import Ragged
from embedding_stages.finetune import resume
from embedding_stages.finetune.dataset import TrainingSet
from embedding_stages.finetune.packed_trainer import PackedTrainer
from embedding_stages.finetune.validation import vectors_of

DATA = TrainingSet(rows=ROWS, examples=EXAMPLES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llama(tmp_path_factory.mktemp("models") / "llama", **CONFIG)


@pytest.mark.parametrize("budget", [4, 1024], ids=["several packs", "one pack"])
def test_a_validation_sees_the_vectors_of_the_model_as_it_is(budget: int, folder: Path) -> None:
    trainer = PackedTrainer(_packed(folder), temperature=0.1, weight_decay=0.01, token_budget=budget)
    with torch.inference_mode():
        expected = _padded(folder).vectors(ROWS).cpu()
    order = [3, 0, 4, 1, 2]
    found = vectors_of(trainer, order, DATA)
    limit = rounding.of_vectors(CONFIG, expected)
    torch.testing.assert_close(found, expected[order], rtol=0, atol=limit)
    assert vectors_of(trainer, [], DATA).shape == (0, 64)


def test_the_best_weights_are_kept_and_published(folder: Path, tmp_path: Path) -> None:
    trainer = PackedTrainer(_packed(folder), temperature=0.1, weight_decay=0.01, token_budget=1024)
    trainer.step(EXAMPLES, Ragged.of(ROWS), 1e-2)
    best = trainer.weights()
    trainer.step(EXAMPLES, Ragged.of(ROWS), 1e-2)
    resume.save(tmp_path / "points", trainer, resume.Progressed(2, {}, 1, [0.5, 0.4], [(1, 0.5, 0.9)], best))
    resumed = PackedTrainer(_packed(folder), temperature=0.1, weight_decay=0.01, token_budget=1024)
    found = resume.load(tmp_path / "points", resumed, {})
    assert found is not None
    assert [tuple(point) for point in found.points] == [(1, 0.5, 0.9)]
    assert all(torch.equal(value, best[name]) for name, value in found.best.items())
    assert found.best.keys() == best.keys()
    resumed.save(tmp_path / "saved", folder, found.best)
    saved = load_file(tmp_path / "saved" / "model.safetensors")
    for name, value in best.items():
        assert torch.equal(saved[name], value), name
    assert any(not torch.equal(value, best[name]) for name, value in trainer.weights().items())
