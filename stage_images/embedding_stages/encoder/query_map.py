"""The linear map that a model's queries go through and its passages do not: normalise(W v). numpy alone.

A model with `query_map` in its description has W, float32 (hidden, hidden), in a file beside its weights. The weights
are those of the model that made the passages' vectors, so an index of these stays what it is when W changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from embedding_stages.encoder.configuration import FIELD
from embedding_stages.encoder.description import QUERY_MAP_FILE, EncoderDescription, Role
from embedding_stages.encoder.safetensors_check import read_header
from embedding_stages.errors import BadInput
from embedding_stages.vectors import Vectors

_TENSOR: Final = "query_map.weight"
_SHORTEST: Final = 1e-12  # what a vector of no length is divided by


@dataclass(frozen=True, slots=True, eq=False)
class QueryMap:
    """W. What the encoder computed for a query, v of length 1, becomes normalise(W v)."""

    weight: Vectors  # (hidden, hidden)

    @classmethod
    def load(cls, folder: Path, description: EncoderDescription) -> QueryMap | None:
        """That of a model folder; None for a model that has none. Raises BadInput `ModelIncomplete`, `ModelDamaged`."""
        if not description.query_map:
            return None
        path = folder / QUERY_MAP_FILE
        if not path.is_file():
            raise BadInput("ModelIncomplete", f"the model has no {QUERY_MAP_FILE}; train it again", field=FIELD)
        try:
            return cls(_read(path, description.vector_size))
        except ValueError as error:
            raise BadInput(
                "ModelDamaged", f"{QUERY_MAP_FILE} is damaged: {error}; train it again", field=FIELD
            ) from error

    def save(self, folder: Path) -> None:
        """Write the file into a model folder. Needs the safetensors library, which images that only serve lack."""
        from safetensors.numpy import save_file

        tensors = {_TENSOR: np.ascontiguousarray(self.weight, dtype=np.float32)}
        save_file(tensors, folder / QUERY_MAP_FILE)

    def apply(self, vectors: Vectors, size: int | None = None) -> Vectors:
        """float32 (n, size) of length 1, of queries' vectors (n, hidden); the whole size when absent.

        A shorter one is cut after the map, as passages' vectors are cut after the encoder.
        """
        mapped = vectors @ self.weight[:size].T
        lengths = np.linalg.norm(mapped, axis=1, keepdims=True)
        return np.asarray(mapped / np.maximum(lengths, _SHORTEST), dtype=np.float32)


def as_role(vectors: Vectors, role: Role, query_map: QueryMap | None) -> Vectors:
    """What a model answers for texts of `role` whose vectors, as the encoder computed them, are float32 (n, hidden).

    Passages' vectors, and those of a model without a map, are given back as they are.
    """
    return vectors if query_map is None or role != "query" else query_map.apply(vectors)


def _read(path: Path, hidden: int) -> Vectors:
    """The matrix, in main memory. Raises ValueError."""
    entries = read_header(path)
    entry = entries.get(_TENSOR)
    if entry is None or (entry.dtype, entry.shape) != ("F32", (hidden, hidden)):
        raise ValueError(f"it holds no {_TENSOR} of {hidden} x {hidden} numbers in float32")
    begin = path.stat().st_size - max(other.end for other in entries.values())
    # `fromfile` gives fewer numbers where the volume gives no more, and no error.
    weight = np.frombuffer(path.read_bytes(), dtype="<f4", count=hidden * hidden, offset=begin + entry.begin)
    if not np.isfinite(weight).all():
        raise ValueError("it holds NaN or infinity")
    return np.asarray(weight.reshape(hidden, hidden), dtype=np.float32)
