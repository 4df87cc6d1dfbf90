"""Proves that weight files are sound safetensors before anything maps them. Standard library only.

A safetensors file is an unsigned 64-bit little-endian header length, a JSON header
{name: {dtype, shape, data_offsets: [begin, end]}} and the tensors' bytes; offsets count from there.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedding_stages import git_lfs
from embedding_stages.errors import BadInput

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
ADAPTER_CONFIG = "adapter_config.json"  # of adapters in peft's layout
_MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors library itself
_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64,
}  # fmt: skip
_PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor of a weight file."""

    dtype: str  # safetensors' name, for example F32
    shape: tuple[int, ...]
    begin: int  # bytes from the end of the header
    end: int


def weight_files(folder: Path, *, field: str, what: str = "the model") -> list[Path]:
    """The safetensors files of a model folder: one file, or the shards that its index names; `what` it is for messages.

    Raises BadInput `ModelIncomplete` when there are none, or only pickled weights, or a shard is missing.
    """
    single, index = folder / SINGLE_FILE, folder / INDEX_FILE
    if single.is_file():
        return [single]
    if index.is_file():
        return _shards(folder, index, field)
    raise no_weights((path.name for path in folder.iterdir()), field=field, what=what)


def no_weights(names: Iterable[str], *, field: str, what: str = "the model") -> BadInput:
    """Why a model with files of these names, none of them `SINGLE_FILE` or `INDEX_FILE`, cannot be used."""
    names = list(names)
    if ADAPTER_CONFIG in names:
        return BadInput(
            "ModelIncomplete",
            f"{what} is adapters alone ({ADAPTER_CONFIG}); merge them into their base model with peft "
            "(merge_and_unload), and give what save_pretrained writes of that",
            field=field,
        )
    pickled = sorted(name for name in names if name.endswith(_PICKLE_SUFFIXES) and name != "training_args.bin")
    if pickled:
        return BadInput(
            "ModelPickled",
            f"{what} has only pickled weights ({', '.join(pickled[:3])}), which can run code when "
            "read and are never loaded; convert them with save_pretrained(..., safe_serialization=True)",
            field=field,
        )
    return BadInput(
        "ModelIncomplete",
        f"{what} has neither {SINGLE_FILE} nor {INDEX_FILE}; add its weights",
        field=field,
    )


def check_weights(folder: Path, *, field: str, what: str = "the model") -> dict[str, TensorEntry]:
    """All tensors of a model folder by name, after every header was checked; `what` it is for messages.

    Raises BadInput `ModelIncomplete`, `ModelPickled` or `ModelDamaged`.
    """
    tensors: dict[str, TensorEntry] = {}
    files = weight_files(folder, field=field, what=what)
    for path in files:
        _refuse_pointer(path, field)
        try:
            entries = read_header(path)
        except ValueError as error:
            raise BadInput(
                "ModelDamaged",
                f"{path.name} is not a sound safetensors file: {error}; fetch it again",
                field=field,
            ) from error
        doubled = tensors.keys() & entries.keys()
        if doubled:
            raise BadInput("ModelDamaged", f"tensor {min(doubled)} is in more than one shard", field=field)
        tensors.update(entries)
    if [path.name for path in files] != [SINGLE_FILE]:
        missing = _index(folder / INDEX_FILE, field).keys() - tensors.keys()
        if missing:
            raise BadInput("ModelIncomplete", f"{INDEX_FILE} names {min(missing)}, which no shard holds", field=field)
    return tensors


def _refuse_pointer(path: Path, field: str) -> None:
    if git_lfs.is_pointer_file(path):
        raise BadInput("ModelDamaged", f"{path.name} {git_lfs.CURE}", field=field)


def read_header(path: Path) -> dict[str, TensorEntry]:
    """The tensors of one file. Raises ValueError that says what is wrong."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        prefix = stream.read(8)
        if len(prefix) < 8:
            raise ValueError("shorter than the 8 bytes of its header length")
        (length,) = struct.unpack("<Q", prefix)
        if length > min(_MAX_HEADER_BYTES, size - 8):
            raise ValueError(f"header of {length} bytes does not fit a file of {size} bytes")
        text = stream.read(length)
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"header is not JSON ({error})") from error
    if not isinstance(raw, dict):
        raise ValueError("header is not a JSON object")  # noqa: TRY004 - one error class for a damaged file
    entries = {name: _entry(name, value) for name, value in raw.items() if name != "__metadata__"}
    if not entries:
        raise ValueError("it holds no tensors")
    _check_layout(entries.items(), data_bytes=size - 8 - length)
    return entries


def _entry(name: str, value: Any) -> TensorEntry:
    try:
        dtype, shape, (begin, end) = str(value["dtype"]), tuple(value["shape"]), value["data_offsets"]
        numbers = [*shape, begin, end]
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(f"tensor {name} lacks dtype, shape or data_offsets") from error
    if not all(isinstance(number, int) and not isinstance(number, bool) and number >= 0 for number in numbers):
        raise ValueError(f"tensor {name} has a shape or offset that is not a whole number >= 0")
    if dtype not in _BITS:
        raise ValueError(f"tensor {name} has the unknown type {dtype}")
    if math.prod(shape) * _BITS[dtype] != (end - begin) * 8:
        raise ValueError(f"tensor {name}: shape {list(shape)} of {dtype} does not take {end - begin} bytes")
    return TensorEntry(dtype=dtype, shape=shape, begin=begin, end=end)


def _check_layout(entries: Iterable[tuple[str, TensorEntry]], *, data_bytes: int) -> None:
    """Tensors must tile the data: no overlap, no hole, nothing outside the file."""
    position = 0
    for name, entry in sorted(entries, key=lambda item: (item[1].begin, item[1].end)):
        if entry.begin != position:
            raise ValueError(f"tensor {name} begins at byte {entry.begin}, expected {position} (overlap or hole)")
        position = entry.end
    if position != data_bytes:
        raise ValueError(f"tensors take {position} bytes, the file holds {data_bytes} (cut off or padded)")


def _index(index: Path, field: str) -> dict[str, str]:
    """File by tensor."""
    _refuse_pointer(index, field)
    try:
        raw = json.loads(index.read_bytes())["weight_map"]
        return {str(tensor): name for tensor, name in raw.items()}
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise BadInput("ModelDamaged", f"{INDEX_FILE} is not a shard index ({error})", field=field) from error


def _shards(folder: Path, index: Path, field: str) -> list[Path]:
    paths = []
    for name in sorted({str(name) for name in _index(index, field).values()}):
        path = folder / name
        if path.name != name or path.suffix != ".safetensors":
            raise BadInput("ModelDamaged", f"{INDEX_FILE} names {name!r}, not a file beside it", field=field)
        if not path.is_file():
            raise BadInput("ModelIncomplete", f"{INDEX_FILE} names {name}, which is missing; add it", field=field)
        paths.append(path)
    return paths
