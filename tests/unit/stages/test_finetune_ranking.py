"""Learning a ranking: the scores of a training set, the loss towards them, and the presets that ask for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from unit.stages import rounding
from unit.stages.scored import ranking_losses, score_lines, scored
from unit.stages.tiny_models import make_bert, make_llama, run_stage, write_topics

from embedding_stages.contract import Artefact, ExitCode, Stage, StageResult
from embedding_stages.encoder.description import describe_model
from embedding_stages.encoder.model import PaddedEncoder
from embedding_stages.encoder.tokens import TextTokenizer
from embedding_stages.errors import BadInput
from embedding_stages.finetune.batches import Example
from embedding_stages.finetune.dataset import load_training_set
from embedding_stages.finetune.loss import example_losses, ranking_loss, tables_of
from embedding_stages.finetune.stage import work
from embedding_stages.finetune.trainer import Trainer
from embedding_stages.formats.training_set import read_training_set

SETTINGS = {"globalBatchSize": 8, "learningRate": 3e-3, "negativesPerQuery": 3}
CONFIG = {"hidden_size": 32, "num_hidden_layers": 2}  # of the tiny models
RECORD = {"query": "ask1", "positive": "p1", "negatives": ["p2", "p3"]}
SCORES = [0.5, 0.25, 0.125]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("workspace")
    make_bert(root / "bert")
    make_llama(root / "llama")
    write_topics(root / "set")
    score_lines(write_topics(root / "scored"))
    return root


@pytest.fixture(scope="module")
def tokenizer(workspace: Path) -> TextTokenizer:
    folder = workspace / "bert"
    return TextTokenizer.load(folder, describe_model(folder, prefixes=None, max_tokens=None))


def write_set(folder: Path, records: list[Any]) -> Path:
    passages = [{"id": f"p{number}", "text": f"key{number}"} for number in range(1, 5)]
    for name, lines in (("train.jsonl", records), ("passages.jsonl", passages)):
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_scores_are_cut_with_the_negatives(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    records = [RECORD | {"scores": [0.5, 1, -0.25]}, RECORD | {"negatives": ["p2"], "scores": [0.5, 0.25]}]
    write_set(tmp_path, records)
    for most, expected in ((1, [(0.5, 1.0), (0.5, 0.25)]), (4, [(0.5, 1.0, -0.25), (0.5, 0.25)])):
        data = load_training_set(tmp_path, tokenizer, negatives_per_query=most)
        assert data.scored
        assert [example.scores for example in data.examples] == expected
    assert not load_training_set(tmp_path, tokenizer, negatives_per_query=1, with_scores=False).scored


BAD_SCORES: list[tuple[str, Any, str]] = [
    ("one too few", [0.5, 0.25], "2 scores for 3 candidates; write one number a candidate"),
    ("one too many", [0.5, 0.25, 0.1, 0.1], "4 scores for 3 candidates; write one number a candidate"),
    ("none", [], "scores is not a list of numbers; write one number a candidate"),
    ("nothing", None, "scores is not a list of numbers; write one number a candidate"),
    ("one for all", 0.5, "scores is not a list of numbers; write one number a candidate"),
    ("a text among them", [0.5, "0.25", 0.1], "scores is not a list of numbers; write one number a candidate"),
    ("a truth value among them", [True, 0.5, 0.1], "scores is not a list of numbers; write one number a candidate"),
    ("no number", [0.5, float("nan"), 0.1], "scores holds nan; write finite numbers"),
    ("an infinite one", [0.5, float("-inf"), 0.1], "scores holds -inf; write finite numbers"),
    ("one that float32 does not hold", [0.5, 10**400, 0.1], "scores holds 1000.*; write finite numbers"),
]


@pytest.mark.parametrize(("sentence", "scores", "fault"), BAD_SCORES, ids=[row[0] for row in BAD_SCORES])
def test_scores_are_refused_for(sentence: str, scores: Any, fault: str, tmp_path: Path) -> None:
    good = RECORD | {"scores": SCORES}
    with pytest.raises(BadInput, match=rf"train\.jsonl:2: {fault}") as caught:
        read_training_set(write_set(tmp_path, [good, RECORD | {"scores": scores}]))
    assert caught.value.reason == "TrainingSetInvalid"


@pytest.mark.parametrize("first", [{}, {"scores": SCORES}], ids=["none first", "some first"])
def test_either_every_line_has_scores_or_none(first: dict[str, Any], tmp_path: Path) -> None:
    second = {} if first else {"scores": SCORES}
    records = [RECORD | first, RECORD | first, RECORD | second]
    with pytest.raises(BadInput, match=r"train\.jsonl:3: this line has .*; score the candidates of every line"):
        read_training_set(write_set(tmp_path, records))


@pytest.mark.parametrize("temperature", [0.02, 0.05, 1.0])
def test_the_ranking_loss_and_its_gradients_are_those_on_paper(temperature: float) -> None:
    """Also with uneven lists, and where the student has the order upside down."""
    vectors = torch.nn.functional.normalize(torch.randn(12, 16, generator=torch.Generator().manual_seed(0)), dim=1)
    vectors[7] = vectors[0]  # a student who is sure
    examples = scored([Example(query, tuple((query + step) % 12 for step in (7, 3, 1, 5))) for query in range(12)])
    here, there = vectors.clone().requires_grad_(), vectors.double().requires_grad_()
    order = list(reversed(range(12)))
    tables = [torch.from_numpy(table) for table in tables_of(examples, order)]
    losses, expected = example_losses(here[order], tables, temperature), ranking_losses(there, examples, temperature)
    limit = rounding.of_sum(16) / temperature
    torch.testing.assert_close(losses.double(), expected, rtol=0, atol=2 * limit)
    losses.sum().backward()  # type: ignore[no-untyped-call]
    expected.sum().backward()  # type: ignore[no-untyped-call]
    assert here.grad is not None
    torch.testing.assert_close(here.grad.double(), there.grad, rtol=0, atol=2 * len(examples) * limit / temperature)


def test_a_student_who_agrees_with_the_teacher_learns_nothing() -> None:
    queries = torch.tensor([[1.0, 0.0]], requires_grad=True)
    candidates = torch.tensor([[[0.6, 0.8], [0.8, 0.6], [9.0, 9.0]]])
    present, scores = torch.tensor([[True, True, False]]), torch.tensor([[0.1, 0.3, float("nan")]])  # differences count
    loss = ranking_loss(queries, candidates, present, scores, 0.05).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(loss, torch.tensor(0.0))
    torch.testing.assert_close(queries.grad, torch.zeros(1, 2), rtol=0, atol=1e-4)


@pytest.mark.parametrize("base", ["bert", "llama"])
@pytest.mark.parametrize("micro_batch", [1, 1000])
def test_gradients_are_those_on_paper_for_any_micro_batch(base: str, micro_batch: int, workspace: Path) -> None:
    plain, trained = (PaddedEncoder.load(workspace / base, device="cpu", dtype=torch.float32) for _ in range(2))
    data = load_training_set(workspace / "set", plain.tokenizer, negatives_per_query=3)
    examples = scored(data.examples)
    expected = ranking_losses(plain.vectors(data.rows), examples, 0.1).mean()
    expected.backward()  # type: ignore[no-untyped-call]
    trainer = Trainer(trained, temperature=0.1, weight_decay=0.0, micro_batch=micro_batch, texts_per_example=1)
    loss = trainer._gradients(examples, data.rows, data.lengths, weight=1.0 / len(examples))
    assert loss == pytest.approx(float(expected.detach()), rel=0, abs=rounding.of_loss(CONFIG, temperature=0.1))
    wanted, got = ({name: value.grad for name, value in one.module.named_parameters()} for one in (plain, trained))
    terms = rounding.backward_terms(CONFIG, tokens=sum(data.lengths))
    rounding.assert_same_gradients(got, wanted, terms=terms, skip="key.bias")  # softmax cancels it


def stage(workspace: Path, base: str, data: str, name: str, **changes: Any) -> tuple[int, StageResult]:
    inputs = {Artefact.BASE_MODEL: workspace / base, Artefact.TRAINING_SET: workspace / data}
    return run_stage(
        Stage.FINETUNE, work, workspace, settings=SETTINGS | changes, inputs=inputs, fingerprint=f"{name}-{base}-{data}"
    )


@pytest.mark.parametrize(
    ("preset", "data", "loss"),
    [
        ("recipe", "set", "contrastive"),
        ("recipe", "scored", "contrastive"),
        ("conservative", "scored", "ranking"),
        ("auto", "scored", "ranking"),
        ("conservative", "set", None),
        ("auto", "set", None),
    ],
)
def test_the_preset_says_which_loss_it_is(preset: str, data: str, loss: str | None, workspace: Path) -> None:
    code, result = stage(workspace, "bert", data, preset, preset=preset, epochs=1)
    if loss is None:
        assert (code, result.reason, result.field) == (
            ExitCode.BAD_INPUT, "ScoresMissing", "spec.stages.finetune.preset"
        )  # fmt: skip
        assert "its scores, or use preset recipe" in result.message
        return
    assert (code, result.details["loss"]) == (ExitCode.DONE, loss)


def test_the_recipe_learns_the_same_whether_there_are_scores_or_not(workspace: Path) -> None:
    results = [stage(workspace, "bert", data, "same", epochs=1)[1] for data in ("set", "scored")]
    assert results[0].details == results[1].details
    weights = [workspace / result.artefacts[Artefact.CHECKPOINT].path / "model.safetensors" for result in results]
    assert weights[0].read_bytes() == weights[1].read_bytes()  # the cards name two training sets


@pytest.mark.parametrize("base", ["bert", "llama"])
def test_the_stage_comes_closer_to_the_teachers_ranking(base: str, workspace: Path) -> None:
    code, result = stage(workspace, base, "scored", "closer", preset="auto", epochs=12, temperature=0.2)
    assert code == ExitCode.DONE
    assert 0 <= result.details["lastLoss"] < 0.5 * result.details["firstLoss"]
