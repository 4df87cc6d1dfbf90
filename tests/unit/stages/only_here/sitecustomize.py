"""Refuses and notes what a process asks of other machines: a name that it looks up, an address that it connects to.

Python imports a module of this name by itself where its folder is on PYTHONPATH; then ONLY_HERE is the file of notes.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
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


def _append(line: str) -> None:
    with Path(os.environ["ONLY_HERE"]).open("a", encoding="utf-8") as notes:
        notes.write(f"{line}\n")


if "ONLY_HERE" in os.environ and __name__ == "sitecustomize":
    refuse_others(_append)
    _append(STARTED)
