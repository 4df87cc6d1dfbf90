"""Messages, commands and the cache folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

PROGRESS_SECONDS = 12.0


class ImagesError(Exception):
    """Something a person can act on; the text is the whole message."""


def say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def cache_home() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    folder = Path(base) / "embedding-operator" / "images"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def run(
    command: Sequence[str | Path], *, cwd: Path | None = None, check: bool = True, env: Mapping[str, str] | None = None
) -> str:
    """Run a short command; its standard output, or what it said when it failed."""
    words = [str(word) for word in command]
    result = subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False, env=env)
    if check and result.returncode != 0:
        said = (result.stderr or result.stdout).strip()[-3000:]
        raise ImagesError(f"`{' '.join(words)[:300]}` failed with exit code {result.returncode}:\n{said}")
    return result.stdout


def run_long(what: str, command: Sequence[str | Path], *, cwd: Path | None = None) -> None:
    """Run a long command with its output in a log, and say every few seconds that it lives."""
    log = cache_home() / "logs" / f"{what.replace(' ', '-').replace('/', '-')}.log"
    log.parent.mkdir(exist_ok=True)
    started = reported = time.monotonic()
    with log.open("wb") as output:
        words = [str(word) for word in command]
        process = subprocess.Popen(words, cwd=cwd, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        while process.poll() is None:
            try:
                process.wait(timeout=0.5)
            except subprocess.TimeoutExpired:
                if time.monotonic() - reported >= PROGRESS_SECONDS:
                    reported = time.monotonic()
                    say(f"  {what}: {reported - started:.0f} s, {_last_line(log)}")
    if process.returncode != 0:
        text = log.read_text(errors="replace")[-3000:]
        raise ImagesError(f"{what} failed with exit code {process.returncode}; the end of {log}:\n{text}")
    say(f"  {what}: done in {time.monotonic() - started:.0f} s")


def _last_line(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(0, 2)
        file.seek(max(0, file.tell() - 2000))
        lines = file.read().decode("utf-8", "replace").replace("\r", "\n").split("\n")
    return next((line.strip()[:100] for line in reversed(lines) if line.strip()), "no output yet")


def require_free(folder: Path, gigabytes: float, what: str, cure: str = "make room") -> None:
    free = shutil.disk_usage(folder).free / 1e9
    if free < gigabytes:
        raise ImagesError(f"{what} needs {gigabytes:.0f} GB and {folder} has {free:.1f} GB free; {cure}")


class ProgressPump(threading.Thread):
    """Says every few seconds how many bytes went through."""

    def __init__(self, what: str) -> None:
        super().__init__(daemon=True)
        self.what, self.bytes, self.ended = what, 0, threading.Event()

    def run(self) -> None:
        started = time.monotonic()
        while not self.ended.wait(PROGRESS_SECONDS):
            say(f"  {self.what}: {self.bytes / 1e6:.0f} MB, {time.monotonic() - started:.0f} s")
