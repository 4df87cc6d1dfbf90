"""What the server asks of a model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from embedding_stages.encoder.description import ROLES, EncoderDescription
from embedding_stages.encoder.query_map import QueryMap
from embedding_stages.errors import BadInput
from embedding_stages.serve.settings import MAX_BATCH_ROWS
from embedding_stages.serve.texts import TextReader
from embedding_stages.vectors import OUR_LENGTH_ERROR, Vectors, are_fit

Log = Callable[..., None]
GRAPH_FILE: Final = "model.onnx"
# As many attention scores as a full batch of 512 tokens a text has, a longer text alone: at 12 heads 0.4 GB, at 32
# heads 1 GB. Without it one request of 32 texts of 8,192 tokens asks for more memory than any pod has.
PADDED_AREA: Final = MAX_BATCH_ROWS * 512**2


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much goes through a model at once."""

    rows: int = MAX_BATCH_ROWS
    tokens: float = math.inf  # the first row counts for none
    area: float = math.inf  # rows times the squared tokens of the longest: what padded attention scores take
    padding: float = 1.5  # tokens computed for one that counts, when requests are joined
    under_way: int = 1  # batches: with two, the next is prepared while an accelerator works on this one


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """Who computes the vectors, for /v1/metadata."""

    name: str
    version: str
    providers: Sequence[str]  # the first choice first


class Model(Protocol):
    """Rows of token ids to vectors, which are those of texts in either role until the `query_map` is applied."""

    description: EncoderDescription
    query_map: QueryMap | None  # of a model that answers queries with more than its encoder computes
    reader: TextReader
    limits: Limits

    @property
    def runtime(self) -> Runtime: ...

    def vectors(self, rows: Sequence[Sequence[int]], dimensions: int) -> Vectors:
        """Token ids of n texts -> float32 (n, dimensions) of length 1. Called from `limits.under_way` threads."""
        ...


def self_test(model: Model) -> None:
    """One text in both roles and every size. Raises BadInput `SelfTestFailed`."""
    for role in ROLES:
        rows = model.reader.read(["Is this model ready?"], role, "END")
        query_map = model.query_map if role == "query" else None
        for size in model.description.dimensions:
            whole = model.description.vector_size
            found = (
                model.vectors(rows, size) if query_map is None else query_map.apply(model.vectors(rows, whole), size)
            )
            if found.shape != (1, size) or not valid(found).all():
                raise BadInput(
                    "SelfTestFailed",
                    f"a {role} in {size} dimensions gave shape {found.shape}, length {np.linalg.norm(found)}: "
                    "not one finite vector of length 1; export the model again",
                )


def valid(vectors: Vectors) -> NDArray[np.bool_]:
    """(n,): which rows are finite and of length 1."""
    return are_fit(vectors, OUR_LENGTH_ERROR)
