"""Vectors that are trained to be cut: the loss on paper, both trainers, the stage, and what is refused before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from unit.stages import rounding
from unit.stages.scored import scored
from unit.stages.test_packed_model import CONFIG as PACKED
from unit.stages.test_packed_model import EXAMPLES, ROWS, TERMS, _packed, _padded
from unit.stages.tiny_models import make_bert, make_llama, run_stage, write_topics

from embedding_stages.contract import Artefact, ExitCode, Stage
from embedding_stages.encoder.description import description_of
from embedding_stages.encoder.model import PaddedEncoder
from embedding_stages.encoder.packed.packs import Ragged
from embedding_stages.errors import BadInput
from embedding_stages.evaluate.dimensions import cut as cut_in_evaluation
from embedding_stages.finetune.batches import Example
from embedding_stages.finetune.dataset import load_training_set
from embedding_stages.finetune.loss import cut, example_losses, tables_of
from embedding_stages.finetune.packed_trainer import PackedTrainer
from embedding_stages.finetune.stage import work
from embedding_stages.finetune.trainer import Trainer
from embedding_stages.inputs.model import BaseModel, check

SIZES = (16, 8)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("workspace")
    make_bert(root / "bert")
    make_llama(root / "llama", **PACKED)
    write_topics(root / "set")
    return root


def losses_on_paper(vectors: torch.Tensor, examples: list[Example], sizes: tuple[int, ...]) -> torch.Tensor:
    """float64, one an example: the mean over the sizes of -log softmax(cosine / 0.1) of the positive."""
    found = []
    for example in examples:
        of_sizes = []
        for size in (vectors.shape[1], *sizes):
            short = vectors.double()[:, :size]
            short = short / short.norm(dim=1, keepdim=True) if size < vectors.shape[1] else short
            cosines = short[list(example.candidates)] @ short[example.query]
            of_sizes.append(-torch.log_softmax(cosines / 0.1, dim=0)[0])
        found.append(torch.stack(of_sizes).mean())
    return torch.stack(found)


def test_the_loss_is_the_mean_over_the_sizes_and_the_whole() -> None:
    vectors = torch.nn.functional.normalize(torch.randn(5, 32, generator=torch.Generator().manual_seed(0)), dim=1)
    here, there = vectors.clone().requires_grad_(), vectors.double().requires_grad_()
    tables = [torch.from_numpy(table) for table in tables_of(EXAMPLES, range(5))]
    found, expected = example_losses(here, tables, 0.1, SIZES), losses_on_paper(there, EXAMPLES, SIZES)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=2 * rounding.of_sum(32) / 0.1)
    found.sum().backward()  # type: ignore[no-untyped-call]
    expected.sum().backward()  # type: ignore[no-untyped-call]
    assert here.grad is not None
    torch.testing.assert_close(here.grad.double(), there.grad, rtol=0, atol=8 * rounding.of_sum(32) / 0.1**2)


def test_a_ranking_is_learned_in_every_size_too() -> None:
    vectors = torch.nn.functional.normalize(torch.randn(5, 32, generator=torch.Generator().manual_seed(0)), dim=1)
    tables = [torch.from_numpy(table) for table in tables_of(scored(EXAMPLES), range(5))]
    each = [example_losses(some, tables, 0.1) for some in (vectors, cut(vectors, 16), cut(vectors, 8))]
    torch.testing.assert_close(example_losses(vectors, tables, 0.1, SIZES), torch.stack(each).mean(dim=0))


def test_training_cuts_as_the_evaluation_does() -> None:
    vectors = torch.nn.functional.normalize(torch.randn(5, 32, generator=torch.Generator().manual_seed(0)), dim=1)
    np.testing.assert_allclose(cut(vectors, 8).numpy(), cut_in_evaluation(vectors.numpy(), 8), rtol=0, atol=1e-6)


@pytest.mark.parametrize("micro_batch", [1, 1000])
def test_gradients_are_those_on_paper_for_any_micro_batch(micro_batch: int, workspace: Path) -> None:
    plain, trained = (PaddedEncoder.load(workspace / "bert", device="cpu", dtype=torch.float32) for _ in range(2))
    data = load_training_set(workspace / "set", plain.tokenizer, negatives_per_query=3)
    losses_on_paper(plain.vectors(data.rows), data.examples, SIZES).mean().backward()  # type: ignore[no-untyped-call]
    trainer = Trainer(
        trained, temperature=0.1, weight_decay=0.0, micro_batch=micro_batch, texts_per_example=1, sizes=SIZES
    )
    trainer._gradients(data.examples, data.rows, data.lengths, weight=1.0 / len(data.examples))
    wanted, got = ({name: value.grad for name, value in one.module.named_parameters()} for one in (plain, trained))
    terms = rounding.backward_terms({"hidden_size": 32, "num_hidden_layers": 2}, tokens=sum(data.lengths))
    rounding.assert_same_gradients(got, wanted, terms=terms, skip="key.bias")  # softmax cancels it


@pytest.mark.parametrize("budget", [32, 1024], ids=["several packs", "one pack"])
def test_gradients_of_packs_are_those_on_paper(workspace: Path, budget: int) -> None:
    padded, encoder = _padded(workspace / "llama"), _packed(workspace / "llama")
    losses_on_paper(padded.vectors(ROWS), EXAMPLES, SIZES).mean().backward()  # type: ignore[no-untyped-call]
    trainer = PackedTrainer(encoder, temperature=0.1, weight_decay=0.01, token_budget=budget, sizes=SIZES)
    trainer._agreed_gradients(EXAMPLES, Ragged.of(ROWS), weight=1 / len(EXAMPLES))
    wanted = {name: value.grad for name, value in padded.module.named_parameters()}
    rounding.assert_same_gradients(dict(encoder.model.on_disk(trainer.gradient)), wanted, terms=TERMS)


def stage(workspace: Path, fingerprint: str, **changes: Any) -> Path:
    settings = {"epochs": 6, "globalBatchSize": 8, "learningRate": 3e-3, "negativesPerQuery": 3, "temperature": 0.05}
    inputs = {Artefact.BASE_MODEL: workspace / "bert", Artefact.TRAINING_SET: workspace / "set"}
    code, result = run_stage(
        Stage.FINETUNE, work, workspace, settings=settings | changes, inputs=inputs, fingerprint=fingerprint
    )
    assert code == ExitCode.DONE
    return workspace / result.artefacts[Artefact.CHECKPOINT].path


@pytest.mark.parametrize("side", ["both", "query"])
@pytest.mark.parametrize(
    ("asked", "offered"), [([], (32,)), ([8, 16], (32, 16, 8)), ([32, 8, 8], (32, 8)), ([32], (32,))], ids=str
)
def test_the_checkpoint_offers_what_was_trained(
    asked: list[int], offered: tuple[int, ...], side: str, workspace: Path
) -> None:
    name = f"offers-{side}-{'-'.join(map(str, asked))}"
    checkpoint = stage(workspace, name, matryoshka=asked, epochs=1, side=side)
    assert description_of(checkpoint).dimensions == offered


def test_cut_vectors_learn_to_tell_apart(workspace: Path) -> None:
    """The loss of vectors cut to 8 numbers, trained for them and not."""
    losses = {}
    for asked in ((), (8,)):
        checkpoint = stage(workspace, f"learns-{len(asked)}", matryoshka=list(asked))
        encoder = PaddedEncoder.load(checkpoint, device="cpu")
        data = load_training_set(workspace / "set", encoder.tokenizer, negatives_per_query=3)
        tables = [torch.from_numpy(table) for table in tables_of(data.examples, range(len(data.rows)))]
        with torch.inference_mode():
            losses[asked] = float(example_losses(cut(encoder.vectors(data.rows), 8), tables, 0.05).mean())
    assert losses[8,] < 0.9 * losses[()]


@pytest.mark.parametrize("sizes", [[33], [8, 64, 40]], ids=str)
def test_sizes_above_the_hidden_size_are_refused_before_a_gpu_is_asked_for(sizes: list[int], workspace: Path) -> None:
    raw = {"name": "tiny", "kind": "pvc"}
    check(BaseModel.of(raw, {"matryoshka": [32, 8]}), workspace / "bert")
    with pytest.raises(BadInput) as caught:
        check(BaseModel.of(raw, {"matryoshka": sizes}), workspace / "bert")
    assert (caught.value.reason, caught.value.field) == ("MatryoshkaTooLarge", "spec.stages.finetune.matryoshka")
    assert "leave out what is above 32" in caught.value.message
