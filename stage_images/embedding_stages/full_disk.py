"""What a stage says when it found no room: in the workspace, on the node's own disk, or in the pod's shared memory.

Each has another cure. A workspace stays full until somebody acts; another node may have a disk with room.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from embedding_stages.contract import DISK_FULL, SHARED_MEMORY_FULL, Stage
from embedding_stages.errors import BadInput, StageError, Transient

SHARED_MEMORY: Final = Path("/dev/shm")
_FULL: Final = re.compile(  # safetensors and other Rust, the C library, numpy
    r"os error (?:28|122)\b|No space left on device|Disk quota exceeded|\d+ requested and \d+ written"
    r"|Not enough free space to write"
)
_IN_SHARED_MEMORY: Final = re.compile(r"/dev/shm/\S*|</torch_\S*")  # in NCCL's words, and in torch's
_NOTHING_LEFT: Final = 1 << 20  # bytes
_USUAL: Final = Path("/tmp")  # for what is temporary
_NO_FOLDER: Final = "No usable temporary directory"  # Python's words; it tries each by writing to it


def is_full(error: Exception) -> bool:
    """Whether a volume is full or over its quota; libraries with writers of their own say so in words alone."""
    if _NO_FOLDER in str(error):
        return os.access(_USUAL, os.W_OK)
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or bool(_FULL.search(str(error)))


def free_bytes(folder: Path) -> int:
    """What is left where the folder lies."""
    return shutil.disk_usage(folder).free


def told_as(error: Exception, stage: Stage, workspace: Path, free: Callable[[Path], int] = free_bytes) -> StageError:
    """What the stage's end says of an error for which `is_full`. `free` gives the bytes that are left in a folder."""
    place = _written_to(error)
    if not place:
        place = _without_room(workspace, free)
    at = f" at {place}" if place else ""
    if place.startswith(str(SHARED_MEMORY)):
        return BadInput(
            SHARED_MEMORY_FULL,
            f"the pod's shared memory is full{at}: it is a part of the pod's memory, 1 GiB for each of the processes "
            "that share the work of a pod; raise the limit of memory if that is lower, or spread them over more nodes",
            field=f"spec.stages.{stage}.resources.limits.memory",
        )
    if place.startswith("/") and not Path(place).is_relative_to(workspace):
        return Transient(
            DISK_FULL,
            f"the node's disk is full{at}: raise it, so that the pod runs where there is room",
            field=f"spec.stages.{stage}.resources.requests.ephemeral-storage",
        )
    return BadInput(
        DISK_FULL,
        f"the workspace is full{at}: raise it if the storage class lets a claim grow, "
        "delete folders of old fingerprints in it (none of the revision that serves, nor status.evaluationSet), or "
        "make a new resource with a larger one; after any edit of the spec the stage runs again",
        field="spec.storage.size",
    )


def told(result: str, log: Path) -> bool:
    """Write a stage's result where the kubelet reads it. False where that, on the node's disk, finds no room: the
    operator reads what is printed instead.
    """
    try:
        log.write_text(result)
    except OSError as error:
        if not is_full(error):
            raise
        print(f"the result could not be written to {log}: {error.strerror}", file=sys.stderr)
        return False
    return True


def _written_to(error: Exception) -> str:
    """The file that the error names, empty where it names none. A copy names its source first."""
    if _NO_FOLDER in str(error):
        return str(_USUAL)
    named = (error.filename2 or error.filename) if isinstance(error, OSError) else None
    if named and not isinstance(named, int):
        return named.decode(errors="replace") if isinstance(named, bytes) else str(named)
    found = _IN_SHARED_MEMORY.search(str(error))
    return "" if found is None else found[0].replace("<", str(SHARED_MEMORY)).rstrip(">:,;'\"")


def _without_room(workspace: Path, free: Callable[[Path], int]) -> str:
    """Where nothing is left beside the workspace; empty where that is full too, or nothing is: it is the likeliest."""
    full = []
    for place in (workspace, _temporary(), SHARED_MEMORY):
        try:
            full += [place] if free(place) < _NOTHING_LEFT else []
        except OSError:  # it is not there
            continue
    return "" if not full or workspace in full else str(full[0])


def _temporary() -> Path:
    """Python tries a folder by writing to it, and says that there is none where all are full."""
    try:
        return Path(tempfile.gettempdir())
    except OSError:
        return _USUAL
