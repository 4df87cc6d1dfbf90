"""Vectors cut to fewer dimensions, and what is measured with them."""

from __future__ import annotations

import numpy as np
import pytest
from unit.stages.test_evaluate_metrics import a_set, unit

from embedding_stages.evaluate.dimensions import cut, sweep

# The first two dimensions say "a" and "b" are the same; the third tells them apart.
PASSAGES = unit((1, 0, 1), (1, 0, -1), (0, 1, 0))
QUERIES = unit((1, 0, 1))


def test_a_vector_is_cut_and_scaled_and_a_whole_one_left_alone() -> None:
    found = cut(unit((3, 4, 12)), 2)
    np.testing.assert_allclose(found, [[0.6, 0.8]], rtol=1e-6)
    assert found.dtype == np.float32
    assert cut(PASSAGES, 3) is PASSAGES
    assert cut(PASSAGES, 4) is PASSAGES


def test_a_vector_of_which_nothing_is_left_stays_a_number() -> None:
    assert cut(unit((0, 0, 1)), 2).tolist() == [[0.0, 0.0]]


def test_each_size_has_its_metric_and_its_bytes() -> None:
    found = sweep(a_set({"q": {"a": 1}}), QUERIES, PASSAGES, (3, 2))
    assert found["3"] == {"ndcg@10": 1.0, "bytesPerMillion": 12_000_000}
    # Of equal scores the greater id comes first, so that "a" is second.
    assert found["2"] == {"ndcg@10": pytest.approx(1 / np.log2(3), abs=1e-6), "bytesPerMillion": 8_000_000}


@pytest.mark.parametrize("sizes", [(), (3,)], ids=str)
def test_a_model_of_one_size_has_no_sweep(sizes: tuple[int, ...]) -> None:
    assert sweep(a_set({"q": {"a": 1}}), QUERIES, PASSAGES, sizes) == {}
