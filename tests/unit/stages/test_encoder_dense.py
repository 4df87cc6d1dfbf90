"""Dense modules between pooling and length 1: what is read of them, what is refused, what travels on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from unit.stages.published import write_dense
from unit.stages.tiny_families import list_modules, make_gemma3
from unit.stages.tiny_models import make_bert, run_stage, write_topics

from embedding_stages.artefacts import digest_of_folder
from embedding_stages.contract import Artefact, ExitCode, Stage
from embedding_stages.encoder.dense import ACTIVATIONS, DenseLayer
from embedding_stages.encoder.dense_head import DenseHead
from embedding_stages.encoder.description import EncoderDescription, describe_model
from embedding_stages.encoder.model import PaddedEncoder
from embedding_stages.errors import BadInput
from embedding_stages.finetune.stage import work
from embedding_stages.inputs.model import BaseModel, freeze
from embedding_stages.inputs.store import Store

CHAIN = (("Transformer", ""), ("Pooling", "1_Pooling"), ("Dense", "2_Dense"), ("Dense", "out"), ("Normalize", "4_N"))
TANH = "torch.nn.modules.activation.Tanh"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_bert(tmp_path_factory.mktemp("models") / "bert")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    write_dense(folder / "2_Dense", (32, 48), bias=True, activation=TANH, seed=0)
    write_dense(folder / "out", (48, 24), seed=1)
    list_modules(folder, CHAIN)
    return folder


def described(folder: Path) -> EncoderDescription:
    return describe_model(folder, prefixes=None, max_tokens=None)


def test_they_are_read_in_their_order(model: Path, tmp_path: Path) -> None:
    description = described(model)
    assert description.dense == (
        DenseLayer(folder="2_Dense", in_features=32, out_features=48, bias=True, activation="tanh"),
        DenseLayer(folder="out", in_features=48, out_features=24, bias=False, activation="identity"),
    )
    assert (description.hidden_size, description.vector_size, description.dimensions) == (32, 24, (24,))
    description.save(tmp_path)
    assert EncoderDescription.load(tmp_path) == description


def test_a_model_without_them_is_described_as_before(tmp_path: Path) -> None:
    folder = make_bert(tmp_path)
    described(folder).save(folder)
    assert "dense" not in json.loads((folder / "encoder.json").read_text())
    assert EncoderDescription.load(folder).vector_size == 32


def test_dimensions_are_those_of_the_vector_not_of_the_state(tmp_path: Path) -> None:
    folder = make_gemma3(tmp_path)
    assert described(folder).dimensions == (32,)
    shutil.rmtree(folder / "3_Dense")
    write_dense(folder / "3_Dense", (64, 600), seed=0)
    assert described(folder).dimensions == (600, 512, 256, 128)


def test_their_weights_are_copied_with_the_model(model: Path, tmp_path: Path) -> None:
    kept, description = freeze(BaseModel(name="tiny", kind="pvc"), model, Store(tmp_path))
    for layer in description.dense:
        for name in ("config.json", "model.safetensors"):
            assert (kept.folder / layer.folder / name).read_bytes() == (model / layer.folder / name).read_bytes()
    assert digest_of_folder(kept.folder) == kept.digest


def test_they_are_trained_and_saved_where_they_were(model: Path, tmp_path: Path) -> None:
    encoder = PaddedEncoder.load(model, device="cpu", dtype=torch.float32)
    names = [name for name, _ in encoder.module.named_parameters() if name.startswith("dense_modules")]
    assert len(names) == 3
    encoder.vectors([[5, 6, 7]])[0, 0].backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for name, value in encoder.module.named_parameters():
            if name in names:
                assert value.grad is not None
                value.sub_(value.grad)
    encoder.save(tmp_path)
    for folder in ("2_Dense", "out"):
        old, new = (load_file(place / folder / "model.safetensors") for place in (model, tmp_path))
        assert old.keys() == new.keys()
        assert not torch.equal(old["linear.weight"], new["linear.weight"])
    assert not [name for name in load_file(tmp_path / "model.safetensors") if "dense_modules" in name]
    loaded = PaddedEncoder.load(tmp_path, device="cpu", dtype=torch.float32)
    np.testing.assert_array_equal(loaded.embed(["key1"], role="query"), encoder.embed(["key1"], role="query"))


@pytest.mark.parametrize(
    "asked",
    [
        {"inBatchNegatives": True},
        {"validation": {"share": 0.2}},
        {"lora": {}, "matryoshka": [16], "inBatchNegatives": True, "validation": {"share": 0.2}},
    ],
    ids=" ".join,
)
def test_every_way_of_training_takes_vectors_of_another_size_than_the_states(
    asked: dict[str, Any], model: Path, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(model, base)
    described(base).save(base)
    write_topics(tmp_path / "set")
    settings = {"epochs": 1, "globalBatchSize": 8, "negativesPerQuery": 3} | asked
    inputs = {Artefact.BASE_MODEL: base, Artefact.TRAINING_SET: tmp_path / "set"}
    code, result = run_stage(Stage.FINETUNE, work, tmp_path, settings=settings, inputs=inputs, fingerprint="dense")
    assert code == ExitCode.DONE, result.message


def test_they_are_computed_in_full_precision(model: Path) -> None:
    layers = described(model).dense
    head, half = (DenseHead.load(model, layers) for _ in range(2))
    assert head is not None
    assert half is not None
    vectors = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    found = half.to(torch.bfloat16)(vectors)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, head(vectors), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_an_activation_is_read_as_it_is_written(activation: str, model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(model, tmp_path / "model"))
    layer = DenseLayer(folder="out", in_features=48, out_features=24, bias=False, activation=activation)
    (folder / "out" / "config.json").write_text(json.dumps(layer.config))
    assert described(folder).dense[1] == layer


Change = Callable[[Path], object]


def config(**changes: Any) -> Change:
    def change(folder: Path) -> None:
        path = folder / "2_Dense" / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def modules(*kinds: tuple[str, str]) -> Change:
    return lambda folder: list_modules(folder, kinds)


def pickled(folder: Path) -> None:
    (folder / "2_Dense" / "model.safetensors").rename(folder / "2_Dense" / "pytorch_model.bin")


START = CHAIN[:2]
REFUSED: Mapping[str, tuple[Change, str, str]] = {
    "a module of another kind": (
        modules(*START, ("LayerNorm", "2_LayerNorm")), "BaseModelUnsupported", "LayerNorm",
    ),
    "a module after Normalize": (
        modules(*START, ("Normalize", ""), ("Dense", "2_Dense")), "BaseModelUnsupported", "Pooling, Normalize, Dense",
    ),
    "two poolings": (modules(*START, ("Pooling", "1_Pooling")), "BaseModelUnsupported", "only one"),
    "no folder": (modules(*START, ("Dense", "")), "BaseModelUnsupported", "no folder of its own"),
    "a folder elsewhere": (modules(*START, ("Dense", "../x")), "BaseModelUnsupported", "no folder beside it"),
    "no configuration": (modules(*START, ("Dense", "none")), "ModelIncomplete", "none/config.json"),
    "vectors of tokens": (config(module_input_name="token_embeddings"), "BaseModelUnsupported", "token_embeddings"),
    "an input that is added": (config(use_residual=True), "BaseModelUnsupported", "use_residual"),
    "another activation": (
        config(activation_function="torch.nn.modules.activation.Mish"), "BaseModelUnsupported", "Mish",
    ),
    "code of the model's": (config(activation_function="own.Tanh"), "BaseModelUnsupported", "own.Tanh"),
    "sizes that do not follow": (config(in_features=31), "ModelDamaged", "takes 31 numbers"),
    "a size of text": (config(out_features="48"), "ModelDamaged", "out_features is '48'"),
    "weights of another size": (config(bias=False, in_features=32, out_features=47), "ModelDamaged", "out/config.json"),
    "pickled weights": (pickled, "ModelPickled", "the module 2_Dense has only pickled weights"),
    "no weights": (lambda folder: (folder / "2_Dense" / "model.safetensors").unlink(), "ModelIncomplete", "2_Dense"),
    "cut weights": (
        lambda folder: (folder / "2_Dense" / "model.safetensors").write_bytes(b"1234567890"), "ModelDamaged", "sound",
    ),
}  # fmt: skip


@pytest.mark.parametrize("sentence", REFUSED)
def test_a_model_is_refused_for(sentence: str, model: Path, tmp_path: Path) -> None:
    change, reason, said = REFUSED[sentence]
    folder = Path(shutil.copytree(model, tmp_path / "model"))
    change(folder)
    with pytest.raises(BadInput) as caught:
        described(folder)
    assert (caught.value.reason, caught.value.field) == (reason, "spec.baseModel")
    assert said in caught.value.message


@pytest.mark.parametrize("entry", [{"activation": "mish"}, {"folder": "../x"}, {"in_features": None}])
def test_an_encoder_json_with_unknown_modules_is_refused(entry: dict[str, Any], model: Path, tmp_path: Path) -> None:
    described(model).save(tmp_path)
    raw = json.loads((tmp_path / "encoder.json").read_text())
    raw["dense"][0] |= entry
    (tmp_path / "encoder.json").write_text(json.dumps(raw))
    with pytest.raises(BadInput) as caught:
        EncoderDescription.load(tmp_path)
    assert caught.value.reason == "EncoderDescriptionInvalid"
