"""vLLM in the container that the operator makes for it: its command, variables, port, user and volumes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from unit.operator.test_serving_manifests import pod

from embedding_stages.contract.servers import VLLM

ROOT: Final = Path(__file__).parents[2]
DEPLOY: Final = {"image": "vllm:1", "backend": {"vllm": {}}, "resources": {"limits": {"nvidia.com/gpu": 0}}}
GRACE_S: Final = 30
START_S: Final = 1500  # beside other work; torch compiles for a minute or two
_POD: Final = Path(__file__).parent / "pod.sh"


@dataclass(frozen=True)
class Served:
    """A server that is ready."""

    url: str
    log: Path
    scratch: Path  # its volumes: cache and tmp


@cache
def environment_folder() -> Path:
    """The environment with vLLM, installed where it is missing."""
    done = subprocess.run([ROOT / "hack/vllm.sh"], stdout=subprocess.PIPE, text=True, check=True)
    return Path(done.stdout.strip())


@contextmanager
def serving(model: Path, scratch: Path, *, more: Sequence[str] = (), name: str = "tiny") -> Iterator[Served]:
    """`more` are arguments behind the operator's. Raises RuntimeError with the log's end where it does not start."""
    container = pod({**DEPLOY, "modelName": name})["containers"][0]
    command = [*container["command"], *container["args"], *more]
    log = scratch / "log"
    started = _start(model, scratch, command, {item["name"]: item["value"] for item in container["env"]}, log)
    served = Served(f"http://127.0.0.1:{VLLM.port}", log, scratch)
    try:
        _wait(served, started)
        yield served
    finally:
        _stop(started)


def _start(
    model: Path, scratch: Path, command: Sequence[str], env: Mapping[str, str], log: Path
) -> subprocess.Popen[bytes]:
    venv, root = environment_folder(), scratch / "root"
    root.mkdir(parents=True)
    readable = [*model.rglob("*"), model]  # fsGroup does it in a cluster
    for path in readable:
        path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))
    programs = f"{venv}:{sys.base_prefix}"
    unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]
    image = {"PATH": f"{venv}/bin:/usr/bin:/bin", "HOME": "/"}  # as for a user whom the image does not know
    with log.open("wb") as output:
        return subprocess.Popen(
            [*unshare, _POD, root, model, scratch, programs, *command],
            env=image | dict(env),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def _stop(started: subprocess.Popen[bytes]) -> None:
    """As a kubelet does: the container's first process is asked, and all are killed at the end of the grace period."""
    for wait_s, number in ((GRACE_S, signal.SIGTERM), (None, signal.SIGKILL)):
        if started.poll() is None:
            for child in Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text().split():
                os.kill(int(child), number)
        try:
            started.wait(wait_s)
        except subprocess.TimeoutExpired:
            continue
        return


def _wait(served: Served, started: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and started.poll() is None:
        try:
            with urllib.request.urlopen(f"{served.url}{VLLM.ready_path}", timeout=5):
                return
        except (OSError, urllib.error.URLError):
            time.sleep(0.5)
    lines = served.log.read_text(errors="replace").splitlines()
    raise RuntimeError("vLLM does not serve; its log ends with\n" + "\n".join(lines[-60:]))
