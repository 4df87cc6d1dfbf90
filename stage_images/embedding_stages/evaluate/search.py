"""Exact nearest passages by dot product, with ties broken the same way on every machine. numpy alone."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from embedding_stages.errors import StageError
from embedding_stages.vectors import Vectors

Rankings = dict[str, dict[str, float]]  # query id -> passage id -> score

_BLOCK_BYTES = 256 << 20  # of one block of scores
_DECIMALS = 6  # rounding noise of a float32 product of unit vectors is about 1e-7: equal texts shall tie


def nearest_passages(
    query_ids: Sequence[str],
    query_vectors: Vectors,
    passage_ids: Sequence[str],
    passage_vectors: Vectors,
    depth: int,
    not_themselves: Collection[str] = (),
) -> Rankings:
    """The `min(depth, passages)` passages of highest score of each query; queries whose ids are among `not_themselves`
    do not find the passage of their id.

    Vectors are float32 (queries, dimension) and (passages, dimension); ids are sorted. Scores are rounded to
    six decimals; of equal scores the greater id comes first, which is also trec_eval's rule.
    Raises StageError `VectorsMisshapen` or `VectorsNotFinite`.
    """
    _check("query", query_vectors, len(query_ids))
    _check("passage", passage_vectors, len(passage_ids))
    if query_vectors.shape[1] != passage_vectors.shape[1]:
        raise StageError(
            "VectorsMisshapen",
            f"queries have {query_vectors.shape[1]} dimensions, passages {passage_vectors.shape[1]}",
        )
    own = {name: at for at, name in enumerate(passage_ids) if name in not_themselves}
    block = max(1, _BLOCK_BYTES // (4 * len(passage_ids)))
    rankings: Rankings = {}
    for start in range(0, len(query_ids), block):
        scores = query_vectors[start : start + block] @ passage_vectors.T
        for row, query_id in zip(scores, query_ids[start : start + block], strict=True):
            rounded = np.round(row, _DECIMALS)
            found = len(passage_ids)
            if query_id in own:
                rounded[own[query_id]], found = -np.inf, found - 1
            rankings[query_id] = {passage_ids[at]: float(rounded[at]) for at in _top(rounded, depth)[:found]}
    return rankings


def _top(scores: NDArray[np.float32], depth: int) -> NDArray[np.intp]:
    """Positions of the highest scores, highest first; of equal scores the greater position first."""
    count = len(scores)
    candidates: NDArray[np.intp] = np.arange(count)
    if depth < count:
        least = np.partition(scores, count - depth)[count - depth]
        candidates = np.flatnonzero(scores >= least)
    order = np.lexsort((-candidates, -scores[candidates]))
    return candidates[order[:depth]]


def _check(role: str, vectors: Vectors, count: int) -> None:
    if vectors.ndim != 2 or vectors.shape[0] != count or not count:
        raise StageError("VectorsMisshapen", f"{role} vectors have shape {vectors.shape}, expected {count} rows")
    bad = int(np.count_nonzero(~np.isfinite(vectors).all(axis=1)))
    if bad:
        raise StageError("VectorsNotFinite", f"{bad} of {count} {role} vectors hold NaN or infinity")
