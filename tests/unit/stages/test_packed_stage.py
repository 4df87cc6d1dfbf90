"""The finetune stage over packs: from base model to checkpoint, stopped and resumed, with resume points in between."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from unit.stages.tiny_models import make_bert, make_llama, run_stage

from embedding_stages.contract import Artefact, ExitCode, Stage
from embedding_stages.encoder.model import PaddedEncoder
from embedding_stages.encoder.packed.encoder import PackedEncoder
from embedding_stages.finetune import resume, stage, stream
from embedding_stages.finetune.packed_trainer import PackedTrainer

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SETTINGS = {"epochs": 1, "globalBatchSize": 2, "learningRate": 1e-3, "negativesPerQuery": 1}


def _packed(folder: Path, **_: Any) -> PackedEncoder:
    return PackedEncoder.load(folder, device=DEVICE, dtype=torch.float32)


@pytest.fixture
def inputs(request: pytest.FixtureRequest, tmp_path: Path) -> dict[Artefact, Path]:
    base = getattr(request, "param", make_llama)(tmp_path / "base", hidden_size=64, num_hidden_layers=1)
    topics = tmp_path / "topics"
    topics.mkdir()
    passages = [{"id": f"p{number}", "text": f"key{number}"} for number in range(4)]
    records = [
        {"query": f"ask{number}", "positive": f"p{number % 4}", "negatives": [f"p{(number + 1) % 4}"]}
        for number in range(6)
    ]
    for name, lines in (("passages.jsonl", passages), ("train.jsonl", records)):
        (topics / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return {Artefact.BASE_MODEL: base, Artefact.TRAINING_SET: topics}


def _run(workspace: Path, inputs: dict[Artefact, Path], letter: str) -> tuple[int, Any, Path]:
    name = letter * 64
    code, result = run_stage(Stage.FINETUNE, stage.work, workspace, settings=SETTINGS, inputs=inputs, fingerprint=name)
    return code, result, workspace / Stage.FINETUNE / name / Artefact.CHECKPOINT


@pytest.mark.parametrize("inputs", [make_llama, make_bert], indirect=True)
def test_from_base_model_to_checkpoint_and_the_same_after_a_stop(
    tmp_path: Path, inputs: dict[Artefact, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "load_encoder", _packed)
    code, result, whole = _run(tmp_path, inputs, "a")
    assert code == ExitCode.DONE
    assert result.counts["tokensPerPack"] >= 1024
    assert result.counts["steps"] == 3
    assert PaddedEncoder.load(whole, device="cpu").embed(["the key1"], role="passage").shape == (1, 64)

    take_step = PackedTrainer.step
    stopping: list[threading.Event] = []

    def stopped_after_two(self: PackedTrainer, *arguments: Any, **options: Any) -> Any:
        report = take_step(self, *arguments, **options)
        if self.updates == 2:
            stopping[0].set()
        return report

    def remembered(context: Any, world: Any = None) -> Any:
        stopping.append(context.stopping)
        return work(context, world)

    work = stage.work
    with monkeypatch.context() as patch:
        patch.setattr(PackedTrainer, "step", stopped_after_two)
        patch.setattr(stage, "work", remembered)
        assert _run(tmp_path, inputs, "b")[0] == ExitCode.TRANSIENT
    code, again, resumed = _run(tmp_path, inputs, "b")
    assert code == ExitCode.DONE
    assert again.details["lastLoss"] == pytest.approx(result.details["lastLoss"], rel=1e-6)
    expected, found = (load_file(folder / "model.safetensors") for folder in (whole, resumed))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0)


def test_a_resume_point_is_of_its_step_whatever_happens_while_it_is_written(
    tmp_path: Path, inputs: dict[Artefact, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = PackedTrainer(_packed(inputs[Artefact.BASE_MODEL]), temperature=0.1, weight_decay=0.01)
    before = {name: value.clone() for name, value in trainer.tensors().items()}
    write, hold = stream.write, threading.Event()

    def slow(tensors: Any, path: Path) -> None:
        assert hold.wait(30)
        write(tensors, path)

    monkeypatch.setattr(stream, "write", slow)
    background = resume.Background(tmp_path / "points", lambda *_, **__: None)
    background.save(trainer, resume.Progressed(1, {"seed": 1}, 1, [0.5]))
    trainer.master.add_(1.0)  # training goes on
    assert resume.load(tmp_path / "points", trainer, {"seed": 1}) is None, "nothing half-written is taken"
    hold.set()
    background.finish()
    found = resume.load(tmp_path / "points", trainer, {"seed": 1})
    assert found is not None
    assert found.losses == [0.5]
    for name, value in trainer.tensors().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


@pytest.mark.parametrize("kind", [OSError, RuntimeError])  # the volume's, the accelerator's
@pytest.mark.parametrize(
    ("full", "ended_by"),
    [((), None), ((1, 3), None), ((1, 2), 3), ((2, 3), 4)],
    ids=["never full", "full now and then", "full from the start", "full from the second on"],
)
def test_a_volume_that_is_full_twice_in_a_row_ends_the_run(
    full: tuple[int, ...],
    ended_by: int | None,
    kind: type[Exception],
    tmp_path: Path,
    inputs: dict[Artefact, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Full for a moment costs a resume point. What was written is looked at when the next one is due."""
    write, said = stream.write, []

    def write_if_room(tensors: Any, path: Path) -> None:
        if path.parent.name in {f"step-{step:08d}.partial" for step in full}:
            raise kind("No space left")
        write(tensors, path)

    trainer = PackedTrainer(_packed(inputs[Artefact.BASE_MODEL]), temperature=0.1, weight_decay=0.01)
    monkeypatch.setattr(stream, "write", write_if_room)
    background = resume.Background(tmp_path / "points", lambda message, **fields: said.append((message, fields)))
    for step in range(1, 5):
        if step == ended_by:
            with pytest.raises(kind, match="No space left"):
                background.save(trainer, resume.Progressed(step, {}, 1, []))
            break
        background.save(trainer, resume.Progressed(step, {}, 1, []))
    background.finish()
    assert not list((tmp_path / "points").glob("*.partial")), "half a state would take the checkpoint's room"
    assert [message for message, _ in said] == ["resume point not written"] * len(full)
    assert all("No space left" in fields["error"] for _, fields in said)


def test_weights_keep_the_digits_and_the_kinds_that_they_have_on_disk(tmp_path: Path) -> None:
    base = make_llama(tmp_path / "base", hidden_size=64, num_hidden_layers=1)
    weights = load_file(base / "model.safetensors")
    mixed = {name: value if "norm" in name else value.half() for name, value in weights.items()}
    save_file(mixed, base / "model.safetensors", metadata={"format": "pt"})
    encoder = PackedEncoder.load(base, device=DEVICE, dtype=torch.bfloat16)  # rounds more than float16 does
    encoder.save(tmp_path / "saved", encoder.master_weights())
    saved = load_file(tmp_path / "saved" / "model.safetensors")
    assert {name: value.dtype for name, value in saved.items()} == {name: value.dtype for name, value in mixed.items()}
    for name, value in mixed.items():
        torch.testing.assert_close(saved[name], value, rtol=0, atol=0, msg=name)
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["torch_dtype"] == "float16"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_streamed_file_is_safetensors(tmp_path: Path, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "_PIECE", 5)
    tensors = {"a.b": torch.randn(3, 7).to(dtype), "c": torch.randn(1).to(dtype), "none": torch.zeros(0, dtype=dtype)}
    stream.write(tensors, tmp_path / "file")
    found = load_file(tmp_path / "file")
    assert found.keys() == tensors.keys()
    for name, value in tensors.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0)
