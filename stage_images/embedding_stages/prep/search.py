"""Exact inner-product search with faiss, on the GPU where faiss has one."""

from __future__ import annotations

import warnings
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
_GPU_MOST: Final = 2048  # neighbours that faiss finds on a GPU at once


class Index:
    """Passages' vectors, float32 (n, dimension), in main memory or on one GPU."""

    def __init__(self, vectors: Vectors) -> None:
        faiss = _faiss()
        self.size, dimension = vectors.shape
        self._vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        self._main: Any = faiss.IndexFlatIP(dimension)
        self._main.add(self._vectors)
        self._gpu: Any = None
        if getattr(faiss, "get_num_gpus", lambda: 0)() > 0 and hasattr(faiss, "StandardGpuResources"):
            self._resources = faiss.StandardGpuResources()  # must outlive the index
            self._gpu = faiss.index_cpu_to_gpu(self._resources, 0, self._main)

    def search(self, queries: Vectors, most: int) -> tuple[Vectors, NDArray[np.int64]]:
        """Scores and numbers of the `most` best passages, best first: two arrays (queries, min(most, size))."""
        most = min(most, self.size)
        index = self._gpu if self._gpu is not None and most <= _GPU_MOST else self._main
        scores, numbers = index.search(np.ascontiguousarray(queries, dtype=np.float32), most)
        return scores, numbers

    def vectors(self, numbers: list[int]) -> Vectors:
        """float32 (len(numbers), dimension)."""
        return np.asarray(self._vectors[numbers], dtype=np.float32)


def _faiss() -> Any:
    with warnings.catch_warnings():  # its generated wrappers warn at import on new Python versions
        warnings.simplefilter("ignore")
        import faiss
    return faiss
