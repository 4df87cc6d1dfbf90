"""Adapters: what they train, what is saved merged and in peft's layout, and which names are refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from unit.stages import rounding
from unit.stages.tiny_families import make_gemma3
from unit.stages.tiny_models import make_bert, make_llama, run_stage, write_topics

from embedding_stages.contract import Artefact, ExitCode, Stage, StageResult
from embedding_stages.contract.settings import Lora
from embedding_stages.encoder.model import PaddedEncoder
from embedding_stages.errors import BadInput
from embedding_stages.finetune import resume
from embedding_stages.finetune.dataset import load_training_set
from embedding_stages.finetune.lora import Adapters, add_adapters
from embedding_stages.finetune.stage import work
from embedding_stages.finetune.trainer import Trainer
from embedding_stages.inputs.model import BaseModel, check
from embedding_stages.runner import StageContext

CONFIG = {"hidden_size": 32, "num_hidden_layers": 2}  # of the tiny models
TEXTS = ["the key1 of", "noise1 noise2 key7 a", "a query"]
TARGETS = {
    "bert": [(("query", "value"), 4), (("attention.output.dense",), 2), (("all-linear",), 12)],
    "llama": [(("q_proj", "v_proj"), 4), (("mlp.up_proj",), 2), (("all-linear",), 14)],
}
CASES = [(base, targets, layers) for base, rows in TARGETS.items() for targets, layers in rows]
SETTINGS: dict[str, Any] = {
    "epochs": 8, "globalBatchSize": 8, "microBatchSize": 2, "learningRate": 2e-2, "negativesPerQuery": 3,
}  # fmt: skip


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("workspace")
    make_bert(root / "bert")
    make_llama(root / "llama")
    write_topics(root / "set")
    return root


def adapted(base: Path, **asked: Any) -> tuple[PaddedEncoder, Adapters]:
    encoder = PaddedEncoder.load(base, device="cpu", dtype=torch.float32)
    return encoder, add_adapters(encoder, Lora(**{"rank": 4, "alpha": 8, **asked}), seed=1)


def trainer_of(base: Path, **asked: Any) -> Trainer:
    encoder, adapters = adapted(base, **asked)
    return Trainer(encoder, temperature=0.1, weight_decay=0.01, micro_batch=2, texts_per_example=1, adapters=adapters)


@pytest.mark.parametrize(("base", "targets", "layers"), CASES)
def test_named_layers_alone_get_adapters_and_these_alone_are_trained(
    base: str, targets: tuple[str, ...], layers: int, workspace: Path
) -> None:
    plain = PaddedEncoder.load(workspace / base, device="cpu", dtype=torch.float32)
    trainer = trainer_of(workspace / base, targets=targets)
    assert len(trainer.parameters) == 2 * layers
    assert all(name.endswith((".lora_A", ".lora_B")) for name in trainer.parameters)
    np.testing.assert_array_equal(
        trainer.encoder.embed(TEXTS, role="query"), plain.embed(TEXTS, role="query"), "they begin at zero"
    )
    data = load_training_set(workspace / "set", plain.tokenizer, negatives_per_query=3)
    for _ in range(2):
        trainer.step(data.examples[:6], data.rows, 1e-2)
    before = dict(plain.module.named_parameters())
    for name, value in trainer.encoder.module.named_parameters():
        if name in before:
            assert torch.equal(value, before[name])
            assert value.grad is None
            assert value not in trainer.optimizer.state
        else:
            assert value.dtype == torch.float32
    assert not np.allclose(trainer.encoder.embed(TEXTS, role="query"), plain.embed(TEXTS, role="query"), atol=1e-3)


@pytest.mark.parametrize("base", ["bert", "llama"])
def test_the_merged_checkpoint_gives_the_vectors_that_were_trained(base: str, workspace: Path, tmp_path: Path) -> None:
    trainer = trainer_of(workspace / base)
    data = load_training_set(workspace / "set", trainer.encoder.tokenizer, negatives_per_query=3)
    trainer.step(data.examples, data.rows, 2e-2)
    trainer.step(data.examples, data.rows, 2e-2)
    trainer.save(tmp_path, workspace / base)
    expected = trainer.encoder.embed(TEXTS, role="passage")
    found = PaddedEncoder.load(tmp_path, device="cpu", dtype=torch.float32).embed(TEXTS, role="passage")
    np.testing.assert_allclose(found, expected, rtol=0, atol=4 * rounding.of_vectors(CONFIG, expected))
    names = [load_file(folder / "model.safetensors").keys() for folder in (workspace / base, tmp_path)]
    assert names[0] == names[1]
    assert not list(tmp_path.glob("adapter_*")), "transformers would add what lies there once more"


def as_peft_reads(base: Path, folder: Path) -> PaddedEncoder:
    """The base model with what peft's documented files say: W + lora_alpha / r * B A, by the names of its layers."""
    config = json.loads((folder / "adapter_config.json").read_text())
    tensors = load_file(folder / "adapter_model.safetensors")
    encoder = PaddedEncoder.load(base, device="cpu", dtype=torch.float32)
    modules = dict(encoder.module.named_modules())
    seen = set()
    with torch.no_grad():
        for name, first in tensors.items():
            if not name.endswith(".lora_A.weight"):
                continue
            path = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            second = tensors[f"base_model.model.{path}.lora_B.weight"]
            assert first.shape[0] == second.shape[1] == config["r"]
            assert any(path == target or path.endswith(f".{target}") for target in config["target_modules"])
            layer: Any = modules[path]
            layer.weight += config["lora_alpha"] / config["r"] * second @ first
            seen.add(path)
    assert len(tensors) == 2 * len(seen)
    assert (config["peft_type"], config["bias"], config["fan_in_fan_out"]) == ("LORA", "none", False)
    return encoder


