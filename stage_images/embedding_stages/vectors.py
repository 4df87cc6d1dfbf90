"""Vectors as all stages hand them on, and which of them are fit to use. numpy alone."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]  # (texts, dimension), or (dimension,) of one text

OUR_LENGTH_ERROR: Final = 1e-3  # the server computes in float32, or in bfloat16 and scales in float32
# Other servers may answer in float16: a vector of length 1, rounded component by component, is off by about 1e-3.
THEIR_LENGTH_ERROR: Final = 1e-2


def are_fit(vectors: Vectors, length_error: float) -> NDArray[np.bool_]:
    """(n,): which rows of (n, dimension) are finite and of length 1."""
    with np.errstate(over="ignore"):
        lengths = np.linalg.norm(vectors, axis=1)
    return np.asarray(np.abs(lengths - 1.0) <= length_error)  # False for NaN and infinity too
