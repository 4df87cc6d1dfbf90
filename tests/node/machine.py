"""Faults of the machine that the cluster runs on: what is killed here is a real component of it, or a real disk."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from e2e.kube import ROOT, Kube
from settings import NODE_NAME, State


def tool(*arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, f"{' '.join(arguments)}: {done.stderr}"
    return done.stdout


def kill(component: str) -> None:
    record = json.loads((State.from_environment().run / f"{component}.json").read_text())
    os.kill(int(record["pid"]), signal.SIGKILL)


def up() -> None:
    """Start again whatever of the cluster is dead, and wait until the node and its names work."""
    tool("hack/localkube", "up")


@contextmanager
def dead(component: str) -> Iterator[None]:
    kill(component)
    try:
        yield
    finally:
        up()


@contextmanager
def short_of_memory() -> Iterator[None]:
    """The kubelet wants nearly all memory to be free: it evicts one pod after the other."""
    tool("hack/localkube", "up", LOCALKUBE_MEMORY_WANTED_FREE="99%")
    try:
        yield
    finally:
        up()


def node_says(kube: Kube, condition: str = "Ready") -> str:
    """True, False, or Unknown for a node that does not answer."""
    text = kube.run("get", "node", NODE_NAME, "-o", "json")
    conditions = json.loads(text)["status"]["conditions"]
    return str(next(item["status"] for item in conditions if item["type"] == condition))


class SmallDisk:
    """A file system of its own, in memory, that is as large as it is told to be."""

    def __init__(self, path: Path, megabytes: int) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        self._mount("mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0777", "tmpfs", str(path))

    def grow(self, megabytes: int) -> None:
        self._mount("mount", "-o", f"remount,size={megabytes}m", str(self.path))

    def fill(self, *, but_megabytes: int) -> None:
        """As somebody does who shares it."""
        with self._filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, (self.free_megabytes() - but_megabytes) * 2**20)

    def empty(self) -> None:
        self._filler.unlink()

    @property
    def _filler(self) -> Path:
        return self.path / "somebody-elses"

    def free_megabytes(self) -> int:
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_frsize // 2**20

    def removed(self) -> bool:
        """False while somebody still has it mounted."""
        return subprocess.run(["umount", str(self.path)], check=False, capture_output=True).returncode == 0

    @staticmethod
    def _mount(*command: str) -> None:
        subprocess.run(command, check=True, capture_output=True)
