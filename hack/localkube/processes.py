"""Background processes with pid files that cannot be confused with somebody else's pid."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from shell import LocalkubeError, run, tail, wait_until

PR_SET_PDEATHSIG = 1
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def start_time(pid: int) -> str | None:
    """When the living process `pid` began, in ticks since boot; None for the dead and for zombies."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat[stat.rindex(")") + 2 :].split()
    return None if fields[0] in ("Z", "X") else fields[19]


def parent_of(pid: int) -> int:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    return int(stat[stat.rindex(")") + 2 :].split()[1])


def command_line(pid: int) -> list[str]:
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return []
    return raw.decode("utf-8", "replace").rstrip("\0").split("\0")


def all_pids() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]


def descendants(roots: set[int]) -> set[int]:
    """Every living process below the given ones."""
    children: dict[int, list[int]] = {}
    for pid in all_pids():
        children.setdefault(parent_of(pid), []).append(pid)
    found: set[int] = set()
    pending = list(roots)
    while pending:
        for child in children.get(pending.pop(), []):
            if child not in found:
                found.add(child)
                pending.append(child)
    return found


def kill_all(pids: set[int]) -> None:
    for pid in pids:
        _signal(pid, signal.SIGKILL)


def _signal(pid: int, number: signal.Signals) -> None:
    # It may end by itself between the look and the kill.
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def die_with_parent(number: signal.Signals = signal.SIGTERM) -> Callable[[], None]:
    """What a child calls before it becomes another program, so that the kernel sends it `number` when we end."""

    def ask() -> None:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)

    return ask


@dataclass(frozen=True)
class Process:
    """One component of the cluster: how to start it and how to see that it works."""

    name: str
    command: Sequence[str]
    run_dir: Path
    log_dir: Path
    healthy: Callable[[], bool]
    environment: Mapping[str, str] = field(default_factory=dict)
    tied_to_parent: bool = False
    # Files that its configuration names, beside those that its command names.
    reads: Sequence[Path] = ()
    # Called before each start, to put right what its killed predecessor left half done.
    prepare: Callable[[], None] = lambda: None

    @property
    def pid_file(self) -> Path:
        return self.run_dir / f"{self.name}.json"

    @property
    def log(self) -> Path:
        return self.log_dir / f"{self.name}.log"

    def _record(self) -> dict[str, object]:
        try:
            record = json.loads(self.pid_file.read_text())
        except (OSError, ValueError):
            return {}
        return record if isinstance(record, dict) else {}

    def pid(self) -> int | None:
        """The pid when the very process that we started still lives."""
        record = self._record()
        pid = record.get("pid")
        if not isinstance(pid, int) or record.get("boot") != BOOT_ID.read_text().strip():
            return None
        return pid if start_time(pid) == record.get("start") else None

    def state(self) -> str:
        if self.pid() is None:
            return "dead"
        return "healthy" if self.healthy() else "unhealthy"

    def _files(self) -> str:
        """A digest of the files that it read when it started: configuration, keys, certificates."""
        named = [Path(word.rpartition("=")[2]) for word in self.command[1:]]
        digest = hashlib.sha256()
        for path in (*named, *self.reads):
            if path.is_absolute() and path.is_file():
                digest.update(f"{path}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\0".encode())
        return digest.hexdigest()

    def ensure(self) -> bool:
        """Start it unless it runs with this very command and files; say whether anything was started."""
        if self.pid() is not None:
            record = self._record()
            if record.get("command") == list(self.command) and record.get("files") == self._files():
                return False
            self.stop()
        self._start()
        return True

    def _start(self) -> None:
        self.run_dir.mkdir(parents=True, exist_ok=True)
        self.log_dir.mkdir(parents=True, exist_ok=True)
        self.prepare()
        files = self._files()
        with self.log.open("ab") as log:
            child = subprocess.Popen(
                list(self.command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.run_dir,
                env={**os.environ, **self.environment},
                start_new_session=True,
                preexec_fn=die_with_parent() if self.tied_to_parent else None,  # noqa: PLW1509 - one thread only
            )
        record = {
            "pid": child.pid,
            "start": start_time(child.pid),
            "boot": BOOT_ID.read_text().strip(),
            "command": list(self.command),
            "files": files,
        }
        partial = self.pid_file.with_suffix(".tmp")
        partial.write_text(json.dumps(record))
        partial.rename(self.pid_file)

    def wait_healthy(self, seconds: float = 60) -> None:
        def ready_or_dead() -> bool:
            if self.pid() is None:
                raise LocalkubeError(f"{self.name} has ended; the end of {self.log}:\n{tail(self.log)}")
            return self.healthy()

        wait_until(f"{self.name} is healthy", ready_or_dead, seconds=seconds, detail=lambda: tail(self.log))

    def stop(self, seconds: float = 10) -> None:
        """Ask it to end, and kill it when it lives on after `seconds`."""
        pid = self.pid()
        if pid is not None:
            _signal(pid, signal.SIGTERM)
            try:
                wait_until(f"{self.name} ends", lambda: self._gone(pid), seconds=seconds)
            except LocalkubeError:
                _signal(pid, signal.SIGKILL)
                wait_until(f"{self.name} is killed", lambda: self._gone(pid), seconds=10)
        self.pid_file.unlink(missing_ok=True)

    def _gone(self, pid: int) -> bool:
        # Reaps it when it is our own child, so that no zombie is left behind.
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        return self.pid() is None


def require_commands(names: Sequence[str]) -> None:
    missing = [name for name in names if run(["sh", "-c", f"command -v {name}"], check=False).returncode != 0]
    if missing:
        raise LocalkubeError(f"missing commands: {' '.join(missing)} (run `python3 hack/localkube build` as root)")
