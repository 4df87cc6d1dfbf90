"""Messages and commands."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class ClusterError(Exception):
    """Something a person can act on; the text is the whole message."""


def say(message: str) -> None:
    print(f"cluster: {message}", file=sys.stderr, flush=True)


def cache_home() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base, "embedding-operator")


def quiet(*command: str, seconds: float = 20) -> subprocess.CompletedProcess[str]:
    """Run a short command; one that is not there, or hangs, has failed."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds)
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 127, "", str(error))
