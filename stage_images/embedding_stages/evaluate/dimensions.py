"""What a model loses when its vectors are cut, and what an index saves: a sweep over the sizes that it lists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from embedding_stages.evaluate.evaluation_set import EvaluationSet
from embedding_stages.evaluate.metrics import HEADLINE_K, measure
from embedding_stages.vectors import Vectors

SWEPT_K: Final = (HEADLINE_K,)
METRIC: Final = f"ndcg@{HEADLINE_K}"
_BYTES_A_NUMBER: Final = 4  # float32
_MILLION: Final = 1_000_000


def cut(vectors: Vectors, size: int) -> Vectors:
    """float32 (n, size) of length 1: the first numbers of each row of (n, dimension), scaled. Whole rows stay as they
    are.
    """
    if size >= vectors.shape[1]:
        return vectors
    short = vectors[:, :size]
    return np.asarray(short / np.maximum(np.linalg.norm(short, axis=1, keepdims=True), 1e-12), dtype=np.float32)


def sweep(
    evaluation_set: EvaluationSet, queries: Vectors, passages: Vectors, sizes: Sequence[int]
) -> dict[str, dict[str, Any]]:
    """By size: NDCG@10 of the vectors cut to it, and the bytes of the vectors of a million passages in float32.

    Empty for a model of one size. Nothing is embedded: a server cuts in the same way, which verify holds it to.
    Raises what `measure` does.
    """
    if len(sizes) < 2:
        return {}
    return {
        str(size): {
            METRIC: measure(evaluation_set, cut(queries, size), cut(passages, size), SWEPT_K).means[METRIC],
            "bytesPerMillion": _BYTES_A_NUMBER * size * _MILLION,
        }
        for size in sizes
    }
