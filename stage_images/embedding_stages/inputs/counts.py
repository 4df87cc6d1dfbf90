"""What became of the files of a corpus: numbers, and the first names of those that were skipped."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Final, Literal

from embedding_stages.errors import printable

Count = Literal["skippedFiles", "skippedBinary", "skippedShort", "skippedDuplicates", "skippedPointers"]
_NUMBERS: Final = (
    "documents", "documentBytes", "skippedFiles", "skippedBinary", "skippedShort", "skippedDuplicates",
    "skippedPointers",
)  # fmt: skip
_NAMES: Final = 5  # of each count
LONGEST_NAME: Final = 80  # characters
ROOM_FOR_NAMES: Final = 300  # of all names as JSON: they share a termination message with the stage's other words


@dataclass(slots=True)
class Counts:
    """`skippedFiles`: links, special files, and files and folders that `include` leaves out."""

    documents: int = 0
    documentBytes: int = 0  # noqa: N815
    skippedFiles: int = 0  # noqa: N815
    skippedBinary: int = 0  # noqa: N815 - what is no text: see `formats.characters.decode`
    skippedShort: int = 0  # noqa: N815 - fewer characters than minTextLength
    skippedDuplicates: int = 0  # noqa: N815 - the text of an earlier path
    skippedPointers: int = 0  # noqa: N815 - Git LFS pointers in place of files
    warnings: list[str] = field(default_factory=list)  # for people
    _names: dict[str, list[str]] = field(default_factory=dict)

    def skip(self, count: Count, name: str, why: str) -> None:
        """One more of `count`."""
        setattr(self, count, getattr(self, count) + 1)
        names = self._names.setdefault(count, [])
        if len(names) < _NAMES:
            names.append(f"{printable(name, LONGEST_NAME, end=True)}: {why}")

    def to_json(self) -> dict[str, int]:
        """The numbers."""
        return {name: getattr(self, name) for name in _NUMBERS}

    def named(self, count: Count) -> str:
        """The first names of a count, for a message."""
        names = self._names.get(count, [])
        more = getattr(self, count) - len(names)
        return ", ".join(names) + (f" and {more} more" if more else "")

    def told(self, room: int = ROOM_FOR_NAMES) -> dict[str, list[str]]:
        """By count, the first names and why, five at most and as many as fit `room` bytes."""
        left, found = room, dict[str, list[str]]()
        for place in range(_NAMES):
            for count, names in self._names.items():
                if place < len(names) and (cost := len(json.dumps(names[place], ensure_ascii=False).encode())) <= left:
                    found.setdefault(count, []).append(names[place])
                    left -= cost
        return found
