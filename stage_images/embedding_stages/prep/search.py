"""Exact inner-product search: on a CUDA device where there is one, else with faiss on the CPU."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedding_stages.errors import BadInput
from embedding_stages.vectors import Vectors


class Index:
    """Passages' vectors, float32 (n, dimension), in main memory; a GPU gets a copy of what fits it."""

    def __init__(self, vectors: Vectors) -> None:
        """Raises BadInput `VectorsNotFinite`."""
        self.size, dimension = vectors.shape
        self._vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        _check(self._vectors)
        self._index: Any = _on_a_gpu(self._vectors)
        if self._index is None:
            self._index = _faiss().IndexFlatIP(dimension)
            self._index.add(self._vectors)

    def search(self, queries: Vectors, most: int) -> tuple[Vectors, NDArray[np.int64]]:
        """Scores and numbers of the `most` best passages, best first: two arrays (queries, min(most, size)).

        Raises BadInput `VectorsNotFinite`.
        """
        _check(queries)
        scores, numbers = self._index.search(np.ascontiguousarray(queries, dtype=np.float32), min(most, self.size))
        return scores, numbers

    def vectors(self, numbers: list[int]) -> Vectors:
        """float32 (len(numbers), dimension)."""
        return np.asarray(self._vectors[numbers], dtype=np.float32)


def _check(vectors: Vectors) -> None:
    bad = int(np.count_nonzero(~np.isfinite(vectors.sum(axis=1))))  # a sum, for it takes no memory
    if bad:
        raise BadInput(
            "VectorsNotFinite",
            f"{bad} of {len(vectors)} vectors of the base model hold NaN or infinity: it is damaged or overflows; "
            "choose another revision",
            field="spec.baseModel",
        )


def _on_a_gpu(vectors: Vectors) -> Any:
    """The same search in torch: faiss on a GPU is no faster, and its wheels are one more thing to match."""
    import torch  # takes seconds to import

    if not torch.cuda.is_available():
        return None
    from embedding_stages.encoder.nearest import DeviceIndex

    return DeviceIndex(vectors, torch.device("cuda"))


def _faiss() -> Any:
    with warnings.catch_warnings():  # its generated wrappers warn at import on new Python versions
        warnings.simplefilter("ignore")
        import faiss
    return faiss
