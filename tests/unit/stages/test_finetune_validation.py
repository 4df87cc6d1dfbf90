"""Validation while training: what is held out, what is measured, and that the better weights are published."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from unit.stages.scored import scored
from unit.stages.test_finetune_resume_points import StopAfter
from unit.stages.test_finetune_training import SETTINGS, context_of, data_of, trainer_of, weights_of
from unit.stages.tiny_models import make_bert, run_stage, write_topics

from embedding_stages.contract import Artefact, ExitCode, Stage, StageResult
from embedding_stages.contract.settings import Finetune, Validation
from embedding_stages.errors import BadInput, Transient, settings_of
from embedding_stages.finetune import validation
from embedding_stages.finetune.batches import Example
from embedding_stages.finetune.dataset import TrainingSet
from embedding_stages.finetune.scale import auto_scale
from embedding_stages.finetune.stage import work
from embedding_stages.finetune.trainer import Trainer
from embedding_stages.finetune.training import train
from embedding_stages.finetune.validation import Course, HeldOut, curve_of, hold_out, ndcg, plan, thinned
from embedding_stages.finetune.world import World

QUERIES = [f"question {number // 2}" for number in range(40)]  # each has two lines
DATA = TrainingSet(
    rows=[[number] for number in range(70)],
    examples=[Example(number, (40 + number % 30, 40 + (number + 7) % 30)) for number in range(40)],
)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("workspace")
    make_bert(root / "bert")
    write_topics(root / "set")
    return root


@pytest.mark.parametrize(
    ("asked", "questions"),
    [
        ({}, 1),
        ({"share": 0.2}, 4),
        ({"share": 0.2, "questions": 3}, 3),
        ({"share": 0.5}, 10),
        ({"share": 0.001}, 1),
    ],
    ids=str,
)
def test_whole_questions_are_held_out_with_all_of_their_lines(asked: dict[str, Any], questions: int) -> None:
    left, held = hold_out(DATA, QUERIES, Validation(**asked), seed=42)
    texts = [{QUERIES[example.query] for example in some} for some in (left.examples, held)]
    assert len(texts[1]) == questions
    assert not texts[0] & texts[1]
    assert len(left.examples) + len(held) == len(DATA.examples)
    assert (left, held) == hold_out(DATA, QUERIES, Validation(**asked), seed=42)
    assert held != hold_out(DATA, QUERIES, Validation(**asked), seed=43)[1]


def test_one_question_is_too_few_to_hold_one_out() -> None:
    one = TrainingSet(rows=DATA.rows, examples=DATA.examples[:2])
    with pytest.raises(BadInput) as caught:
        hold_out(one, QUERIES, Validation(), seed=42)
    assert (caught.value.reason, caught.value.field) == ("TrainingSetTooSmall", "spec.stages.finetune.validation")


def planned(**changes: Any) -> HeldOut:
    settings = Finetune(validation=Validation(**{"share": 0.2, **changes}), negativesPerQuery=1)
    scale = auto_scale(examples=32, epochs=3, global_batch=8, checkpoint_every=100)
    left, held = hold_out(DATA, QUERIES, Validation(share=0.2), seed=42)
    return plan(left, held, QUERIES, settings, scale)


@pytest.mark.parametrize(("steps", "everything"), [(1, False), (2, False), (3, True), (100, True)])
def test_all_passages_are_searched_unless_that_is_too_dear(steps: int, everything: bool) -> None:
    """A step encodes 8 x 3 texts, and 30 passages may be half of those between two validations."""
    found = planned(everySteps=steps)
    assert found.everything is everything
    assert found.passages == tuple(range(40, 70)) if everything else len(found.passages) < 30
    assert all(rows <= set(found.passages) for rows in found.relevant)
    assert [len(rows) for rows in found.relevant] == [2] * 4, "positives of all of a question's lines"


def test_it_is_as_often_as_the_recipe_validates_and_after_the_last_step() -> None:
    held_out = planned()
    assert held_out.every == 4, "a third of 12 steps, which are fewer than 3 x 100"
    assert [step for step in range(15) if held_out.due(step, 14)] == [4, 8, 12, 14]


def test_ndcg_is_that_on_paper() -> None:
    held_out = HeldOut((0, 1), (frozenset({11}), frozenset({10, 12})), (10, 11, 12), True, 1, None)
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    # Query 0 ranks 10, 11, 12; query 1 ranks 12, 11, 10.
    second = 1 / torch.log2(torch.tensor(3.0))
    expected = (second + (1 + 0.5) / (1 + second)) / 2
    assert ndcg(held_out, vectors) == pytest.approx(float(expected))


@pytest.mark.parametrize(
    ("figures", "best", "goes_on"),
    [
        ([0.1], 1, True),
        ([0.1, 0.3, 0.2], 2, True),
        ([0.1, 0.3, 0.2, 0.1], 2, False),
        ([0.3, 0.3, 0.3], 1, False),
        ([0.1, 0.2, 0.1, 0.3], 4, True),
    ],
    ids=str,
)
def test_the_first_of_the_best_is_kept_and_patience_counts_from_it(
    figures: list[float], best: int, goes_on: bool
) -> None:
    course = Course(points=[(step, 1.0, figure) for step, figure in enumerate(figures, start=1)])
    assert course.best_step == best
    assert course.patient(planned(patience=2)) is goes_on
    assert course.patient(planned())
    assert course.patient(None)


@pytest.mark.parametrize(
    ("steps", "ends"), [(1, [1]), (3, [1, 2, 3]), (8, [*range(1, 9)]), (20, [3, 5, 8, 10, 13, 15, 18, 20])], ids=str
)
def test_without_a_validation_the_curve_is_of_the_loss(steps: int, ends: list[int]) -> None:
    found = curve_of(Course(losses=[float(step) for step in range(1, steps + 1)]))
    assert [step for step, _ in found] == ends
    begins = [0, *ends]
    assert [loss for _, loss in found] == [(begin + 1 + end) / 2 for begin, end in zip(begins, ends, strict=False)]


def test_a_long_curve_is_thinned_to_what_a_result_has_room_for() -> None:
    points = [(step, 1.0, 0.9 if step == 101 else 0.1) for step in range(1, 301)]
    found = thinned(Course(points=points))
    assert len(found) == 16
    assert found[0] == points[0]
    assert found[-1] == points[-1]
    assert points[100] in found
    assert thinned(Course(points=points[:16])) == points[:16]


def planted(figures: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """The validations find these figures, one after the other."""
    left = iter(figures)
    monkeypatch.setattr(validation, "ndcg", lambda *_: next(left))


def stage(workspace: Path, name: str, **changes: Any) -> tuple[int, StageResult]:
    inputs = {Artefact.BASE_MODEL: workspace / "bert", Artefact.TRAINING_SET: workspace / "set"}
    return run_stage(
        Stage.FINETUNE, work, workspace, settings=SETTINGS | changes, inputs=inputs, fingerprint=f"validation-{name}"
    )


def weights_in(workspace: Path, result: StageResult) -> dict[str, torch.Tensor]:
    return load_file(workspace / result.artefacts[Artefact.CHECKPOINT].path / "model.safetensors")


def test_of_two_checkpoints_the_better_is_published(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten steps with a validation after the fifth and the last. `after` is what each of them would publish."""
    kept: dict[int, dict[str, torch.Tensor]] = {}
    weights = Trainer.weights

    def remembered(self: Trainer) -> dict[str, torch.Tensor]:
        found = weights(self)
        kept[len(kept)] = {name: value.clone() for name, value in found.items()}
        return found

    asked = {"validation": {"share": 0.2, "everySteps": 5}, "epochs": 4}
    monkeypatch.setattr(Trainer, "weights", remembered)
    published = {}
    for name, figures in (("rises", [0.4, 0.6]), ("falls", [0.6, 0.4])):
        planted([*figures, 0.0, 0.0], monkeypatch)
        kept.clear()
        code, result = stage(workspace, name, **asked)
        assert code == ExitCode.DONE
        published[name] = weights_in(workspace, result)
        best = kept[0] if name == "falls" else kept[1]
        assert all(torch.equal(value, published[name][key]) for key, value in best.items())
        assert result.details["validation"]["bestStep"] == (5 if name == "falls" else 10)
    assert any(not torch.equal(value, published["rises"][key]) for key, value in published["falls"].items())


