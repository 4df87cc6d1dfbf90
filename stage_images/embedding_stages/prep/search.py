"""Exact inner-product search: with torch on a CUDA device where there is one, else with faiss on the CPU.

`spec.stages.prep.search.backend` can ask for either. All give the passages of a float32 search.
"""

from __future__ import annotations

import warnings
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from embedding_stages.contract.settings import Search
from embedding_stages.errors import BadInput
from embedding_stages.vectors import Vectors

Numbers = NDArray[np.int64]
_AUTO, _TORCH, _FAISS = Search.BACKENDS
_FAISS_MOST: Final = 2048  # neighbours that faiss can find on a GPU
_SHARE: Final = 0.5  # of the card's free memory for passages; the rest is for scores
_ROUNDING: Final = 2.0**-10  # of a product of two numbers rounded to TensorFloat-32, relatively


class Searcher(Protocol):
    """Scores and numbers of the `most` best passages of each query, best first: (queries, min(most, passages))."""

    def search(self, queries: Vectors, most: int, /) -> tuple[Vectors, Numbers]: ...


class Index:
    """Passages' vectors, float32 (n, dimension), in main memory; a GPU gets a copy of what fits it."""

    def __init__(self, vectors: Vectors, backend: str = _AUTO) -> None:
        """Raises BadInput `VectorsNotFinite`, `FaissWithoutGPU`."""
        self.size = len(vectors)
        self._vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        _check(self._vectors)
        self._searcher = _searcher(self._vectors, backend)

    def search(self, queries: Vectors, most: int) -> tuple[Vectors, Numbers]:
        """Scores and numbers of the `most` best passages, best first: two arrays (queries, min(most, size)).

        Raises BadInput `VectorsNotFinite`.
        """
        _check(queries)
        return self._searcher.search(np.ascontiguousarray(queries, dtype=np.float32), min(most, self.size))

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


def _searcher(vectors: Vectors, backend: str) -> Searcher:
    import torch  # takes seconds to import

    has_card = torch.cuda.is_available()
    if backend == _TORCH or (backend == _AUTO and has_card):
        return _torch(vectors)
    faiss = _faiss()
    if not has_card:
        index: Searcher = faiss.IndexFlatIP(vectors.shape[1])
        index.add(vectors)  # type: ignore[attr-defined]
        return index
    if not getattr(faiss, "StandardGpuResources", None) or not faiss.get_num_gpus():
        raise BadInput(
            "FaissWithoutGPU",
            f"the prep image's faiss {faiss.__version__} cannot use this GPU: take the image that is built for CUDA, "
            f"or backend {_TORCH}, which searches as exactly",
            field=f"{Search.FIELD}.backend",
        )
    free, _ = torch.cuda.mem_get_info()
    return Settled(FaissOnCard(faiss, vectors, int(free * _SHARE) // vectors[0].nbytes), vectors)


def _torch(vectors: Vectors) -> Searcher:
    import torch

    from embedding_stages.encoder.nearest import DeviceIndex

    return DeviceIndex(vectors, torch.device("cuda" if torch.cuda.is_available() else "cpu"))


class FaissOnCard:
    """faiss' flat index on the current CUDA device; passages that do not fit it are taken in parts of `rows`."""

    def __init__(self, faiss: Any, vectors: Vectors, rows: int) -> None:
        self._faiss, self._vectors, self._rows = faiss, vectors, max(1, rows)
        self._resources = faiss.StandardGpuResources()
        self._only: Any = self._part(0) if len(vectors) <= self._rows else None

    def search(self, queries: Vectors, most: int) -> tuple[Vectors, Numbers]:
        scores, numbers = np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        for start in range(0, len(self._vectors), self._rows):
            part = self._part(start) if self._only is None else self._only
            found, places = part.search(queries, min(most, part.ntotal))
            del part  # before the next one comes: two would not fit
            scores, numbers = np.hstack([scores, found]), np.hstack([numbers, places + start])
            order = np.argsort(-scores, axis=1, kind="stable")[:, :most]
            scores, numbers = np.take_along_axis(scores, order, axis=1), np.take_along_axis(numbers, order, axis=1)
        return scores, numbers

    def _part(self, start: int) -> Any:
        index = self._faiss.GpuIndexFlatIP(self._resources, self._vectors.shape[1])
        index.add(self._vectors[start : start + self._rows])
        return index


class Settled:
    """Candidates of a search whose products may be rounded, as those of faiss on a GPU may, scored again in float32.

    Queries for which a passage that was left out might score as well are searched by torch; so are those that ask for
    more than faiss can find.
    """

    def __init__(self, candidates: Searcher, vectors: Vectors) -> None:
        self._candidates, self._vectors = candidates, vectors
        self._length = float(np.sqrt(np.einsum("nd,nd->n", vectors, vectors).max(initial=0.0)))
        self._exact: Searcher | None = None

    def search(self, queries: Vectors, most: int) -> tuple[Vectors, Numbers]:
        deep = min(len(self._vectors), most + most // 2 + 16)
        if deep > _FAISS_MOST:
            return self._by_torch(queries, most)
        rough, found = self._candidates.search(queries, deep)
        scores = np.stack([self._vectors[row] @ query for row, query in zip(found, queries, strict=True)])
        order = np.argsort(-scores, axis=1, kind="stable")[:, :most]
        best, numbers = np.take_along_axis(scores, order, axis=1), np.take_along_axis(found, order, axis=1)
        if deep < len(self._vectors):
            doubt = _ROUNDING * self._length * np.linalg.norm(queries, axis=1) + 1e-6
            unsure = np.flatnonzero(best[:, -1] <= rough[:, -1] + doubt)
            if len(unsure):
                best[unsure], numbers[unsure] = self._by_torch(queries[unsure], most)
        return best, numbers

    def _by_torch(self, queries: Vectors, most: int) -> tuple[Vectors, Numbers]:
        if self._exact is None:
            self._exact = _torch(self._vectors)
        return self._exact.search(queries, most)


def _faiss() -> Any:
    with warnings.catch_warnings():  # its generated wrappers warn at import on new Python versions
        warnings.simplefilter("ignore")
        import faiss
    return faiss
