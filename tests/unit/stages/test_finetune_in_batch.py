"""In-batch negatives: the pool on paper, what is left out of it, and gradients that no cut of a step changes."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from unit.stages import rounding
from unit.stages.ranks import run_ranks
from unit.stages.tiny_models import make_bert, run_stage, write_topics

from embedding_stages.contract import Artefact, ExitCode, Stage
from embedding_stages.encoder.model import PaddedEncoder
from embedding_stages.finetune.batches import Example
from embedding_stages.finetune.dataset import TrainingSet, load_training_set
from embedding_stages.finetune.in_batch import Pool, in_batch_losses
from embedding_stages.finetune.stage import work
from embedding_stages.finetune.trainer import Trainer
from embedding_stages.finetune.world import World

CONFIG = {"hidden_size": 32, "num_hidden_layers": 2}  # of the tiny models
LOSS_LIMIT = rounding.of_loss(CONFIG, temperature=0.1)
RATE = 1e-3
# Rows 0 to 3 are queries, 0 and 3 of one text; 4 to 9 passages, 4 and 9 of one text.
DATA = TrainingSet(
    rows=[[1], [2], [3], [1], [10], [11], [12], [13], [14], [10]],
    examples=[Example(0, (4, 5)), Example(1, (6, 9)), Example(2, (7, 8, 6)), Example(3, (8, 5))],
)


def compared_on_paper(data: TrainingSet, examples: list[Example]) -> list[tuple[Example, list[int]]]:
    """Each example with the first row of each text that it is compared with, its positive's first."""
    text = [tuple(row) for row in data.rows]
    first = {}
    for row in sorted({row for example in examples for row in example.candidates}):
        first.setdefault(text[row], row)
    found = []
    for example in examples:
        same = [other for other in data.examples if text[other.query] == text[example.query]]
        positives = {text[other.candidates[0]] for other in same}
        others = [row for key, row in first.items() if key not in positives]
        found.append((example, [first[text[example.candidates[0]]], *others]))
    return found


def losses_on_paper(vectors: torch.Tensor, data: TrainingSet, examples: list[Example]) -> torch.Tensor:
    """float64, one an example."""
    losses = []
    for example, rows in compared_on_paper(data, examples):
        cosines = vectors[rows].double() @ vectors[example.query].double()
        losses.append(-torch.log_softmax(cosines / 0.1, dim=0)[0])
    return torch.stack(losses)


@pytest.mark.parametrize(
    ("examples", "compared"),
    [
        ([0, 1, 2, 3], [[4, 5, 6, 7], [6, 4, 5, 7, 8], [7, 4, 5, 6, 8], [8, 5, 6, 7]]),
        ([0], [[4, 5]]),
        ([1, 0], [[6, 4, 5], [4, 5, 6]]),
    ],
    ids=["a whole epoch", "one alone", "two"],
)
def test_a_known_positive_is_no_negative_and_a_text_counts_once(examples: list[int], compared: list[list[int]]) -> None:
    chosen = [DATA.examples[number] for number in examples]
    assert [[rows[0], *sorted(rows[1:])] for _, rows in compared_on_paper(DATA, chosen)] == compared
    vectors = torch.nn.functional.normalize(torch.randn(10, 32, generator=torch.Generator().manual_seed(0)), dim=1)
    vectors[9] = vectors[4]
    here, there = vectors.clone().requires_grad_(), vectors.double().requires_grad_()
    found = in_batch_losses(here, Pool(DATA).tables(chosen, range(10)), 0.1)
    expected = losses_on_paper(there, DATA, chosen)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=4 * rounding.of_sum(32) / 0.1)
    found.sum().backward()  # type: ignore[no-untyped-call]
    expected.sum().backward()  # type: ignore[no-untyped-call]
    assert here.grad is not None
    torch.testing.assert_close(here.grad.double(), there.grad, rtol=0, atol=8 * rounding.of_sum(32) / 0.1**2)


def trainer_of(folder: Path, world: World | None = None, **changes: Any) -> tuple[Trainer, TrainingSet]:
    encoder = PaddedEncoder.load(folder / "bert", device="cpu", dtype=torch.float32)
    data = load_training_set(folder / "set", encoder.tokenizer, negatives_per_query=3)
    options: dict[str, Any] = {"temperature": 0.1, "weight_decay": 0.01, "micro_batch": 2, "texts_per_example": 1}
    return Trainer(encoder, world=world, pool=Pool(data), **options | changes), data


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("in-batch")
    make_bert(root / "bert")
    write_topics(root / "set")
    return root


