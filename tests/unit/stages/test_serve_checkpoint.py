"""The server's second kind of model: a checkpoint under PyTorch, padded or over packs."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from unit.stages import rounding
from unit.stages.tiny_models import make_bert, make_llama
from unit.stages.tiny_serving import call, make_serving_folder, serving

from embedding_stages.encoder.load import AnyEncoder
from embedding_stages.encoder.model import PaddedEncoder
from embedding_stages.encoder.packed.encoder import PackedEncoder
from embedding_stages.errors import BadInput
from embedding_stages.serve import checkpoint_model
from embedding_stages.serve.checkpoint_model import CheckpointModel
from embedding_stages.serve.model import self_test
from embedding_stages.serve.open_model import open_model
from embedding_stages.serve.server import log

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CONFIG = {"hidden_size": 64, "num_hidden_layers": 2}  # of the larger of the two
TEXTS = ["the key1 of", "a", "noise1 noise2 key7 a", "key3"]
MAKERS: dict[str, Callable[[Path], Path]] = {"bert": make_bert, "llama": lambda to: make_llama(to, hidden_size=64)}


@pytest.fixture(params=["bert padded", "llama padded", "llama packed"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint as finetune leaves it, and `load_encoder` made to choose as on another machine."""
    family, how = request.param.split()
    PaddedEncoder.load(MAKERS[family](tmp_path / "base"), device="cpu").save(tmp_path / "checkpoint")
    kind: Any = PackedEncoder if how == "packed" else PaddedEncoder

    def load(folder: Path, **_: Any) -> AnyEncoder:
        encoder: AnyEncoder = kind.load(folder, device=DEVICE, dtype=torch.float32)
        return encoder

    monkeypatch.setattr(checkpoint_model, "load_encoder", load)
    return tmp_path / "checkpoint"


def rows_of(model: CheckpointModel) -> list[list[int]]:
    return model.reader.read(TEXTS, "query", "END")


def test_the_vectors_are_those_that_were_evaluated(folder: Path) -> None:
    model = CheckpointModel(folder, log)
    expected = PaddedEncoder.load(folder, device="cpu").embed(TEXTS, role="query")
    found = model.vectors(rows_of(model), model.description.hidden_size)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=rounding.of_vectors(CONFIG, expected))
    short = model.vectors(rows_of(model), 8)
    lengths = np.linalg.norm(expected[:, :8], axis=1, keepdims=True)
    limit = rounding.of_vectors(CONFIG, expected) / lengths.min()  # errors grow as the rest is scaled up
    np.testing.assert_allclose(short, expected[:, :8] / lengths, rtol=0, atol=limit)
    self_test(model)


def test_it_answers_requests_and_says_what_it_is(folder: Path) -> None:
    expected = PaddedEncoder.load(folder, device="cpu").embed(TEXTS, role="passage")
    with serving(folder) as url:
        status, answer = call(
            f"{url}/v1/embeddings", {"model": "tiny", "input_type": "passage", "input": [*TEXTS, *TEXTS]}
        )
        metadata = call(f"{url}/v1/metadata")[1]
    assert status == 200
    found = np.array([item["embedding"] for item in answer["data"]])
    np.testing.assert_allclose(
        found, np.concatenate([expected, expected]), rtol=0, atol=rounding.of_vectors(CONFIG, expected)
    )
    assert metadata["runtime"]["name"] == "torch"
    assert metadata["runtime"]["version"] == torch.__version__
    assert "packed" in metadata["runtime"]["providers"][0] or "padded" in metadata["runtime"]["providers"][0]


def test_too_many_rows_for_the_memory_go_in_halves(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = CheckpointModel(folder, log)
    expected = model.vectors(rows_of(model), 8)
    model._small = None  # whose memory is there from the start
    forward = model._encoder.vectors
    refused: list[int] = []

    def tight(given: Any) -> torch.Tensor:
        count = len(given) if isinstance(given, Sequence) else len(given.starts) - 1
        if count > 1:
            refused.append(count)
            raise torch.OutOfMemoryError
        return forward(given)

    monkeypatch.setattr(model._encoder, "vectors", tight)
    np.testing.assert_allclose(
        model.vectors(rows_of(model), 8), expected, rtol=0, atol=rounding.of_vectors(CONFIG, expected)
    )
    assert refused == [4, 2, 2]
    monkeypatch.setattr(model._encoder, "vectors", lambda _: (_ for _ in ()).throw(torch.OutOfMemoryError()))
    with pytest.raises(torch.OutOfMemoryError):
        model.vectors(rows_of(model)[:1], 8)


@pytest.mark.parametrize(
    ("make", "package", "cure"),
    [
        (make_serving_folder, "onnxruntime", "use the image `serve`"),
        (make_bert, "torch", "use the image `serve-torch`"),
        (lambda folder: folder.mkdir() or folder, "", "holds neither model.onnx nor a checkpoint"),
    ],
    ids=["a graph in the torch image", "a checkpoint in the onnx image", "neither"],
)
def test_a_folder_for_another_image_says_which(
    make: Callable[[Path], Path], package: str, cure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make(tmp_path / "model")
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
    with pytest.raises(BadInput, match=cure) as caught:
        open_model(folder, log)
    assert caught.value.reason == "ServingModelInvalid"
