"""JSON lines: one object a line, UTF-8, blank lines skipped. Every fault names file and line."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from embedding_stages.formats import characters

_OBJECTS = "write one JSON object a line"
_FIRST_FAULTS = 10
_NOT_DECODED = "not UTF-8; convert the file"


class FormatError(Exception):
    """A file is not of its format: `where` (file, or file:line), then the fault and its cure."""

    def __init__(self, where: str, fault: str) -> None:
        super().__init__(f"{where}: {fault}")


@dataclass(slots=True)
class Faults:
    """What is wrong with the lines of a file, so that one error tells all of it."""

    count: int = 0
    _first: list[FormatError] = field(default_factory=list)

    def note(self, error: FormatError) -> None:
        self.count += 1
        if len(self._first) < _FIRST_FAULTS:
            self._first.append(error)

    def check(self) -> None:
        """Raises FormatError: the fault, or how many there are and the first ten."""
        if self.count == 1:
            raise self._first[0]
        if self.count:
            more = f". And {self.count - len(self._first)} more" if self.count > len(self._first) else ""
            raise FormatError(f"{self.count} lines are unsound", ". ".join(map(str, self._first)) + more)


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much of an untrusted file is read."""

    line_bytes: int
    lines: int


def read_lines(stream: BinaryIO, name: str, bounds: Bounds | None = None) -> Iterator[tuple[int, str]]:
    """(line number from 1, text without its end). UTF-8, or UTF-16 or UTF-32 where a byte-order mark says so.

    Raises FormatError for what cannot be decoded and for what is beyond the bounds.
    """
    most = -1 if bounds is None else bounds.line_bytes + 1
    for number, raw in enumerate(_raw_lines(stream, name, most), start=1):
        if bounds and (len(raw) > bounds.line_bytes or number > bounds.lines):
            fault = f"longer than {bounds.line_bytes} bytes or {bounds.lines} lines; shorten it"
            raise FormatError(f"{name}:{number}", fault)
        try:
            yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise FormatError(f"{name}:{number}", _NOT_DECODED) from error


def _raw_lines(stream: BinaryIO, name: str, most: int) -> Iterator[bytes]:
    """The lines in UTF-8, as far as they are, cut at `most` bytes or a little behind."""
    first = stream.readline(most)
    encoding = characters.encoding_of(first[: characters.MARK_BYTES])
    if encoding in ("utf-8", "utf-8-sig"):
        while first:
            yield first
            first = stream.readline(most)
        return
    stream.seek(0)
    text = io.TextIOWrapper(stream, encoding, newline="\n")
    try:
        while line := text.readline(most):
            yield line.encode()
    except UnicodeError as error:
        raise FormatError(name, _NOT_DECODED) from error
    finally:
        text.detach()


def parse_records(lines: Iterable[tuple[int, str]], name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """("file:line", object) of each line that is not blank. Raises FormatError."""
    for number, line in lines:
        if line.strip():
            where = f"{name}:{number}"
            yield where, parse_record(line, where)


def parse_record(line: str, where: str) -> dict[str, Any]:
    """The object of one line. Raises FormatError."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise FormatError(where, f"not JSON: {str(error)[:100]}; {_OBJECTS}") from error
    if not isinstance(record, dict):
        raise FormatError(where, f"not a JSON object; {_OBJECTS}")
    return record


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
