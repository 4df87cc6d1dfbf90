"""JSON lines: one object a line, UTF-8, blank lines skipped. Every fault names file and line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

_OBJECTS = "write one JSON object a line"


class FormatError(Exception):
    """A file is not of its format: `where` (file, or file:line), then the fault and its cure."""

    def __init__(self, where: str, fault: str) -> None:
        super().__init__(f"{where}: {fault}")


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much of an untrusted file is read."""

    line_bytes: int
    lines: int


def read_lines(stream: BinaryIO, name: str, bounds: Bounds | None = None) -> Iterator[tuple[int, str]]:
    """(line number from 1, text without its end). A byte-order mark at the start is skipped.

    Raises FormatError for what is not UTF-8 and for what is beyond the bounds.
    """
    most = -1 if bounds is None else bounds.line_bytes + 1
    number = 0
    while raw := stream.readline(most):
        number += 1
        if bounds and (len(raw) > bounds.line_bytes or number > bounds.lines):
            fault = f"longer than {bounds.line_bytes} bytes or {bounds.lines} lines; shorten it"
            raise FormatError(f"{name}:{number}", fault)
        try:
            yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise FormatError(f"{name}:{number}", "not UTF-8; convert the file") from error


def parse_records(lines: Iterable[tuple[int, str]], name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """("file:line", object) of each line that is not blank. Raises FormatError."""
    for number, line in lines:
        if not line.strip():
            continue
        where = f"{name}:{number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise FormatError(where, f"not JSON: {str(error)[:100]}; {_OBJECTS}") from error
        if not isinstance(record, dict):
            raise FormatError(where, f"not a JSON object; {_OBJECTS}")
        yield where, record


def read_records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The same of a file. Raises FormatError, also where there is no file."""
    try:
        stream = path.open("rb")
    except FileNotFoundError as error:
        raise FormatError(path.name, "it is missing; add it") from error
    with stream:
        yield from parse_records(read_lines(stream, path.name), path.name)


def write_records(path: Path, records: Iterable[Mapping[str, object]]) -> int:
    """Makes the folder of the file. Returns the number of records."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with path.open("w", encoding="utf-8") as stream:
        for record in records:
            stream.write(json.dumps(record, ensure_ascii=False) + "\n")
            count += 1
    return count


def text_of(record: Mapping[str, Any], key: str, where: str) -> str:
    """A text that is not blank. Raises FormatError."""
    value = record.get(key)
    if not isinstance(value, str) or not value.strip():
        raise FormatError(where, f"{key} is missing or empty; write a text")
    return value


def texts_of(record: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    """A list of texts. Raises FormatError."""
    value = record.get(key)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise FormatError(where, f"{key} is not a list of texts; write one")
    return tuple(value)
