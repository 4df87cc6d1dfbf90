"""Adapters that the stage publishes, as peft itself loads them, and the names of layers as peft resolves them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from transformers import AutoModel
from unit.stages.tiny_models import MAKERS, run_stage, write_topics

from embedding_stages.contract import Artefact, ExitCode, Stage
from embedding_stages.contract.settings import Lora
from embedding_stages.encoder.model import PaddedEncoder
from embedding_stages.finetune.lora import add_adapters
from embedding_stages.finetune.stage import work

TEXTS = ["the key1 of", "noise1 noise2 key7 a", "ask3", "noise9 " * 12]
ENCODE: dict[Any, str] = {"query": "encode_query", "passage": "encode_document"}
# A pooler is a linear layer for peft. It is behind the states that vectors are made of, so nothing trains it here.
POOLER = "pooler.dense"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model of every family, as `finetune` publishes one: a Llama says in its files that it sees both ways."""
    root = tmp_path_factory.mktemp("peft")
    write_topics(root / "set")
    for name, make in MAKERS.items():
        PaddedEncoder.load(make(root / "made" / name), device="cpu", dtype=torch.float32).save(root / name)
    return root


def trained(workspace: Path, name: str, targets: list[str]) -> Path:
    """The checkpoint that the stage publishes."""
    settings = {
        "epochs": 6, "globalBatchSize": 8, "microBatchSize": 4, "learningRate": 2e-2, "negativesPerQuery": 3,
        "lora": {"rank": 4, "alpha": 12, "targets": targets},
    }  # fmt: skip
    inputs = {Artefact.BASE_MODEL: workspace / name, Artefact.TRAINING_SET: workspace / "set"}
    fingerprint = f"{name}-{'-'.join(targets)}"
    code, result = run_stage(Stage.FINETUNE, work, workspace, settings=settings, inputs=inputs, fingerprint=fingerprint)
    assert code == ExitCode.DONE, result.message
    return workspace / result.artefacts[Artefact.CHECKPOINT].path


@contextmanager
def peft_warns_of_nothing() -> Iterator[None]:
    """Of adapters that it misses, layers that it does not find; but it calls a method that transformers renames."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing")
        yield


def loaded(base: Path, adapter: Path) -> Any:
    with peft_warns_of_nothing():
        return PeftModel.from_pretrained(AutoModel.from_pretrained(base), str(adapter))


def cosines(one: Any, other: Any) -> Any:
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return (one * other).sum(axis=1) / norms


@pytest.mark.parametrize("name", MAKERS)
def test_peft_gives_the_vectors_of_the_merged_checkpoint(name: str, workspace: Path) -> None:
    checkpoint = trained(workspace, name, ["all-linear"])
    model = SentenceTransformer(str(workspace / name), device="cpu", local_files_only=True)
    before = {role: getattr(model, encode)(TEXTS) for role, encode in ENCODE.items()}
    model[0].model = loaded(workspace / name, checkpoint / "adapter")
    merged = PaddedEncoder.load(checkpoint, device="cpu", dtype=torch.float32)
    for role, encode in ENCODE.items():
        expected = merged.embed(TEXTS, role=role)
        assert cosines(getattr(model, encode)(TEXTS), expected).min() > 1 - 1e-6
        assert cosines(before[role], expected).min() < 0.99, "the adapters change the vectors"


@pytest.mark.parametrize("name", MAKERS)
def test_peft_merges_to_the_same_weights(name: str, workspace: Path) -> None:
    checkpoint = trained(workspace, name, ["all-linear"])
    merged = dict(loaded(workspace / name, checkpoint / "adapter").merge_and_unload().named_parameters())
    ours = load_file(checkpoint / "model.safetensors")
    base = load_file(workspace / name / "model.safetensors")
    changed = [key for key, value in base.items() if not torch.equal(value, ours[key])]
    assert changed
    for key in changed:
        torch.testing.assert_close(merged[key.removeprefix("model.")], ours[key], rtol=0, atol=1e-6)


# Names of layers by family: one, a part of a path, one that a pooler has as well, and all.
NAMES = {
    "bert": [["query", "value"], ["attention.output.dense"], ["dense"], ["1.intermediate.dense"], ["all-linear"]],
    "roberta": [["key"], ["dense"], ["all-linear"]],
    "mpnet": [["attn.q"], ["o"], ["dense"], ["all-linear"]],
    "modernbert": [["Wqkv"], ["Wo"], ["mlp.Wo", "Wi"], ["all-linear"]],
    "llama_bidirectional": [["q_proj", "v_proj"], ["mlp.up_proj"], ["all-linear"]],
    "ministral3_bidirectional": [["o_proj"], ["all-linear"]],
    "qwen3": [["q_proj", "k_proj"], ["self_attn.o_proj"], ["layers.1.mlp.down_proj"], ["all-linear"]],
    "gemma3_text": [["gate_proj"], ["all-linear"]],
}


def adapted_by_peft(model: Any) -> set[str]:
    paths = [path for path, _ in model.named_modules() if path.endswith(".lora_A")]
    return {path.removeprefix("base_model.model.").removesuffix(".lora_A") for path in paths}


def adapted_by_us(folder: Path, targets: list[str]) -> set[str]:
    encoder = PaddedEncoder.load(folder, device="cpu", dtype=torch.float32)
    return set(add_adapters(encoder, Lora(rank=2, targets=tuple(targets)), seed=1).paths)


@pytest.mark.parametrize(("name", "targets"), [(name, each) for name, rows in NAMES.items() for each in rows])
def test_a_name_means_the_layers_that_it_means_to_peft(name: str, targets: list[str], workspace: Path) -> None:
    meant: Any = targets if targets != ["all-linear"] else "all-linear"
    with peft_warns_of_nothing():
        model = get_peft_model(
            AutoModel.from_pretrained(workspace / name),
            LoraConfig(r=2, target_modules=meant, task_type="FEATURE_EXTRACTION"),
        )
    assert adapted_by_us(workspace / name, targets) == adapted_by_peft(model) - {POOLER}


@pytest.mark.parametrize(("name", "targets"), [("bert", ["dense"]), ("mpnet", ["dense"]), ("qwen3", ["q_proj"])])
def test_what_is_published_names_the_trained_layers_alone(name: str, targets: list[str], workspace: Path) -> None:
    """`dense` is a pooler's too: peft would look for adapters of it, and warn that they are missing."""
    checkpoint = trained(workspace, name, targets)
    model = loaded(workspace / name, checkpoint / "adapter")
    assert adapted_by_peft(model) == adapted_by_us(workspace / name, targets)
    for path, value in load_file(checkpoint / "adapter" / "adapter_model.safetensors").items():
        stem, _, end = path.rpartition(".")
        torch.testing.assert_close(dict(model.named_parameters())[f"{stem}.default.{end}"], value, rtol=0, atol=0)


def test_what_peft_saves_has_our_names(workspace: Path, tmp_path: Path) -> None:
    checkpoint = trained(workspace, "bert", ["all-linear"])
    loaded(workspace / "bert", checkpoint / "adapter").save_pretrained(tmp_path)
    ours, theirs = (load_file(folder / "adapter_model.safetensors") for folder in (checkpoint / "adapter", tmp_path))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    said, written = (
        json.loads((folder / "adapter_config.json").read_text()) for folder in (checkpoint / "adapter", tmp_path)
    )
    paths = {json.dumps(sorted(config.pop("target_modules"))) for config in (said, written)}
    assert len(paths) == 1
    assert {key: written[key] for key in said} == said | {"base_model_name_or_path": written["base_model_name_or_path"]}
