"""A program under measurement or beside it: started, stopped, killed and asked for what it used, by its PID."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.scale.api import LOOPBACK

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT / "hack/localkube") not in sys.path:
    sys.path.append(str(ROOT / "hack/localkube"))

from processes import die_with_parent  # noqa: E402


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


@dataclass
class Program:
    """`env` is all that it has beside PATH and HOME. It ends when we do."""

    name: str
    command: Sequence[str]
    folder: Path
    env: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0  # Unix time of the last start

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    def start(self) -> None:
        kept = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
        self.started = time.time()
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                list(self.command),
                env={**kept, **self.env},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                preexec_fn=die_with_parent(signal.SIGKILL),  # noqa: PLW1509 - nothing else holds a lock here
            )

    @property
    def pid(self) -> int:
        if self.process is None:
            raise RuntimeError(f"{self.name} was not started")
        return self.process.pid

    def is_alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        if self.process is not None and self.is_alive():
            self.process.send_signal(number)

    def kill(self) -> None:
        if self.process is not None:
            self.signal(signal.SIGKILL)
            self.process.wait()

    def end(self, seconds: float = 60) -> int:
        """SIGTERM, as the kubelet sends it; the exit code, that of SIGKILL where it did not end in time."""
        if self.process is None:
            return 0
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            return -int(signal.SIGKILL)

    def cpu_s(self) -> float:
        return cpu_s(self.pid)

    def rss_mib(self) -> float:
        return memory_mib(self.pid, "VmRSS")

    def peak_mib(self) -> float:
        return memory_mib(self.pid, "VmHWM")


def cpu_s(pid: int) -> float:
    """User and system time of a process, seconds; 0 when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mib(pid: int, what: str) -> float:
    """`what` as /proc names it: VmRSS is now, VmHWM the most so far."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{what}:")), 0.0)


def load() -> str:
    """The machine's load averages of 1 and 5 minutes."""
    return " ".join(Path("/proc/loadavg").read_text().split()[:2])


def machine() -> str:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        "unknown CPU",
    )
    total = int(Path("/proc/meminfo").read_text().split()[1]) / 1024**2
    return f"{os.cpu_count()} cores ({model}), {total:.0f} GB, {time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC"