def test_the_result_tells_the_curve(workspace: Path) -> None:
    code, result = stage(workspace, "curve", validation={"share": 0.2, "everySteps": 4})
    assert code == ExitCode.DONE
    told = result.details["validation"]
    assert [step for step, _, _ in result.details["curve"]] == [4, 8, 12]
    assert all(0 <= found <= 1 for _, _, found in result.details["curve"])
    assert told["searched"] in ("passages", "candidates")
    assert result.counts["heldOutQuestions"] == 5
    assert result.counts["examples"] == 19
    assert any("validation asks only 5 questions" in warning for warning in result.details["warnings"])


def test_memory_that_a_validation_lacks_is_said(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def short(*_: Any) -> Any:
        raise torch.OutOfMemoryError("no memory left\nmore")

    monkeypatch.setattr(Course, "validated", short)
    code, result = stage(workspace, "short", validation={"share": 0.2, "everySteps": 4})
    assert (code, result.reason) == (ExitCode.OUT_OF_MEMORY, "GPUOutOfMemory")
    assert "leave spec.stages.finetune.validation out" in result.message


def test_ranks_that_round_otherwise_go_by_rank_0(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What they would do next, one alone, another rank would wait for."""
    summed: list[tuple[float, ...]] = []

    def with_rank_0(_: World, values: Sequence[float]) -> list[float]:
        summed.append(tuple(values))
        return [values[0] + 0.25, *values[1:]]

    trainer = trainer_of(workspace / "bert", micro_batch=2)
    trainer.world = replace(World.alone(), rank=1, size=2)
    monkeypatch.setattr(World, "sum_", lambda *_: None)
    monkeypatch.setattr(World, "any", lambda _, flag: flag)
    monkeypatch.setattr(World, "sum_numbers", with_rank_0)
    monkeypatch.setattr(validation, "ndcg", lambda *_: 0.5)
    course = Course(losses=[1.0])
    assert course.validated(planned(), trainer, DATA) == 0.25
    assert (summed, course.points) == ([(0.0, 0.0)], [(1, 1.0, 0.25)])


def test_patience_ends_the_training(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted([0.5, 0.4, 0.4, 0.9], monkeypatch)
    _, result = stage(workspace, "early", validation={"share": 0.2, "everySteps": 2, "patience": 2}, epochs=6)
    assert result.counts["steps"] == 6
    assert result.details["validation"]["bestStep"] == 2


def run(workspace: Path, name: str, stopping: threading.Event, *, ranking: bool = False) -> tuple[Course, Trainer]:
    context = context_of(workspace, f"validated-{name}")
    context.stopping = stopping
    settings = settings_of(Finetune, SETTINGS | {"validation": {"share": 0.2, "everySteps": 3}})
    assert settings.validation is not None
    trainer = trainer_of(workspace / "bert", micro_batch=2, between=context.stop_if_asked)
    data = data_of(workspace, trainer)
    queries = [record["query"] for record in map(json.loads, (workspace / "set/train.jsonl").read_text().splitlines())]
    left, held = hold_out(data, queries, settings.validation, seed=settings.seed)
    held = scored(held) if ranking else held
    scale = auto_scale(examples=len(left.examples), epochs=4, global_batch=8, checkpoint_every=2)
    return train(context, trainer, left, settings, scale, plan(left, held, queries, settings, scale)), trainer


@pytest.mark.parametrize("looks", [4, 25, 45])
def test_a_stopped_run_has_the_same_best_at_its_end(looks: int, workspace: Path) -> None:
    whole, trainer = run(workspace, "whole", threading.Event())
    with pytest.raises(Transient):
        run(workspace, f"stopped-{looks}", StopAfter(looks))
    resumed, other = run(workspace, f"stopped-{looks}", threading.Event())
    assert (resumed.losses, resumed.points, resumed.best_step) == (whole.losses, whole.points, whole.best_step)
    assert whole.best.keys() == trainer.parameters.keys()
    assert all(torch.equal(value, resumed.best[name]) for name, value in whole.best.items())
    assert all(torch.equal(value, weights_of(trainer)[name]) for name, value in weights_of(other).items())


def test_what_was_not_measured_before_a_stop_is_measured_after_it(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: Any) -> float:
        raise Transient("Interrupted", "asked to stop")

    with monkeypatch.context() as patch:
        patch.setattr(validation, "ndcg", stopped)
        with pytest.raises(Transient):
            run(workspace, "unmeasured", threading.Event())
    course, _ = run(workspace, "unmeasured", threading.Event())
    assert [step for step, _, _ in course.points] == [3, 6, 9, 12]
    assert len(course.losses) == 12
