"""Variants of the families in files as others write them give the vectors that sentence-transformers gives."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from unit.stages.published import write_dense
from unit.stages.tiny_families import list_modules, make_ministral3, make_modernbert
from unit.stages.tiny_models import make_bert, make_llama

from embedding_stages.encoder.description import ROLES, EncoderDescription, describe_model
from embedding_stages.encoder.model import PaddedEncoder
from embedding_stages.export.build import build_onnx
from embedding_stages.export.parity import OnnxEncoder
from embedding_stages.finetune.batches import Example
from embedding_stages.finetune.trainer import Trainer
from embedding_stages.vectors import Vectors

TEXTS = [
    "key1",
    "the key2 of noise1, which is longer than a window of eight bytes",
    "Größe und Maß: 12,5 %",
    "ask3 " * 40,
    "",
]
LEAST = 0.9999


def make_dense_bert(folder: Path) -> Path:
    """As LaBSE or distiluse: a Dense module with a bias and the hyperbolic tangent, that makes vectors smaller."""
    make_bert(folder)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(
        '{"word_embedding_dimension": 32, "pooling_mode_mean_tokens": true}'
    )
    write_dense(folder / "2_Dense", (32, 20), bias=True, activation="torch.nn.modules.activation.Tanh", seed=0)
    list_modules(folder, [("Transformer", ""), ("Pooling", "1_Pooling"), ("Dense", "2_Dense")])
    return folder


def make_ministral3_bidirec(folder: Path) -> Path:
    """As NeMo AutoModel writes what it trained."""
    names = {"model_type": "ministral3_bidirec", "architectures": ["Ministral3BidirectionalModel"]}
    return edit(make_ministral3(folder), **names, is_causal=None, auto_map={"AutoModel": "model.Bidirectional"})


Make = Callable[[Path], Path]
MODELS: dict[str, tuple[Make, str, str, int]] = {  # maker, pooling, query prefix, vector size
    "ModernBERT of seven layers": (lambda folder: make_modernbert(folder, num_hidden_layers=7), "mean", "", 32),
    "ModernBERT with biases": (
        lambda folder: make_modernbert(folder, norm_bias=True, attention_bias=True, mlp_bias=True), "mean", "", 32,
    ),
    "a trained Nemotron 3 Embed": (make_ministral3_bidirec, "mean", "query: ", 32),
    "a BERT with a Dense module": (make_dense_bert, "mean", "", 20),
    "a bidirectional Llama with a name of its own": (make_llama, "mean", "query: ", 32),
}  # fmt: skip


def edit(folder: Path, **changes: Any) -> Path:
    raw = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps({key: value for key, value in raw.items() if value is not None}))
    return folder


def library_of(folder: Path, description: EncoderDescription, scratch: Path) -> SentenceTransformer:
    """sentence-transformers' model; it knows a bidirectional Llama or Ministral by is_causal alone."""
    copy = Path(shutil.copytree(folder, scratch / f"{folder.name}-for-library"))
    plain = json.loads((copy / "config.json").read_text())["model_type"].removesuffix("_bidirec")
    if plain in ("llama", "ministral3"):
        edit(copy, model_type=plain, architectures=None, is_causal=False, auto_map=None)
    model = SentenceTransformer(str(copy), device="cpu")
    model.max_seq_length = description.max_tokens
    return model


def vectors_of(library: SentenceTransformer, description: EncoderDescription, role: str) -> Vectors:
    found = library.encode(TEXTS, prompt=description.prefixes[role], normalize_embeddings=True)
    return np.asarray(found, dtype=np.float32)


def assert_equal(found: Vectors, expected: Vectors) -> None:
    assert found.shape == expected.shape
    assert (found * expected).sum(axis=1).min() >= LEAST
    others = found @ expected.T - np.eye(len(found))
    assert others.max() < LEAST - 0.001, "vectors that are all alike would show nothing"


@pytest.fixture(scope="module", params=MODELS)
def name(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(scope="module")
def folder(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return MODELS[name][0](tmp_path_factory.mktemp("models") / "model")


def test_its_files_say_what_it_is(name: str, folder: Path) -> None:
    description = describe_model(folder, prefixes=None, max_tokens=None)
    _, pooling, prefix, size = MODELS[name]
    assert (description.pooling, description.prefixes["query"]) == (pooling, prefix)
    assert (description.vector_size, description.dimensions[0]) == (size, size)


def test_its_tokens_and_vectors_are_those_of_sentence_transformers(folder: Path, tmp_path: Path) -> None:
    encoder = PaddedEncoder.load(folder, device="cpu", dtype=torch.float32)
    description = encoder.description
    library = library_of(folder, description, tmp_path)
    for role in ROLES:
        texts = [description.prefixes[role] + text for text in TEXTS[:4]]
        rows = library.tokenizer(texts, truncation=True, max_length=description.max_tokens)["input_ids"]
        assert encoder.tokenizer.encode(TEXTS[:4], role) == rows
        assert_equal(encoder.embed(TEXTS, role=role), vectors_of(library, description, role))


def test_once_trained_it_is_saved_and_exported(folder: Path, tmp_path: Path) -> None:
    encoder = PaddedEncoder.load(folder, device="cpu", dtype=torch.float32)
    before = encoder.embed(TEXTS, role="query")
    rows = encoder.tokenizer.encode(TEXTS, "passage")
    trainer = Trainer(encoder, temperature=0.05, weight_decay=0.01, micro_batch=2, texts_per_example=3)
    trainer.step([Example(query=0, candidates=(1, 2, 3)), Example(query=2, candidates=(3, 0, 1))], rows, rate=0.01)
    after = encoder.embed(TEXTS, role="query")
    assert (before * after).sum(axis=1).min() < 0.9999, "the step changed the model"

    target = tmp_path / "checkpoint"
    encoder.save(target)
    assert EncoderDescription.load(target) == encoder.description
    saved = PaddedEncoder.load(target, device="cpu", dtype=torch.float32)
    np.testing.assert_array_equal(saved.embed(TEXTS, role="query"), after)
    build_onnx(saved, target / "model.onnx", "fp32")
    assert_equal(OnnxEncoder(target).embed(TEXTS, role="query"), after)
    library = library_of(target, saved.description, tmp_path)
    assert_equal(after, vectors_of(library, saved.description, "query"))
    (target / "encoder.json").unlink()  # what is left is what other libraries read
    assert describe_model(target, prefixes=None, max_tokens=None) == encoder.description
