"""The real operator, as a process of its own, with the rights of the chart's ServiceAccount and nothing more."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from apiserver.api import ROOT, Api

_PORTS = range(12_000, 20_000)
IMAGES = ("SDG", "PREP", "FINETUNE", "EVALUATE", "EXPORT", "SERVE", "SERVE_TORCH")


@dataclass
class Operator:
    """Starts the operator as often as it is asked to; of each of these one process runs at a time."""

    api: Api
    account: str  # system:serviceaccount:<namespace>:<name>
    namespaces: str = ""
    resync_s: int = 300
    lease: str = ""  # the namespace of the election's Lease; empty: no election
    lease_name: str = "embedding-operator"
    process: subprocess.Popen[bytes] | None = None
    logs: list[Path] = field(default_factory=list)
    liveness_port: int = 0
    metrics_port: int = 0

    def start(self) -> None:
        self.liveness_port, self.metrics_port = free_port(), free_port()
        log = self.api.folder / f"operator-{self.account.rsplit(':', 1)[1]}-{id(self)}-{len(self.logs)}.log"
        self.logs.append(log)
        kept = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
        env = {
            **kept,
            "KUBECONFIG": str(self._kubeconfig()),
            "PYTHONPATH": f"{ROOT / 'operator'}:{ROOT / 'stage_images'}",
            "WATCH_NAMESPACES": self.namespaces,
            "RESYNC_S": str(self.resync_s),
            "METRICS_PORT": str(self.metrics_port),
            "LIVENESS_PORT": str(self.liveness_port),
            **{f"IMAGE_{name}": "image:1" for name in IMAGES},
            "LEADER_ELECTION": "true" if self.lease else "false",
            "POD_NAMESPACE": self.lease,
            "LEASE_NAME": self.lease_name,
        }
        with log.open("wb") as out:
            command = [sys.executable, "-W", "error::ResourceWarning", "-m", "embedding_operator"]
            self.process = subprocess.Popen(command, env=env, stdout=out, stderr=subprocess.STDOUT)

    def kill(self) -> None:
        """SIGKILL: nothing is finished, nothing is cleaned up."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def end(self) -> int:
        """SIGTERM, as the kubelet sends it; the exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(timeout=60)

    def said(self) -> str:
        return "".join(path.read_text() for path in self.logs)

    def leads(self) -> bool:
        return "embedding_operator_leader 1.0" in self.metrics()

    def metrics(self) -> str:
        return self._read(self.metrics_port, "/metrics")

    def alive(self) -> bool:
        return self._read(self.liveness_port, "/healthz") != ""

    def ready(self) -> bool:
        return self._read(self.liveness_port, "/readyz") != ""

    def count(self, metric: str) -> float:
        """The sum of a counter over its labels."""
        text = self.metrics()
        return sum(float(x) for x in re.findall(rf"^{metric}_total{{[^}}]*}} ([0-9.e+]+)$", text, re.MULTILINE))

    def resyncs(self) -> float:
        """When the last one ended; it grows with each."""
        found = re.search(r"^embedding_operator_last_resync_timestamp_seconds (\S+)$", self.metrics(), re.MULTILINE)
        return float(found[1]) if found else 0.0

    def _read(self, port: int, path: str) -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=15) as response:
                return str(response.read().decode())
        except urllib.error.HTTPError as error:
            error.close()
        except OSError:
            pass
        return ""

    def _kubeconfig(self) -> Path:
        _, _, namespace, name = self.account.split(":")
        path = self.api.folder / f"{namespace}-{name}.kubeconfig"
        token = self.api.kubectl("create", "token", name, "-n", namespace).strip()
        raw = json.loads(self.api.kubectl("config", "view", "--raw", "-o", "json"))
        raw["users"] = [{"name": "operator", "user": {"token": token}}]
        raw["contexts"][0]["context"]["user"] = "operator"
        path.write_text(json.dumps(raw))
        return path


def free_port() -> int:
    """Not one of those that the kernel gives to whoever asks for any: seconds pass until the operator listens."""
    for port in random.sample(_PORTS, len(_PORTS)):
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port")
