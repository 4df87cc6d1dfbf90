"""A base model from a hub: what is downloaded, and which refusals name which field."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from unit.stages.model_hub import Hub, inputs, serving_hub
from unit.stages.test_inputs_model import COMMIT, MODEL, name_pooling, put

from embedding_stages.artefacts import digest_of_folder
from embedding_stages.contract import Artefact, ArtefactRef
from embedding_stages.inputs.model import freeze
from embedding_stages.inputs.store import Store


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    with serving_hub(tmp_path, monkeypatch) as found:
        yield found


def test_a_model_is_downloaded_without_code_and_pickles(tmp_path: Path, hub: type[Hub]) -> None:
    result = inputs(tmp_path)
    assert result["exitCode"] == 0, result
    ref = ArtefactRef(**result["artefacts"][Artefact.BASE_MODEL])
    assert {path.name for path in (tmp_path / "workspace" / ref.path).iterdir()} == {
        "config.json", "encoder.json", "model.safetensors", "tokenizer.json",
    }  # fmt: skip
    assert not any("modeling.py" in line or "pytorch_model" in line for line in hub.requests)


def test_a_module_in_a_folder_of_its_own_name_comes_along(tmp_path: Path, hub: type[Hub]) -> None:
    name_pooling(hub.folder)
    result = inputs(tmp_path)
    assert result["exitCode"] == 0, result
    downloaded = tmp_path / "workspace" / ArtefactRef(**result["artefacts"][Artefact.BASE_MODEL]).path
    assert (downloaded / "pool" / "config.json").is_file()
    kept, _ = freeze(MODEL, hub.folder, Store(tmp_path / "other"))
    assert kept.folder.name == downloaded.name, "copied or downloaded, it is the same"


def test_the_weights_of_a_dense_module_come_along(tmp_path: Path, hub: type[Hub]) -> None:
    kinds = (("Transformer", ""), ("Pooling", ""), ("Dense", "out"), ("Normalize", ""))
    modules = [{"type": f"sentence_transformers.models.{kind}", "path": path} for kind, path in kinds]
    (hub.folder / "modules.json").write_text(json.dumps(modules))
    put(hub.folder, "out/config.json", '{"in_features": 4, "out_features": 2, "bias": false}')
    header = json.dumps({"linear.weight": {"dtype": "F32", "shape": [2, 4], "data_offsets": [0, 32]}}).encode()
    (hub.folder / "out" / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(32))
    result = inputs(tmp_path)
    assert result["exitCode"] == 0, result
    downloaded = tmp_path / "workspace" / ArtefactRef(**result["artefacts"][Artefact.BASE_MODEL]).path
    assert (downloaded / "out" / "model.safetensors").is_file()
    kept, description = freeze(MODEL, hub.folder, Store(tmp_path / "other"))
    assert kept.folder.name == downloaded.name, "copied or downloaded, it is the same"
    assert description.dimensions == (2,)


def test_a_commit_that_would_be_described_otherwise_today_is_downloaded_again(tmp_path: Path, hub: type[Hub]) -> None:
    """As when an earlier release did not know a prompt of it."""
    first = inputs(tmp_path)
    folder = tmp_path / "workspace" / ArtefactRef(**first["artefacts"][Artefact.BASE_MODEL]).path
    raw = json.loads((folder / "encoder.json").read_text())
    (folder / "encoder.json").write_text(json.dumps({**raw, "prefixes": {"query": "old ", "passage": ""}}))
    [known] = (tmp_path / "workspace" / "inputs").glob("download-*.json")
    known.write_text(json.dumps({"folder": folder.name, "digest": digest_of_folder(folder)}))
    asked = len(hub.requests)
    assert inputs(tmp_path, fingerprint="other")["artefacts"] == first["artefacts"]
    assert len(hub.requests) > asked


def rewrite_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


UNUSABLE_ON_THE_HUB: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "only pickled weights": (lambda f: (f / "model.safetensors").unlink(), "BaseModelPickled", "convert them with"),
    "no weights": (
        lambda f: [(f / "model.safetensors").unlink(), (f / "pytorch_model.bin").unlink()],
        "BaseModelIncomplete",
        "add its weights",
    ),
    "an adapter's weights": (
        lambda f: [
            (f / "model.safetensors").rename(f / "adapter_model.safetensors"),
            (f / "pytorch_model.bin").unlink(),
        ],
        "BaseModelIncomplete",
        "add its weights",
    ),
    "adapters alone": (
        lambda f: [
            (f / "model.safetensors").rename(f / "adapter_model.safetensors"),
            (f / "pytorch_model.bin").unlink(),
            (f / "config.json").rename(f / "adapter_config.json"),
        ],
        "BaseModelIncomplete",
        "merge them into their base model with peft",
    ),
    "another architecture": (lambda f: rewrite_config(f, model_type="t5"), "BaseModelUnsupported", "docs/models.md"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "BaseModelIncomplete", "tokenizer.json"),
}


@pytest.mark.parametrize("name", UNUSABLE_ON_THE_HUB)
def test_no_weights_are_fetched_of_a_model_that_cannot_be_used(tmp_path: Path, hub: type[Hub], name: str) -> None:
    change, reason, said = UNUSABLE_ON_THE_HUB[name]
    change(hub.folder)
    result = inputs(tmp_path)
    assert (result["exitCode"], result["reason"], result["field"]) == (10, reason, "spec.baseModel.name"), result
    assert said in result["message"]
    assert not any("safetensors" in line or ".bin" in line for line in hub.requests)


def test_a_commit_is_downloaded_once(tmp_path: Path, hub: type[Hub]) -> None:
    first = inputs(tmp_path)
    asked = len(hub.requests)
    assert inputs(tmp_path, fingerprint="other")["artefacts"] == first["artefacts"]
    assert len(hub.requests) == asked


@pytest.mark.parametrize(
    ("name", "revision", "code", "reason", "field"),
    [
        ("team/nothing", COMMIT, 10, "BaseModelNotFound", "spec.baseModel.name"),
        ("no such/na me", COMMIT, 10, "BaseModelNotFound", "spec.baseModel.name"),
        ("team/tiny", "f" * 40, 10, "BaseModelNotFound", "spec.baseModel.source.huggingFace.revision"),
        ("team/gated", COMMIT, 10, "BaseModelForbidden", "spec.baseModel.source.huggingFace.tokenSecretRef"),
        ("team/broken", COMMIT, 20, "HubUnreachable", "spec.baseModel.source.huggingFace"),
    ],
)
def test_what_the_hub_refuses_names_the_field(
    tmp_path: Path, hub: type[Hub], name: str, revision: str, code: int, reason: str, field: str
) -> None:
    result = inputs(tmp_path, name, revision)
    assert (result["exitCode"], result["reason"], result["field"]) == (code, reason, field)


def test_a_token_opens_a_gated_model_and_is_not_printed(
    tmp_path: Path, hub: type[Hub], capfd: pytest.CaptureFixture[str]
) -> None:
    secret = tmp_path / "secrets" / "huggingface"
    secret.mkdir(parents=True)
    (secret / "token").write_text("good\n")
    assert inputs(tmp_path, "team/gated")["exitCode"] == 0
    output = capfd.readouterr()
    assert "good" not in output.out + output.err


def test_a_hub_that_is_not_there_is_tried_again(
    tmp_path: Path, hub: type[Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    result = inputs(tmp_path)
    assert (result["exitCode"], result["reason"]) == (20, "HubUnreachable")
    for other in ("spec.baseModel.source.pvc, image", "HF_ENDPOINT", "HTTPS_PROXY"):
        assert other in result["message"], "where there is no way to the hub"
