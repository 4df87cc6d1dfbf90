"""Exact search on an accelerator: numbers as brute force in float64 finds them, whatever half precision says."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.utils._python_dispatch import TorchDispatchMode

from embedding_stages.encoder import nearest
from embedding_stages.encoder.nearest import DeviceIndex

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
Vectors = NDArray[np.float32]


def unit(count: int, dimension: int, seed: int) -> Vectors:
    found = np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), dtype=np.float32)


def clustered(count: int, dimension: int, seed: int) -> Vectors:
    """As embeddings are: around few centres, so that neighbours' scores lie close together."""
    centres, noise = unit(5, dimension, seed), unit(count, dimension, seed + 1)
    found = centres[np.arange(count) % 5] + 0.05 * noise
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), dtype=np.float32)


def check(passages: Vectors, queries: Vectors, most: int) -> None:
    scores, numbers = DeviceIndex(passages, DEVICE).search(queries, most)
    exact = queries.astype(np.float64) @ passages.astype(np.float64).T
    most = min(most, len(passages))
    assert scores.shape == numbers.shape == (len(queries), most)
    picked = np.take_along_axis(exact, numbers, axis=1)
    np.testing.assert_allclose(scores, picked, atol=2e-6)
    # Equal up to float32 rounding: at each place the score is that of the truly best.
    np.testing.assert_allclose(picked, -np.sort(-exact, axis=1)[:, :most], atol=1e-6)
    assert all(len(set(row)) == most for row in numbers.tolist())


@pytest.mark.parametrize("make", [unit, clustered])
@pytest.mark.parametrize(("count", "dimension", "most"), [(5000, 32, 10), (777, 384, 100), (63, 8, 5), (64, 8, 64)])
def test_the_numbers_are_those_of_brute_force(make: object, count: int, dimension: int, most: int) -> None:
    assert callable(make)
    check(make(count, dimension, 1), make(40, dimension, 9), most)


def test_more_than_there_are() -> None:
    check(unit(10, 8, 1), unit(3, 8, 2), 50)


def test_equal_passages_come_by_their_numbers() -> None:
    passages = np.repeat(unit(4, 16, 3), 50, axis=0)
    scores, numbers = DeviceIndex(passages, DEVICE).search(passages[60:61], 20)
    assert numbers[0].tolist() == list(range(50, 70))
    assert len(set(scores[0].tolist())) == 1


def test_scores_that_half_precision_cannot_tell_apart_are_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """All passages within 1e-5 of each other: float16 sees one score."""
    base, noise = unit(1, 64, 4), unit(3000, 64, 5)
    passages = np.asarray(base + 1e-5 * noise, dtype=np.float32)
    depths: list[int] = []
    whole = nearest._Part._rescored

    def counted(part: nearest._Part, *arguments: object) -> object:
        depths.append(arguments[-1])  # type: ignore[arg-type]
        return whole(part, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(nearest._Part, "_rescored", counted)
    check(passages, base, 5)
    assert len(depths) > 1


def test_a_corpus_in_parts_and_queries_in_blocks_is_one_corpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "_SCORES_BYTES", 2 * 1024 * 7)
    monkeypatch.setattr(DeviceIndex, "_rows_of_a_part", lambda _: 640)
    monkeypatch.setattr(nearest, "_GATHER_BYTES", 4 * 16 * 100)
    check(unit(2000, 16, 6), unit(30, 16, 7), 12)


def test_one_part_at_a_time_is_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is as large as the memory allows."""
    monkeypatch.setattr(DeviceIndex, "_rows_of_a_part", lambda _: 640)
    alive: list[weakref.ref[torch.Tensor]] = []
    most: list[int] = []
    make = nearest._Part.of

    def watched(exact: torch.Tensor) -> nearest._Part:
        alive.append(weakref.ref(exact))
        most.append(sum(ref() is not None for ref in alive))
        return make(exact)

    monkeypatch.setattr(nearest._Part, "of", watched)
    DeviceIndex(unit(3200, 16, 6), DEVICE).search(unit(3, 16, 7), 5)
    assert most == [1] * 5


@pytest.mark.parametrize("most", [5, 300, 4000])
def test_a_deep_search_takes_bounded_memory(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """Passages that half precision cannot tell apart send every query to the end of the corpus."""
    monkeypatch.setattr(nearest, "_SCORES_BYTES", 4 << 20)
    monkeypatch.setattr(nearest, "_GATHER_BYTES", 1 << 20)
    base, noise = unit(1, 16, 4), unit(4000, 16, 5)
    passages = np.asarray(base + 1e-5 * noise, dtype=np.float32)
    queries = np.repeat(base, 200, axis=0)
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            found = [out] if isinstance(out, torch.Tensor) else out if isinstance(out, tuple) else []
            largest = max(largest, *(one.untyped_storage().nbytes() for one in found if torch.is_tensor(one)), 0)
            return out

    with Watch():
        _, numbers = DeviceIndex(passages, DEVICE).search(queries, most)
    assert len(set(numbers[0].tolist())) == most
    answers = 200 * most * 8
    assert largest <= max(4 << 20, answers)


def test_flags_of_others_are_left_as_they_were() -> None:
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        DeviceIndex(unit(10, 8, 1), DEVICE).search(unit(1, 8, 2), 1)
        assert torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False
