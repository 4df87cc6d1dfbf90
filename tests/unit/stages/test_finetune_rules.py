"""The pure rules of fine-tuning: sizes, learning rates, batches, and the training set's checks."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from unit.stages.tiny_models import make_bert

from embedding_stages.contract.settings import Finetune
from embedding_stages.encoder.description import describe_model
from embedding_stages.encoder.tokens import TextTokenizer
from embedding_stages.errors import BadInput, settings_of
from embedding_stages.finetune.batches import Example, cost, examples_of_step, padded_tokens, plan_step, split
from embedding_stages.finetune.dataset import load_training_set
from embedding_stages.finetune.loss import candidate_loss
from embedding_stages.finetune.scale import auto_scale
from embedding_stages.finetune.schedule import learning_rate


@pytest.mark.parametrize(
    ("sentence", "examples", "epochs", "batch", "every", "expected"),
    [
        ("a large set keeps the default batch", 12_800, 3, 128, 100, (128, 300, 100)),
        ("exactly 2,000 examples are not small", 2000, 3, 128, 100, (128, 48, 16)),
        ("a small set gets an eighth of its size", 400, 3, 128, 100, (50, 24, 8)),
        ("the batch of a small set is at most 64", 1999, 3, 128, 100, (64, 96, 32)),
        ("and at least 16", 40, 3, 128, 100, (16, 9, 3)),
        ("a batch chosen on purpose stays", 400, 3, 32, 100, (32, 39, 13)),
        ("the last partial batch is a step too", 33, 1, 32, 100, (32, 2, 1)),
        ("an interval that fits three times stays", 12_800, 3, 128, 99, (128, 300, 99)),
        ("one example is one step an epoch", 1, 2, 128, 100, (16, 2, 1)),
    ],
)
def test_auto_scaling(
    sentence: str, examples: int, epochs: int, batch: int, every: int, expected: tuple[int, int, int]
) -> None:
    scale = auto_scale(examples=examples, epochs=epochs, global_batch=batch, checkpoint_every=every)
    assert (scale.global_batch, scale.total_steps, scale.checkpoint_every) == expected


@pytest.mark.parametrize(
    ("examples", "batch", "expected"),
    [(100, 128, 8), (2479, 128, 38), (8191, 128, 127), (100_000, 128, 128), (2479, 32, 32), (1, 128, 8)],
)
def test_an_epoch_towards_a_ranking_has_about_64_steps(examples: int, batch: int, expected: int) -> None:
    scale = auto_scale(examples=examples, epochs=1, global_batch=batch, checkpoint_every=100, ranking=True)
    assert scale.global_batch == expected
    assert not any("globalBatchSize" in warning for warning in scale.warnings)


def test_scaling_and_few_steps_are_warned_about() -> None:
    few = auto_scale(examples=400, epochs=3, global_batch=128, checkpoint_every=100)
    assert len(few.warnings) == 2
    assert "50" in few.warnings[0]
    assert "only 24 steps" in few.warnings[1]
    assert auto_scale(examples=12_800, epochs=3, global_batch=128, checkpoint_every=100).warnings == ()


@pytest.mark.parametrize(
    ("sentence", "step", "expected"),
    [
        ("warm-up starts at a tenth", 0, 0.1),
        ("and is linear", 1, 0.1 + 0.9 / 5),
        ("the peak follows warm-up", 5, 1.0),
        ("half of the cosine is the middle", 55, 0.01 + 0.99 / 2),
        ("the end is a hundredth", 105, 0.01),
        ("and nothing goes below it", 200, 0.01),
    ],
)
def test_the_learning_rate(sentence: str, step: int, expected: float) -> None:
    rate = learning_rate(step, peak=2.0, warmup_steps=5, total_steps=105)
    assert rate == pytest.approx(2.0 * expected)


def test_a_warm_up_longer_than_the_run_is_cut() -> None:
    rates = [learning_rate(step, peak=1.0, warmup_steps=50, total_steps=3) for step in range(3)]
    assert rates == pytest.approx([0.1, 0.55, 1.0])
    assert learning_rate(0, peak=1.0, warmup_steps=5, total_steps=1) == pytest.approx(1.0)


def test_every_epoch_is_another_permutation_of_all_examples() -> None:
    epochs = [
        [number for step in range(4 * epoch, 4 * epoch + 4) for number in _batch(step, seed=7)] for epoch in (0, 1)
    ]
    assert all(sorted(epoch) == list(range(25)) for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert [len(_batch(step, seed=7)) for step in range(4)] == [8, 8, 8, 1]


def test_batches_are_a_function_of_seed_and_step() -> None:
    assert _batch(5, seed=7) == _batch(5, seed=7)
    assert _batch(5, seed=7) != _batch(5, seed=8)


def _batch(step: int, *, seed: int) -> list[int]:
    return examples_of_step(step, examples=25, global_batch=8, seed=seed)


def _examples(passages: int, count: int = 16) -> tuple[list[Example], list[int]]:
    """Examples that share `passages` passages of 20 tokens; queries have 5."""
    lengths = [5] * count + [20] * passages
    examples = [
        Example(query, tuple(count + (query * 3 + offset) % passages for offset in range(5))) for query in range(count)
    ]
    return examples, lengths


@pytest.mark.parametrize("passages", [6, 20, 80])
@pytest.mark.parametrize("budget", [1, 120, 600, 100_000])
def test_a_step_plan_holds_every_example_once_and_every_part_its_texts(passages: int, budget: int) -> None:
    examples, lengths = _examples(passages)
    parts = plan_step(examples, lengths, token_budget=budget)
    assert Counter(example for part in parts for example in part.examples) == Counter(examples)
    for part in parts:
        rows = [row for group in part.groups for row in group]
        assert len(rows) == len(set(rows))
        assert set(rows) == {row for example in part.examples for row in (example.query, *example.candidates)}
        assert all(padded_tokens(group, lengths) <= budget or len(group) == 1 for group in part.groups)


def test_shared_passages_are_encoded_once_when_that_is_cheaper() -> None:
    examples, lengths = _examples(passages=6)
    parts = plan_step(examples, lengths, token_budget=100)
    assert len(parts) == 1
    assert sum(cost(part, lengths) for part in parts) < 16 * (5 + 5 * 20)  # one pass over texts that do not share


def test_texts_that_nobody_shares_are_encoded_once_in_several_parts() -> None:
    examples, lengths = _examples(passages=80)
    parts = plan_step(examples, lengths, token_budget=600)
    assert len(parts) > 1
    assert all(part.kept == frozenset(range(len(part.groups))) for part in parts)


def _realistic(count: int, seed: int) -> tuple[list[Example], list[int]]:
    """Short questions, five passages each of 60 to 512 tokens, most of them about 200."""
    draw = random.Random(seed)
    examples = [Example(6 * number, tuple(6 * number + place for place in range(1, 6))) for number in range(count)]
    lengths = [
        draw.randint(8, 40) if row % 6 == 0 else min(512, max(60, round(draw.lognormvariate(5.3, 0.5))))
        for row in range(6 * count)
    ]
    return examples, lengths


@pytest.mark.parametrize("ranks", [1, 2, 4, 8])
@pytest.mark.parametrize("seed", range(5))
def test_ranks_get_shares_of_equal_tokens(ranks: int, seed: int) -> None:
    examples, lengths = _realistic(128, seed)
    shares = split(examples, lengths, ranks)
    assert Counter(example for share in shares for example in share) == Counter(examples)
    assert shares == split(examples, lengths, ranks)
    loads = [sum(lengths[row] for example in share for row in (example.query, *example.candidates)) for share in shares]
    assert max(loads) < 1.02 * sum(loads) / ranks


def test_there_may_be_more_ranks_than_examples() -> None:
    examples, lengths = _realistic(3, seed=0)
    assert sorted(map(len, split(examples, lengths, 5))) == [0, 0, 1, 1, 1]


def test_the_loss_equals_the_one_computed_by_hand() -> None:
    queries = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    candidates = torch.tensor([[[0.8, 0.6], [0.6, 0.8], [0.0, 1.0]], [[0.6, 0.8], [1.0, 0.0], [9.0, 9.0]]])
    present = torch.tensor([[True, True, True], [True, True, False]])
    losses = candidate_loss(queries, candidates, present, temperature=0.5)
    one = math.log(math.exp(1.6) + math.exp(1.2) + math.exp(0.0)) - 1.6
    two = math.log(math.exp(1.6) + math.exp(0.0)) - 1.6
    torch.testing.assert_close(losses, torch.tensor([one, two]))


def test_another_examples_passages_do_not_matter() -> None:
    generator = torch.Generator().manual_seed(0)
    queries, candidates = torch.randn(3, 4, generator=generator), torch.randn(3, 5, 4, generator=generator)
    present = torch.ones(3, 5, dtype=torch.bool)
    together = candidate_loss(queries, candidates, present, 0.02)
    alone = [candidate_loss(queries[i : i + 1], candidates[i : i + 1], present[:1], 0.02) for i in range(3)]
    torch.testing.assert_close(together, torch.cat(alone))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    folder = make_bert(tmp_path_factory.mktemp("model"))
    return TextTokenizer.load(folder, describe_model(folder, prefixes=None, max_tokens=None))


RECORD = {"query": "ask1", "positive": "p1", "negatives": ["p2", "p3"]}
PASSAGES = [{"id": f"p{number}", "text": f"key{number}"} for number in range(1, 5)]


def write_set(folder: Path, records: list[Any], passages: list[Any]) -> Path:
    for name, lines in (("train.jsonl", records), ("passages.jsonl", passages)):
        texts = (line if isinstance(line, str) else json.dumps(line) for line in lines)
        (folder / name).write_text("".join(text + "\n" for text in texts))
    return folder


def test_a_training_set_shares_passages_and_limits_negatives(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    records = [RECORD, {"query": "ask2", "positive": "p2", "negatives": ["p1"]}, ""]
    data = load_training_set(write_set(tmp_path, records, PASSAGES), tokenizer, negatives_per_query=1)
    assert data.examples == [Example(0, (2, 3)), Example(1, (3, 2))]
    assert data.rows[2:] == tokenizer.encode(["key1", "key2"], "passage")  # p3 and p4 are in no example
    assert data.lengths == [3, 3, 3, 3]


BROKEN: list[tuple[str, list[Any], list[Any], str]] = [
    ("no records", [], PASSAGES, "TrainingSetEmpty"),
    ("no negatives", [RECORD | {"negatives": []}], PASSAGES, "NegativesMissing"),
    ("a missing positive", [RECORD | {"positive": "p9"}], PASSAGES, "PassageMissing"),
    ("a missing negative", [RECORD | {"negatives": ["p9"]}], PASSAGES, "PassageMissing"),
    ("the positive among the negatives", [RECORD | {"negatives": ["p1"]}], PASSAGES, "TrainingSetInvalid"),
    ("negatives that are no list", [RECORD | {"negatives": "p2"}], PASSAGES, "TrainingSetInvalid"),
    ("an empty query", [RECORD | {"query": " "}], PASSAGES, "TrainingSetInvalid"),
    ("a line that is no JSON", ["{"], PASSAGES, "TrainingSetInvalid"),
    ("a line that is no object", ["[]"], PASSAGES, "TrainingSetInvalid"),
    ("a passage without text", [RECORD], [{"id": "p1"}], "TrainingSetInvalid"),
]


@pytest.mark.parametrize(("sentence", "records", "passages", "reason"), BROKEN, ids=[row[0] for row in BROKEN])
def test_a_training_set_is_refused_for(
    sentence: str,
    records: list[Any],
    passages: list[Any],
    reason: str,
    tokenizer: TextTokenizer,
    tmp_path: Path,
) -> None:
    with pytest.raises(BadInput) as caught:
        load_training_set(write_set(tmp_path, records, passages), tokenizer, negatives_per_query=4)
    assert caught.value.reason == reason
    assert caught.value.message.startswith("trainingSet: ")
    assert caught.value.field.startswith("spec.stages.prep")


def test_a_missing_file_of_the_training_set_is_named(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"passages\.jsonl: it is missing"):
        load_training_set(tmp_path, tokenizer, negatives_per_query=4)


def test_settings_default_to_the_recipe() -> None:
    assert settings_of(Finetune, {}) == Finetune(
        epochs=3,
        globalBatchSize=128,
        microBatchSize=4,
        learningRate=1e-5,
        weightDecay=0.01,
        warmupSteps=5,
        temperature=0.02,
        negativesPerQuery=4,
        checkpointEverySteps=100,
        seed=42,
    )


@pytest.mark.parametrize(
    ("sentence", "name", "value"),
    [
        ("zero epochs", "epochs", 0),
        ("half an epoch", "epochs", 1.5),
        ("a negative rate", "learningRate", -1e-5),
        ("a rate as text", "learningRate", "1e-5"),
        ("a truth value", "microBatchSize", True),
    ],
)
def test_a_setting_is_refused_for(sentence: str, name: str, value: object) -> None:
    with pytest.raises(BadInput) as caught:
        settings_of(Finetune, {name: value})
    assert caught.value.field == f"spec.stages.finetune.{name}"
