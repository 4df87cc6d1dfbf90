"""A control plane of the bench's own on loopback: etcd, kube-apiserver, and on demand the garbage collector."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench.scale import garbage
from bench.scale.api import LOOPBACK, MERGE, Api, Identity, Raw
from bench.scale.process import Program, free_port

import components  # isort: skip - process.py has put hack/localkube on the path
import pki  # isort: skip
from binaries import require  # isort: skip
from health import answers  # isort: skip

SIMULATOR: Final = "bench-simulator"
NODE: Final = "simulated-0"
NAMESPACES: Final = 50
_EVERYTHING: Final = "/O=system:masters/CN="


def namespace_of(number: int) -> str:
    return f"scale-{number % NAMESPACES:02d}"


@dataclass
class Plane:
    """`folder` is ours alone and is emptied at the start. `audited` are users beside the simulator."""

    folder: Path
    audited: tuple[str, ...]
    programs: dict[str, Program] = field(default_factory=dict)

    def start(self) -> None:
        if self.folder.exists():
            shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True)
        self.binaries = require()
        self.keys = pki.Pki(self.folder / "pki")
        self.keys.ensure(pki.CONTROL_PLANE)
        self.ports = components.EtcdPorts(free_port(), free_port(), free_port())
        self.api = Api(free_port(), self._identity(pki.ADMIN))
        self.etcd_client = self._identity(pki.ETCD_CLIENT)
        self.kubelet_port, self.endpoint_port = free_port(), free_port()
        self._audit_policy()
        self._start_etcd()
        self.start_api()
        self._node()

    def stop(self) -> None:
        for program in reversed(list(self.programs.values())):
            program.end(20)

    # -- identities ----------------------------------------------------------------------------------------------------
    def _identity(self, identity: pki.Identity) -> Identity:
        return Identity(self.keys.certificate(identity), self.keys.key(identity), self.keys.authority)

    def administrator(self, name: str) -> Identity:
        """A further user who may do everything, so that the audit log tells its requests apart."""
        identity = pki.Identity(name, f"{_EVERYTHING}{name}")
        if not self.keys.certificate(identity).exists():
            self.keys.issue(identity)
        return self._identity(identity)

    def kubeconfig(self, name: str, token: str = "") -> Path:
        """For an administrator of that name, or for whoever the token is of."""
        path = self.folder / f"{name}.kubeconfig"
        self.keys.write_kubeconfig(path, pki.Identity(name, "") if not token else pki.ADMIN, self.api.url)
        if token:
            body = json.loads(path.read_text())
            body["users"][0]["user"] = {"token": token}
            path.write_text(json.dumps(body))
        return path

    # -- parts ---------------------------------------------------------------------------------------------------------
    def _audit_policy(self) -> None:
        def status(group: str, name: str) -> Raw:
            return {"group": group, "resources": [f"{name}/status"]}

        rules = [
            {"level": "Metadata", "users": list(self.audited)},
            {
                "level": "Metadata",
                "users": [SIMULATOR],
                "verbs": ["patch"],
                "resources": [status("batch", "jobs"), status("apps", "deployments"), status("", "pods")],
            },
            {"level": "None"},
        ]
        policy = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"], "rules": rules}
        (self.folder / "audit-policy.json").write_text(json.dumps(policy))

    @property
    def audit_log(self) -> Path:
        return self.folder / "audit.log"

    def _run(self, name: str, command: list[str], env: Mapping[str, str] | None = None) -> Program:
        program = self.programs[name] = Program(name, command, self.folder, env or {})
        program.start()
        return program

    def _start_etcd(self) -> None:
        command = components.etcd_command(self.binaries.kubenode, self.keys, self.folder / "etcd", self.ports)
        # The copies of held.py come in large transactions.
        room = ("--quota-backend-bytes=6000000000", "--max-txn-ops=512", "--max-request-bytes=8000000")
        self._run("etcd", [*command, *room])
        until("etcd", lambda: answers(self.ports.health, "/readyz"))

    def start_api(self) -> None:
        command = components.api_server_command(self.binaries.kubenode, self.keys, self.ports.client, self.api.port)
        self._run(
            "kube-apiserver",
            [
                *command,
                *(f"--bind-address={LOOPBACK}", f"--advertise-address={LOOPBACK}", "--endpoint-reconciler-type=none"),
                *("--authorization-mode=RBAC", "--kubelet-preferred-address-types=InternalIP"),
                # Without a controller manager no namespace gets its default service account.
                "--disable-admission-plugins=ServiceAccount",
                *("--max-requests-inflight=2000", "--max-mutating-requests-inflight=1000"),
                *(f"--audit-policy-file={self.folder / 'audit-policy.json'}", "--audit-log-mode=batch"),
                *(f"--audit-log-path={self.audit_log}", "--audit-log-maxsize=4000"),
            ],
            garbage.TRACED,
        )
        until("kube-apiserver", lambda: self.api.send("GET", "/readyz")[0] == 200, 600)  # on a machine with other work

    def start_collector(self) -> None:
        """Garbage collection, the end of finished Jobs and of claims: nothing that makes Pods. Anew where it runs."""
        if (running := self.programs.get("kube-controller-manager")) is not None:
            running.kill()
        controllers = "garbage-collector-controller,ttl-after-finished-controller"
        self.administrator("bench-collector")
        self._run(
            "kube-controller-manager",
            [
                *(str(self.binaries.kubenode), "kube-controller-manager"),
                f"--kubeconfig={self.kubeconfig('bench-collector')}",
                f"--controllers={controllers},persistentvolumeclaim-protection-controller",
                *("--leader-elect=false", f"--bind-address={LOOPBACK}", f"--secure-port={free_port()}"),
                *("--kube-api-qps=200", "--kube-api-burst=400"),
            ],
        )

    def _node(self) -> None:
        """Namespaces, and a node whose kubelet is the simulator's."""
        self.api.must("POST", "/api/v1/nodes", {"metadata": {"name": NODE}, "spec": {}})
        status = {
            "addresses": [{"type": "InternalIP", "address": LOOPBACK}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self.kubelet_port}},
            "conditions": [{"type": "Ready", "status": "True", "reason": "Simulated", "message": ""}],
        }
        self.api.must("PATCH", f"/api/v1/nodes/{NODE}/status", {"status": status}, MERGE)
        for number in range(NAMESPACES):
            self.api.must("POST", "/api/v1/namespaces", {"metadata": {"name": namespace_of(number)}})

    # -- installing ----------------------------------------------------------------------------------------------------
    def kubectl(self, *arguments: str, text: str = "") -> str:
        env = {**os.environ, "KUBECONFIG": str(self.kubeconfig("admin"))}
        done = subprocess.run(
            [str(self.binaries.folder / "kubectl"), *arguments],
            input=text,
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def apply(self, text: str) -> None:
        """Manifests as YAML or JSON."""
        self.kubectl("apply", "--server-side", "-f", "-", text=text)

    def served(self, path: str) -> None:
        """Wait until a CRD's resources are served."""
        until(path, lambda: self.api.send("GET", f"{path}?limit=1")[0] == 200)


def until(what: str, look: Callable[[], Any], seconds: float = 60, pause: float = 0.25) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if look():
            return
        time.sleep(pause)
    raise TimeoutError(f"{what}: not seen in {seconds:.0f} s")


def end_on_sigterm() -> None:
    """So that `finally` ends what was started."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("asked to end"))
