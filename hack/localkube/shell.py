"""Small helpers that every module uses: messages, commands, waiting on conditions."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path


class LocalkubeError(Exception):
    """Something a person can act on; the text is the whole message."""


def say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def run(
    command: Sequence[str | Path],
    *,
    check: bool = True,
    text_input: str | None = None,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and keep its output; a failure says what it printed."""
    words = [str(word) for word in command]
    try:
        result = subprocess.run(words, input=text_input, capture_output=True, text=True, check=False, env=env)
    except FileNotFoundError as error:
        if check:
            raise LocalkubeError(f"there is no command {words[0]} on this machine") from error
        return subprocess.CompletedProcess(words, 127, "", "")
    if check and result.returncode != 0:
        output = (result.stderr or result.stdout).strip()[-2000:]
        raise LocalkubeError(f"`{' '.join(words)[:300]}` failed with exit code {result.returncode}:\n{output}")
    return result


def wait_until(
    what: str, condition: Callable[[], bool], *, seconds: float, detail: Callable[[], str] | None = None
) -> None:
    """Poll a condition; after the deadline say what never came true and why."""
    deadline = time.monotonic() + seconds
    pause = 0.05
    while not condition():
        if time.monotonic() > deadline:
            reason = f"\n{detail()}" if detail else ""
            raise LocalkubeError(f"waited {seconds:.0f} s in vain: {what}{reason}")
        time.sleep(pause)
        pause = min(pause * 1.3, 0.5)


def human_size(size: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit in ("B", "KiB") else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def tail(path: Path, lines: int = 15) -> str:
    """The last lines of a log; nothing when there is none."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - 16384))
            text = file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def write_if_changed(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Write a file in one step, and only when its content differs: kube-proxy ends when its
    configuration file is written to."""
    if path.exists() and path.read_text() == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.new")
    partial.touch(mode=mode)
    partial.write_text(text)
    partial.rename(path)
