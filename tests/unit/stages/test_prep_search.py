"""`prep.search.backend`: torch and faiss, on a GPU and without one, give the passages of a float32 search."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import faiss
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from unit.stages.test_nearest import Vectors, clustered, unit

from embedding_stages.contract.settings import Search
from embedding_stages.errors import BadInput
from embedding_stages.prep import search
from embedding_stages.prep.search import FaissOnCard, Index, Settled


def coarse(vectors: Vectors) -> Vectors:
    """As TensorFloat-32 sees them: 10 bits of each number."""
    bits = vectors.astype(np.float32).view(np.uint32)
    return ((bits + 0x1000) & np.uint32(0xFFFFE000)).view(np.float32)


class Coarse:
    """faiss' flat index with rounded products, as it may be on a GPU."""

    def __init__(self, _resources: object, dimension: int) -> None:
        self._index = faiss.IndexFlatIP(dimension)

    @property
    def ntotal(self) -> int:
        return int(self._index.ntotal)

    def add(self, vectors: Vectors) -> None:
        self._index.add(coarse(vectors))

    def search(self, queries: Vectors, most: int) -> tuple[Vectors, NDArray[np.int64]]:
        scores, numbers = self._index.search(coarse(queries), most)
        return scores, numbers


CARD = SimpleNamespace(GpuIndexFlatIP=Coarse, StandardGpuResources=object, get_num_gpus=lambda: 1)


def best(passages: Vectors, queries: Vectors, most: int) -> Vectors:
    exact = queries.astype(np.float64) @ passages.astype(np.float64).T
    return np.asarray(-np.sort(-exact, axis=1)[:, :most])


def check(found: tuple[Vectors, NDArray[np.int64]], passages: Vectors, queries: Vectors, most: int) -> None:
    scores, numbers = found
    exact = queries.astype(np.float64) @ passages.astype(np.float64).T
    assert scores.shape == numbers.shape == (len(queries), most)
    np.testing.assert_allclose(np.take_along_axis(exact, numbers, axis=1), best(passages, queries, most), atol=1e-6)
    np.testing.assert_allclose(scores, best(passages, queries, most), atol=2e-6)
    assert all(len(set(row)) == most for row in numbers.tolist())


@pytest.mark.parametrize("backend", Search.BACKENDS)
@pytest.mark.parametrize("make", [unit, clustered])
def test_every_backend_finds_the_same(make: Any, backend: str) -> None:
    passages, queries = make(3000, 64, 1), make(50, 64, 9)

    check(Index(passages, backend).search(queries, 20), passages, queries, 20)


@pytest.mark.parametrize("rows", [64, 700, 5000], ids=lambda rows: f"{rows} fit")
@pytest.mark.parametrize("make", [unit, clustered])
@pytest.mark.parametrize("most", [1, 40])
def test_rounded_candidates_are_settled(make: Any, rows: int, most: int) -> None:
    passages, queries = make(2000, 48, 2), make(30, 48, 5)

    found = Settled(FaissOnCard(CARD, passages, rows), passages).search(queries, most)

    check(found, passages, queries, most)


def test_without_settling_some_would_be_others() -> None:
    """The test above could not fail otherwise."""
    passages, queries = clustered(2000, 48, 2), clustered(30, 48, 5)

    _, numbers = FaissOnCard(CARD, passages, 5000).search(queries, 40)

    exact = queries.astype(np.float64) @ passages.astype(np.float64).T
    picked = np.take_along_axis(exact, numbers, axis=1)
    assert np.abs(picked - best(passages, queries, 40)).max() > 1e-6


def test_more_than_faiss_can_find_is_searched_by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    passages, queries = unit(400, 16, 1), unit(3, 16, 2)
    monkeypatch.setattr(search, "_FAISS_MOST", 100)

    check(Settled(FaissOnCard(CARD, passages, 5000), passages).search(queries, 90), passages, queries, 90)


def test_a_faiss_for_cpus_is_refused_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)

    with pytest.raises(BadInput) as caught:
        Index(unit(10, 8, 1), "faiss")

    assert caught.value.reason == "FaissWithoutGPU"
    assert caught.value.field == "spec.stages.prep.search.backend"
    assert "backend torch" in caught.value.message


def test_passages_that_fit_are_sent_to_the_card_once(monkeypatch: pytest.MonkeyPatch) -> None:
    passages = unit(50, 8, 1)
    searcher = FaissOnCard(CARD, passages, 50)
    monkeypatch.setattr(Coarse, "add", None)

    assert searcher.search(passages[:3], 1)[1][:, 0].tolist() == [0, 1, 2]