@pytest.mark.parametrize(("base", "targets", "layers"), CASES)
def test_the_adapters_beside_it_are_what_peft_reads(
    base: str, targets: tuple[str, ...], layers: int, workspace: Path, tmp_path: Path
) -> None:
    trainer = trainer_of(workspace / base, targets=targets)
    data = load_training_set(workspace / "set", trainer.encoder.tokenizer, negatives_per_query=3)
    trainer.step(data.examples, data.rows, 2e-2)
    trainer.save(tmp_path, workspace / base)
    expected = trainer.encoder.embed(TEXTS, role="query")
    found = as_peft_reads(workspace / base, tmp_path / "adapter").embed(TEXTS, role="query")
    np.testing.assert_allclose(found, expected, rtol=0, atol=4 * rounding.of_vectors(CONFIG, expected))
    assert len(json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["target_modules"]) == layers


def test_weights_keep_the_format_that_they_came_in(workspace: Path, tmp_path: Path) -> None:
    base = make_bert(tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    save_file({name: value.bfloat16() for name, value in weights.items()}, base / "model.safetensors", {"format": "pt"})
    trainer = trainer_of(base, targets=("query",))
    trainer.save(tmp_path / "saved", base)
    saved = load_file(tmp_path / "saved" / "model.safetensors")
    assert {value.dtype for value in saved.values()} == {torch.bfloat16}
    assert all(torch.equal(saved[name], value.bfloat16()) for name, value in weights.items()), "B is zero"


def test_what_no_adapter_changes_keeps_its_digits_beside_weights_in_half_precision(tmp_path: Path) -> None:
    base = make_llama(tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    mixed = {name: value + 1e-4 if "norm" in name else value.bfloat16() for name, value in weights.items()}
    save_file(mixed, base / "model.safetensors", {"format": "pt"})
    trainer_of(base, targets=("q_proj",)).save(tmp_path / "saved", base)
    saved = load_file(tmp_path / "saved" / "model.safetensors")
    assert all(saved[name].dtype == value.dtype and torch.equal(saved[name], value) for name, value in mixed.items())
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["torch_dtype"] == "bfloat16"


def test_dense_modules_stay_as_they_were_byte_for_byte(tmp_path: Path) -> None:
    """Theirs is often float32 beside layers in half precision."""
    base = make_gemma3(tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    save_file({name: value.bfloat16() for name, value in weights.items()}, base / "model.safetensors", {"format": "pt"})
    trainer_of(base).save(tmp_path / "saved", base)
    for module in ("2_Dense", "3_Dense"):
        before, after = ((folder / module / "model.safetensors").read_bytes() for folder in (base, tmp_path / "saved"))
        assert before == after
    found, expected = (PaddedEncoder.load(folder, device="cpu") for folder in (tmp_path / "saved", base))
    np.testing.assert_array_equal(found.embed(TEXTS, role="query"), expected.embed(TEXTS, role="query"))


def test_resume_points_hold_adapters_alone_and_are_exact(workspace: Path, tmp_path: Path) -> None:
    whole, stopped, resumed = (trainer_of(workspace / "bert") for _ in range(3))
    data = load_training_set(workspace / "set", whole.encoder.tokenizer, negatives_per_query=3)
    for step in range(4):
        whole.step(data.examples[step : step + 6], data.rows, 1e-2)
    for step in range(2):
        stopped.step(data.examples[step : step + 6], data.rows, 1e-2)
    resume.save(tmp_path, stopped, resume.Progressed(2, {}, 2, [0.5, 0.4]))
    assert all(".lora_" in name for name in load_file(next(tmp_path.glob("*/state.safetensors"))))
    assert resume.load(tmp_path, resumed, {}) is not None
    for step in range(2, 4):
        resumed.step(data.examples[step : step + 6], data.rows, 1e-2)
    assert all(torch.equal(value, resumed.parameters[name]) for name, value in whole.parameters.items())


def stage(workspace: Path, base: str, name: str, **changes: Any) -> tuple[int, StageResult]:
    inputs = {Artefact.BASE_MODEL: workspace / base, Artefact.TRAINING_SET: workspace / "set"}
    return run_stage(
        Stage.FINETUNE, work, workspace, settings=SETTINGS | changes, inputs=inputs, fingerprint=f"{name}-{base}"
    )


@pytest.mark.parametrize("base", ["bert", "llama"])
def test_the_stage_learns_with_adapters(base: str, workspace: Path) -> None:
    asked = {"rank": 8, "alpha": 16, "targets": ["all-linear"]}
    code, result = stage(workspace, base, "learns", lora=asked, matryoshka=[16], validation={"share": 0.2})
    assert code == ExitCode.DONE, result.message
    assert result.details["lastLoss"] < 0.8 * result.details["firstLoss"]
    checkpoint = workspace / result.artefacts[Artefact.CHECKPOINT].path
    assert PaddedEncoder.load(checkpoint, device="cpu").description.dimensions == (32, 16)
    assert (checkpoint / "adapter" / "adapter_config.json").is_file()
    assert "Trained (adapters of low rank, merged into the weights) on" in (checkpoint / "README.md").read_text()
    assert 0 < result.details["trained"] < 30_000


@pytest.mark.parametrize("name", ["acme/base", ""])
def test_the_adapters_name_the_model_that_they_were_trained_on(name: str, tmp_path: Path) -> None:
    """config.json of a published model often has the path of the model that it was made of itself."""
    base = make_bert(tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"_name_or_path": "its/ancestor"}))
    write_topics(tmp_path / "set")

    def named(context: StageContext) -> StageResult:
        told = {"name": name} if name else {}
        return work(replace(context, request=replace(context.request, base_model=told)))

    inputs = {Artefact.BASE_MODEL: base, Artefact.TRAINING_SET: tmp_path / "set"}
    settings = SETTINGS | {"epochs": 1, "lora": {}}
    code, result = run_stage(Stage.FINETUNE, named, tmp_path, settings=settings, inputs=inputs)
    assert code == ExitCode.DONE, result.message
    adapter = tmp_path / result.artefacts[Artefact.CHECKPOINT].path / "adapter"
    told = json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert told == (name or None)


@pytest.mark.parametrize(
    ("base", "targets", "unknown", "there"),
    [
        ("bert", ["q_proj", "query", "Wqkv"], "q_proj, Wqkv", "dense, key, query, value"),
        ("bert", ["word_embeddings"], "word_embeddings", "dense, key, query, value"),
        ("bert", ["uery"], "uery", "dense, key, query, value"),
        ("llama", ["query"], "query", "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"),
        ("llama", ["input_layernorm"], "input_layernorm", "down_proj"),
    ],
    ids=str,
)
def test_a_name_that_no_layer_has_is_refused_before_a_gpu_is_asked_for(
    base: str, targets: list[str], unknown: str, there: str, workspace: Path
) -> None:
    raw = {"name": "tiny", "kind": "pvc"}
    with pytest.raises(BadInput) as caught:
        check(BaseModel.of(raw, {"loraTargets": targets}), workspace / base)
    assert (caught.value.reason, caught.value.field) == ("LoraTargetUnknown", "spec.stages.finetune.lora.targets")
    assert f"no linear layer named {unknown}; give some of {there}" in caught.value.message
    with pytest.raises(BadInput, match="no linear layer named"):
        adapted(workspace / base, targets=tuple(targets))
    for accepted, _ in TARGETS[base]:
        check(BaseModel.of(raw, {"loraTargets": list(accepted)}), workspace / base)