@pytest.mark.parametrize("micro_batch", [1, 3, 1000])
def test_gradients_are_those_on_paper_for_any_micro_batch(micro_batch: int, folder: Path) -> None:
    trainer, data = trainer_of(folder, micro_batch=micro_batch)
    plain = PaddedEncoder.load(folder / "bert", device="cpu", dtype=torch.float32)
    expected = losses_on_paper(plain.vectors(data.rows), data, data.examples).mean()
    expected.backward()  # type: ignore[no-untyped-call]
    loss = trainer._gradients(data.examples, data.rows, data.lengths, weight=1.0 / len(data.examples))
    assert loss == pytest.approx(float(expected.detach()), rel=0, abs=LOSS_LIMIT)
    wanted = {name: value.grad for name, value in plain.module.named_parameters()}
    got = {name: value.grad for name, value in trainer.parameters.items()}
    terms = rounding.backward_terms(CONFIG, tokens=sum(data.lengths))
    rounding.assert_same_gradients(got, wanted, terms=terms, skip="key.bias")  # softmax cancels it


def test_memory_that_is_short_does_the_step_again_in_smaller_passes(folder: Path) -> None:
    roomy, data = trainer_of(folder, micro_batch=4)
    tight, _ = trainer_of(folder, micro_batch=4)
    whole, limit = tight._encode, tight.encoder.description.max_tokens

    def encode(rows: Any) -> torch.Tensor:
        if len(rows) * max(map(len, rows)) > limit:
            raise torch.OutOfMemoryError("no memory left\nmore")
        return whole(rows)

    tight._encode = encode
    reports = [trainer.step(data.examples, data.rows, RATE) for trainer in (roomy, tight)]
    assert tight.micro_batch == 1
    assert reports[0].loss == pytest.approx(reports[1].loss, rel=0, abs=LOSS_LIMIT)


# --- several ranks: they run this file --------------------------------------------------------------------------------

PARALLELISMS = ("DDP", "FSDP")


def run_steps(trainer: Trainer, data: TrainingSet) -> list[float]:
    return [trainer.step(data.examples, data.rows, RATE).loss for _ in range(3)]


def _rank(folder: Path) -> None:
    torch.set_num_threads(1)
    world = World.of(os.environ)
    world.join()
    for parallelism in PARALLELISMS:
        trainer, data = trainer_of(folder, replace(world, parallelism=parallelism), micro_batch=4)
        whole, limit = trainer._encode, trainer.encoder.description.max_tokens
        if world.rank == 1:  # short of memory: all do the step again

            def tight(rows: Any, whole: Any = whole, limit: int = limit) -> torch.Tensor:
                if len(rows) * max(map(len, rows)) > limit:
                    raise torch.OutOfMemoryError("no memory left\nmore")
                return whole(rows)

            trainer._encode = tight
        losses = run_steps(trainer, data)
        torch.save([losses, trainer.micro_batch], folder / f"{parallelism}-{world.rank}.pt")
        state = trainer.tensors()
        if world.leads:
            torch.save(state, folder / f"state-{parallelism}.pt")
    world.barrier()
    os._exit(0)


def test_ranks_share_one_pool(folder: Path) -> None:
    trainer, data = trainer_of(folder)
    limits = rounding.TrainedLimits(rounding.backward_terms(CONFIG, tokens=sum(data.lengths)))
    expected = []
    for _ in range(3):
        expected.append(trainer.step(data.examples, data.rows, RATE).loss)
        limits.after_step(trainer.tensors(), RATE)
    run_ranks(__file__, str(folder), size=2, exit_codes=[0, 0])
    for parallelism in PARALLELISMS:
        for rank in range(2):
            losses, micro_batch = torch.load(folder / f"{parallelism}-{rank}.pt", weights_only=True)
            assert losses == pytest.approx(expected, rel=0, abs=LOSS_LIMIT)
            assert micro_batch < 4
        limits.assert_same(torch.load(folder / f"state-{parallelism}.pt", weights_only=True), skip="key.bias")


def test_the_stage_learns_with_them(folder: Path) -> None:
    settings = {
        "epochs": 8, "globalBatchSize": 8, "learningRate": 3e-3, "negativesPerQuery": 3, "temperature": 0.1,
        "inBatchNegatives": True,
    }  # fmt: skip
    inputs = {Artefact.BASE_MODEL: folder / "bert", Artefact.TRAINING_SET: folder / "set"}
    code, result = run_stage(Stage.FINETUNE, work, folder, settings=settings, inputs=inputs, fingerprint="in-batch")
    assert code == ExitCode.DONE, result.message
    assert result.details["lastLoss"] < 0.7 * result.details["firstLoss"]


if __name__ == "__main__":
    _rank(Path(sys.argv[1]))
