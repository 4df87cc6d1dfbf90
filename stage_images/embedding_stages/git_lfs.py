"""Git LFS pointers: small texts that lie where a clone has not fetched its large files. Standard library only."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

MOST_BYTES: Final = 1024  # of a pointer, as its specification says
_POINTER = re.compile(rb"version https://(?:git-lfs|hawser)\.github\.com/spec/\S+\r?\n(?:[a-z0-9.-]+ .*(?:\n|\Z))+")
CURE: Final = "is a Git LFS pointer, not the file itself; run `git lfs pull` in the clone that it was copied from"


def is_pointer(content: bytes) -> bool:
    """Whether this is the whole of a pointer: lines of keys and values. A text that quotes one is none."""
    return len(content) < MOST_BYTES and _POINTER.fullmatch(content) is not None


def is_pointer_file(path: Path) -> bool:
    """Raises OSError when the file cannot be read."""
    if path.stat().st_size >= MOST_BYTES:
        return False
    return is_pointer(path.read_bytes())
