"""A network of its own, in which the server's port is free and nothing else can be reached; as root."""

from __future__ import annotations

import ctypes
import subprocess
from typing import Final

import pytest

_NEW_NETWORK: Final = 0x40000000  # CLONE_NEWNET


@pytest.fixture(scope="session", autouse=True)
def network() -> None:
    if ctypes.CDLL(None, use_errno=True).unshare(_NEW_NETWORK):
        raise OSError(ctypes.get_errno(), "a network namespace needs root")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
