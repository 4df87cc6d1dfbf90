"""A weight file's header, read before its tensors are."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embedding_stages.encoder.safetensors_check import read_header

Change = Callable[[Path], object]


def file_of(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(begin: int, end: int, shape: list[Any], dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


HEADERS: list[tuple[str, bytes]] = [
    ("an empty file", b""),
    ("a header longer than the file", file_of({}, length=10**12)),
    ("a header that is no JSON", file_of(b"{")),
    ("a header that is a list", file_of([])),
    ("a header that nests too deep", file_of(b"[" * 100_000 + b"]" * 100_000)),
    ("no tensors", file_of({"__metadata__": {}})),
    ("a tensor without offsets", file_of({"a": {"dtype": "F32", "shape": [1]}}, bytes(4))),
    ("a negative shape", file_of({"a": entry(0, 4, [-1])}, bytes(4))),
    ("an unknown type", file_of({"a": entry(0, 4, [1], "PICKLE")}, bytes(4))),
    ("a shape that does not fill its bytes", file_of({"a": entry(0, 4, [2])}, bytes(4))),
    ("tensors that overlap", file_of({"a": entry(0, 8, [2]), "b": entry(4, 8, [1])}, bytes(8))),
    ("a hole between tensors", file_of({"a": entry(0, 4, [1]), "b": entry(8, 12, [1])}, bytes(12))),
    ("a tensor outside the file", file_of({"a": entry(0, 8, [2])}, bytes(4))),
    ("bytes after the last tensor", file_of({"a": entry(0, 4, [1])}, bytes(8))),
]


@pytest.mark.parametrize(("sentence", "content"), HEADERS, ids=[row[0] for row in HEADERS])
def test_a_weight_file_is_refused_for(sentence: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"."):
        read_header(path)


def test_a_sound_weight_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(file_of({"a": entry(0, 4, [1]), "e": entry(4, 4, [0]), "b": entry(4, 8, [2], "F16")}, bytes(8)))
    assert {name: tensor.shape for name, tensor in read_header(path).items()} == {"a": (1,), "e": (0,), "b": (2,)}
