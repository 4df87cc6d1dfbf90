"""Query maps that can be worked out by hand, and models that have one."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from embedding_stages.encoder.description import description_of
from embedding_stages.encoder.query_map import QueryMap
from embedding_stages.vectors import Vectors


def a_map(hidden: int, *, seed: int = 5, size: float = 0.3) -> QueryMap:
    """The identity and something on top, so that queries move."""
    change = np.random.default_rng(seed).normal(size=(hidden, hidden)).astype(np.float32)
    return QueryMap(np.eye(hidden, dtype=np.float32) + size * change)


def with_map(base: Path, folder: Path, query_map: QueryMap) -> Path:
    """A copy of a model's folder that has this map."""
    shutil.copytree(base, folder)
    replace(description_of(base), query_map=True).save(folder)
    query_map.save(folder)
    return folder


def mapped(weight: Vectors, vectors: Vectors, size: int | None = None) -> Vectors:
    """In float64, row by row."""
    rows = []
    for vector in vectors.astype(np.float64):
        moved = (weight.astype(np.float64) @ vector)[:size]
        rows.append(moved / np.sqrt((moved**2).sum()))
    return np.asarray(rows, dtype=np.float32)
