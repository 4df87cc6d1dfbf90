"""Reading as a user to whom files of mode 0 are closed, which they are not to root."""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterator
from contextlib import contextmanager

NOBODY = 65534


@contextmanager
def as_nobody() -> Iterator[None]:
    """For root; others are somebody like that already."""
    # Python's own files may be root's alone. What is imported late has to be there before: a codec that is not found
    # once is never looked for again in this process.
    codecs.lookup("utf-8-sig")
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
