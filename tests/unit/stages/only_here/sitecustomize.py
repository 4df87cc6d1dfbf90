"""Holds a process to what it has in its image. Refuses and notes what it asks of other machines: a name that it looks
up, an address that it connects to. Refuses modules of packages that the image lacks.

Python imports a module of this name by itself where its folder is on PYTHONPATH; then ONLY_HERE is the file of notes,
and LACKING one with a module's name a line.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import socket
import sys
from collections.abc import Callable, Iterable
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

STARTED = "started"
Undo = Callable[[], None]


def refuse_others(note: Callable[[str], None]) -> Undo:
    """Returns what takes it back."""
    connect, look_up = socket.socket.connect, socket.getaddrinfo

    def checked(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1"):
            note(str(address))
            raise OSError(f"{address} is not this machine")
        connect(self, address)

    def only_here(host: Any, *rest: Any, **more: Any) -> Any:
        if host not in ("127.0.0.1", "localhost", None):
            note(str(host))
            raise OSError(f"{host} is not this machine")
        return look_up(host, *rest, **more)

    def undo() -> None:
        setattr(socket.socket, "connect", connect)  # noqa: B010 - typed as what cannot be assigned
        socket.getaddrinfo = look_up

    setattr(socket.socket, "connect", checked)  # noqa: B010
    socket.getaddrinfo = only_here
    return undo


class Lacking:
    """Python's own finder of modules, to which these are not installed."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = frozenset(names)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name.partition(".")[0] in self.names:
            return None
        return PathFinder.find_spec(name, path, target)

    def __getattr__(self, name: str) -> Any:
        return getattr(PathFinder, name)


def modules_not_in(lock: Path) -> list[str]:
    """Of all packages that are installed here and that the lock does not name."""
    locked = {_normal(found) for found in re.findall(r"(?m)^([A-Za-z0-9._-]+)==", lock.read_text())}
    own = "embedding_stages"
    found = importlib.metadata.packages_distributions()
    return [name for name, of in found.items() if name != own and locked.isdisjoint(map(_normal, of))]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _append(line: str) -> None:
    with Path(os.environ["ONLY_HERE"]).open("a", encoding="utf-8") as notes:
        notes.write(f"{line}\n")


if "ONLY_HERE" in os.environ and __name__ == "sitecustomize":
    refuse_others(_append)
    lacking = Lacking(Path(os.environ["LACKING"]).read_text().split())
    sys.meta_path[:] = [lacking if one is PathFinder else one for one in sys.meta_path]
    _append(STARTED)
