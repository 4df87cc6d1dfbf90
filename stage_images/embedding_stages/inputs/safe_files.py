"""Reading untrusted folders: regular files below a root, never through a link, never a pipe or a device.

Links are followed in one place alone: in the path that the manifest names, inside its volume (`sub_folder`). Every
folder and file is opened by name below its parent's descriptor with O_NOFOLLOW, so that swapping a folder for a link
while it is read cannot lead outside either.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from embedding_stages.errors import BadInput, own_groups, printable

_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # NONBLOCK: a FIFO must not hang us
_LOST_AND_FOUND = "lost+found"  # in the root of a volume, readable for root alone
_NOT_PLAIN = frozenset({errno.ELOOP, errno.ENOTDIR, errno.ENXIO, errno.ENODEV, errno.EMLINK})


class NotRegularError(Exception):
    """The name is a link, a folder, a pipe, a socket or a device."""


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A regular file; `path` is relative to the root, with forward slashes."""

    path: str
    size: int  # bytes, when it was listed


@dataclass(slots=True)
class Listing:
    """What lies below a folder."""

    files: list[FoundFile] = field(default_factory=list)  # sorted by path
    skipped: list[str] = field(default_factory=list)  # links, special files and names that are not UTF-8
    not_entered: list[str] = field(default_factory=list)  # folders that the caller wants nothing of


@dataclass(frozen=True, slots=True)
class Depth:
    """The deepest folder allowed, and the field to name when there is a deeper one."""

    limit: int
    field: str


def sub_folder(mount: Path, path: str, *, reason: str, field: str) -> Path:
    """`path` below `mount`, which may not leave it. Raises BadInput `reason` when it does or does not exist.

    A link on the way is followed when it stays inside `mount`, as git-sync's `current -> .worktrees/<commit>` does:
    once, so that all is read of one commit. The folder is then opened without following any.
    """
    parts = PurePosixPath(path.strip("/")).parts if path else ()
    if ".." in parts or "\0" in path:
        raise BadInput(reason, f"{path!r} must stay inside the source: remove '..'", field=field)
    root = Path(os.path.realpath(mount))
    folder = Path(os.path.realpath(root.joinpath(*parts)))
    if not folder.is_relative_to(root):
        raise BadInput(
            reason, f"{path!r} lies behind a link that leaves the source; name a folder inside it", field=field
        )
    inside = folder.relative_to(root)
    try:
        os.close(open_folder(root, inside.as_posix()))
    except FileNotFoundError as error:
        raise BadInput(
            reason, f"{path or '/'!r} does not exist in the source; correct the path", field=field
        ) from error
    except NotRegularError as error:
        raise BadInput(
            reason, f"{path!r} is not a folder, or a link in it leads in a circle; name the folder", field=field
        ) from error
    return mount / inside


@contextmanager
def permitted(what: str, *, reason: str, field: str) -> Iterator[None]:
    """For reading alone: what may not be read is BadInput `reason`, which names the file."""
    try:
        yield
    except PermissionError as error:
        raise BadInput(
            reason,
            f"no permission to read {printable(str(error.filename))}; let {own_groups()} read {what}",
            field=field,
        ) from error


def open_folder(root: Path, path: str) -> int:
    """A descriptor of a folder below `root`. Raises NotRegularError, FileNotFoundError."""
    handle = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for part in PurePosixPath(path).parts:
        try:
            inner = _open(part, _FOLDER_FLAGS, handle)
        finally:
            os.close(handle)
        handle = inner
    return handle


@contextmanager
def open_file(root: Path, path: str) -> Iterator[BinaryIO]:
    """A regular file below `root` for reading. Raises NotRegularError, FileNotFoundError."""
    parent, _, name = path.rpartition("/")
    folder = open_folder(root, parent)
    try:
        handle = _open(name, _FILE_FLAGS, folder)
    finally:
        os.close(folder)
    with os.fdopen(handle, "rb") as stream:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise NotRegularError(path)
        yield stream


def _anywhere(folder: str) -> bool:  # noqa: ARG001 - by default every folder is entered
    return True


def list_folder(
    root: Path, *, depth: Depth, visit: Callable[[int], None], enters: Callable[[str], bool] = _anywhere
) -> Listing:
    """All regular files below `root`. `visit` gets the number of entries seen so far and may raise.

    A folder that `enters` declines, by its relative path, is not opened, so it need not be readable.
    Raises BadInput `CorpusTooDeep`.
    """
    listing = Listing()
    seen = 0
    folders = [("", 0)]
    while folders:
        folder, level = folders.pop()
        if level > depth.limit:
            raise BadInput(
                "CorpusTooDeep",
                f"folder {printable(folder)} is nested deeper than maxDepth={depth.limit}; flatten it",
                field=depth.field,
            )
        for entry, status in _entries(root, folder):
            seen += 1
            visit(seen)
            path = f"{folder}/{entry}" if folder else entry
            if status is None or not _is_utf8(entry) or path == _LOST_AND_FOUND:
                listing.skipped.append(path)
            elif stat.S_ISDIR(status.st_mode) and not enters(path):
                listing.not_entered.append(path)
            elif stat.S_ISDIR(status.st_mode):
                folders.append((path, level + 1))
            elif stat.S_ISREG(status.st_mode):
                listing.files.append(FoundFile(path, status.st_size))
            else:
                listing.skipped.append(path)
    listing.files.sort(key=lambda file: file.path)
    listing.skipped.sort()
    return listing


def list_config_map(root: Path) -> Listing:
    """The keys of a mounted ConfigMap: links to files in a folder beside them, which the kubelet swaps.

    A link that leads outside `root` is skipped. Paths are those of the files that the links lead to;
    `key_of` turns them back into keys.
    """
    listing = Listing()
    real_root = root.resolve()
    for entry in sorted(os.scandir(root), key=lambda entry: entry.name):
        if entry.name.startswith(".."):
            continue
        target = Path(entry.path).resolve()
        if not target.is_relative_to(real_root) or not target.is_file():
            listing.skipped.append(entry.name)
            continue
        listing.files.append(FoundFile(target.relative_to(real_root).as_posix(), target.stat().st_size))
    return listing


def key_of(path: str) -> str:
    """The ConfigMap key of a path that `list_config_map` gave: its last part."""
    return path.rpartition("/")[2]


def _entries(root: Path, folder: str) -> Iterator[tuple[str, os.stat_result | None]]:
    try:
        handle = open_folder(root, folder)
    except (NotRegularError, FileNotFoundError):  # swapped or removed since it was listed
        return
    try:
        with os.scandir(handle) as entries:
            for entry in entries:
                try:
                    yield entry.name, entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    yield entry.name, None
    finally:
        os.close(handle)


def _open(name: str, flags: int, folder: int) -> int:
    try:
        return os.open(name, flags, dir_fd=folder)
    except OSError as error:
        if error.errno in _NOT_PLAIN:
            raise NotRegularError(name) from error
        raise


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
