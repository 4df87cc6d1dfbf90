"""etcd and an API server alone, on loopback, without root: for tests of the API."""

from __future__ import annotations

import shutil
import signal
import socket
import time
from pathlib import Path
from types import FrameType

import pki
from api import Api
from binaries import require
from components import EtcdPorts, api_server_command, etcd_command
from health import LOOPBACK, answers
from pki import Pki
from processes import Process
from shell import LocalkubeError, say

ATTEMPTS = 3
# Who wrote what, and when; not what was in it.
AUDIT = """{"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"], "rules": [
    {"level": "Metadata", "verbs": ["create", "update", "patch", "delete", "deletecollection"]}, {"level": "None"}
]}"""


class _Asked(Exception):
    """Somebody asked us to end."""


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise _Asked


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def serve(folder: Path, port: int) -> None:
    """Run until SIGTERM or Ctrl-C, then end both processes."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, _stop)
    running: list[Process] = []
    try:
        api = _start(folder.resolve(), port, running)
        print(f"ready {api.server}", flush=True)
        while all(process.pid() for process in running):
            time.sleep(0.5)
        dead = [process.name for process in running if not process.pid()]
        raise LocalkubeError(f"{' and '.join(dead)} ended; see {folder}/log")
    except _Asked:
        pass
    finally:
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, signal.SIG_IGN)
        for process in reversed(running):
            process.stop(seconds=5)


def _start(folder: Path, port: int, running: list[Process]) -> Api:
    """A free port can be taken by somebody else before we listen on it, so a failure is tried again."""
    keys = Pki(folder / "pki")
    keys.ensure(pki.CONTROL_PLANE)
    for attempt in range(1, ATTEMPTS + 1):
        api = Api(LOOPBACK, port or free_port(), keys)
        try:
            _launch(folder, api, running)
        except LocalkubeError as error:
            if attempt == ATTEMPTS:
                raise
            say(f"start {attempt} failed, trying again: {error}")
            for process in reversed(running):
                process.stop()
            running.clear()
        else:
            keys.write_kubeconfig(folder / "kubeconfig", pki.ADMIN, api.server)
            return api
    raise AssertionError("unreachable")


def _launch(folder: Path, api: Api, running: list[Process]) -> None:
    kubenode = require().kubenode
    ports = EtcdPorts(free_port(), free_port(), free_port())
    run_dir, logs = folder / "run", folder / "log"
    # Each start is a fresh cluster; data of an earlier one would also name that one's ports.
    data = folder / "etcd"
    shutil.rmtree(data, ignore_errors=True)
    etcd = Process(
        "etcd",
        etcd_command(kubenode, api.pki, data, ports),
        run_dir,
        logs,
        lambda: answers(ports.health, "/readyz"),
        tied_to_parent=True,
    )
    policy = folder / "audit-policy.json"
    policy.write_text(AUDIT)
    command = [
        *api_server_command(kubenode, api.pki, ports.client, api.port),
        f"--bind-address={LOOPBACK}",
        f"--advertise-address={LOOPBACK}",
        "--endpoint-reconciler-type=none",
        "--authorization-mode=RBAC",
        # Without a controller manager no namespace gets its default service account.
        "--disable-admission-plugins=ServiceAccount",
        f"--audit-policy-file={policy}",
        f"--audit-log-path={folder / 'audit.log'}",
        "--max-requests-inflight=2000",
        "--max-mutating-requests-inflight=1000",
    ]
    server = Process("kube-apiserver", command, run_dir, logs, api.is_ready, tied_to_parent=True)
    for process in (etcd, server):
        running.append(process)
        process.ensure()
        process.wait_healthy(60)
