"""What the operator's process holds, told from within, a JSON line each few seconds: what it has allocated and not
freed tells whether memory that grows is held by somebody or lies between what is held.
"""

from __future__ import annotations

import ctypes
import gc
import json
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Final

EVERY_S: Final = 5.0
_TYPES_EVERY: Final = 12  # lines
_TYPES: Final = 40
_FIELDS: Final = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks")


class _MallInfo(ctypes.Structure):
    """glibc's `struct mallinfo2`, bytes."""

    _fields_ = [(name, ctypes.c_size_t) for name in (*_FIELDS, "keepcost")]


def tell(path: str) -> None:
    """Write lines to `path` until the process ends."""
    threading.Thread(target=_tell, args=(Path(path),), daemon=True, name="holdings").start()


def _tell(path: Path) -> None:
    libc = ctypes.CDLL(None)
    libc.mallinfo2.restype = _MallInfo
    count = 0
    with path.open("a") as out:
        while True:
            out.write(json.dumps(_line(libc, types=count % _TYPES_EVERY == 0)) + "\n")
            out.flush()
            count += 1
            time.sleep(EVERY_S)


def _line(libc: ctypes.CDLL, *, types: bool) -> dict[str, object]:
    """`blocks` are those of Python's own allocator, a number; `malloc*` are bytes: in use, free and not given back,
    mapped one by one.
    """
    status = Path("/proc/self/status").read_text().splitlines()
    info = libc.mallinfo2()
    line: dict[str, object] = {
        "at": round(time.monotonic(), 1),
        "rssKiB": next(int(text.split()[1]) for text in status if text.startswith("VmRSS:")),
        "blocks": sys.getallocatedblocks(),
        "mallocUsed": info.uordblks,
        "mallocFree": info.fordblks,
        "mallocMapped": info.hblkhd,
        "threads": threading.active_count(),
    }
    if types:
        kinds = Counter(type(item).__qualname__ for item in gc.get_objects())
        line["types"] = dict(kinds.most_common(_TYPES))
    return line
