"""Programs that the quickstart runs, and how long each part took."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class Failed(Exception):
    """The quickstart cannot go on; the message is for the person who started it."""


def say(message: str) -> None:
    """One line about what happens now."""
    print(f"quickstart: {message}", flush=True)


def tool(folder: str, *arguments: str, capture: bool = False) -> str:
    """Run one of the project's own tools; its output is shown unless it is wanted."""
    command = [sys.executable, str(ROOT / folder), *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE if capture else None, text=True, check=False)
    if done.returncode:
        raise Failed(f"{folder} {' '.join(arguments)} failed")
    return done.stdout or ""


class Kubectl:
    """kubectl, and other programs, with the cluster's environment."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self.env = {**os.environ, **env}
        self.shown = dict(env)

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        return self.program("kubectl", *arguments, stdin=stdin)

    def program(self, *command: str, stdin: str | None = None) -> str:
        done = subprocess.run(
            command, env=self.env, input=stdin, capture_output=True, text=True, check=False, timeout=300
        )
        if done.returncode:
            raise Failed(f"{' '.join(command[:3])}: {(done.stderr or done.stdout).strip()}")
        return done.stdout


class Clock:
    """Seconds that each step took, in order."""

    def __init__(self) -> None:
        self.steps: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self.steps[name] = time.monotonic() - started
