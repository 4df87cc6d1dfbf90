"""The processes of the cluster: command lines and health of the control plane, and the order of them all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pki
import settings
from api import Api
from binaries import Binaries
from health import LOOPBACK, answers
from pki import Pki
from processes import Process
from settings import State
from worker import Worker

CLIENT_RATE = ("--kube-api-qps=200", "--kube-api-burst=400")


@dataclass(frozen=True)
class EtcdPorts:
    """Where etcd listens on loopback."""

    client: int = settings.ETCD_PORT
    peer: int = settings.ETCD_PEER_PORT
    health: int = settings.ETCD_HEALTH_PORT


def etcd_command(kubenode: Path, keys: Pki, data: Path, ports: EtcdPorts) -> list[str]:
    client, peer = f"https://{LOOPBACK}:{ports.client}", f"https://{LOOPBACK}:{ports.peer}"
    identity = [f"cert-file={keys.certificate(pki.ETCD)}", f"key-file={keys.key(pki.ETCD)}"]
    identity += [f"trusted-ca-file={keys.authority}", "client-cert-auth"]
    return [
        str(kubenode),
        "etcd",
        "--name=localkube",
        f"--data-dir={data}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=localkube={peer}",
        *(f"--{prefix}{option}" for prefix in ("", "peer-") for option in identity),
        # Health and metrics hold no data; they answer whoever asks on this machine.
        f"--listen-metrics-urls=http://{LOOPBACK}:{ports.health}",
        "--log-level=warn",
        # Data survives the death of the process; only a crash of the whole machine could lose some.
        "--unsafe-no-fsync",
    ]


def api_server_command(kubenode: Path, keys: Pki, etcd_port: int, port: int) -> list[str]:
    """What every API server of ours has in common."""
    issuer = f"https://kubernetes.default.svc.{settings.CLUSTER_DOMAIN}"
    return [
        str(kubenode),
        "kube-apiserver",
        f"--etcd-servers=https://{LOOPBACK}:{etcd_port}",
        f"--etcd-cafile={keys.authority}",
        f"--etcd-certfile={keys.certificate(pki.ETCD_CLIENT)}",
        f"--etcd-keyfile={keys.key(pki.ETCD_CLIENT)}",
        f"--secure-port={port}",
        f"--client-ca-file={keys.authority}",
        f"--tls-cert-file={keys.certificate(pki.API_SERVER)}",
        f"--tls-private-key-file={keys.key(pki.API_SERVER)}",
        f"--service-account-key-file={keys.token_key}",
        f"--service-account-signing-key-file={keys.token_key}",
        f"--service-account-issuer={issuer}",
        f"--service-cluster-ip-range={settings.SERVICE_RANGE}",
    ]


class Node:
    """Every process of the cluster, in the order in which they start."""

    def __init__(self, state: State, binaries: Binaries, sandbox_image: str) -> None:
        self.state, self.kubenode = state, binaries.kubenode
        self.keys = Pki(state.pki)
        self.api = Api(settings.NODE_ADDRESS, settings.API_PORT, self.keys)
        self.worker = Worker(settings.FIRST, state, self.kubenode, self.keys, sandbox_image)

    def foundation(self) -> list[Process]:
        return [self.worker.containerd(), self._etcd()]

    def api_server(self) -> Process:
        node_access = self.keys.certificate(pki.ADMIN), self.keys.key(pki.ADMIN)
        command = [
            *api_server_command(self.kubenode, self.keys, settings.ETCD_PORT, settings.API_PORT),
            f"--bind-address={settings.NODE_ADDRESS}",
            f"--advertise-address={settings.NODE_ADDRESS}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged",
            f"--kubelet-client-certificate={node_access[0]}",
            f"--kubelet-client-key={node_access[1]}",
            f"--kubelet-certificate-authority={self.keys.authority}",
            "--kubelet-preferred-address-types=InternalIP",
        ]
        return self._process("kube-apiserver", command, self.api.is_ready)

    def workers(self) -> list[Process]:
        worker = self.worker
        return [
            self._controller_manager(),
            self._scheduler(),
            worker.kubelet(),
            worker.proxy(),
            self._provisioner(),
        ]

    def all(self) -> list[Process]:
        return [*self.foundation(), self.api_server(), *self.workers()]

    def write_configuration(self) -> None:
        self.state.volumes.mkdir(parents=True, exist_ok=True)
        for identity in (pki.CONTROLLER_MANAGER, pki.SCHEDULER, pki.PROVISIONER):
            self.keys.write_kubeconfig(self._kubeconfig(identity), identity, self.api.server)
        self.keys.write_kubeconfig(self.state.kubeconfig, pki.ADMIN, self.api.server)
        self.worker.write_configuration(self.api.server)

    def _kubeconfig(self, identity: pki.Identity) -> Path:
        return self.state.config / f"{identity.name}.kubeconfig"

    def _process(self, name: str, command: list[str], healthy: Callable[[], bool]) -> Process:
        return Process(name, command, self.state.run, self.state.logs, healthy)

    def _etcd(self) -> Process:
        ports = EtcdPorts()
        command = etcd_command(self.kubenode, self.keys, self.state.etcd, ports)
        return self._process("etcd", command, lambda: answers(ports.health, "/readyz"))

    def _controller_manager(self) -> Process:
        command = [
            str(self.kubenode),
            "kube-controller-manager",
            f"--kubeconfig={self._kubeconfig(pki.CONTROLLER_MANAGER)}",
            "--use-service-account-credentials",
            f"--service-account-private-key-file={self.keys.token_key}",
            f"--root-ca-file={self.keys.authority}",
            f"--cluster-signing-cert-file={self.keys.authority}",
            f"--cluster-signing-key-file={self.keys.authority_key}",
            "--leader-elect=false",
            f"--bind-address={LOOPBACK}",
            f"--secure-port={settings.CONTROLLER_MANAGER_PORT}",
            "--allocate-node-cidrs=false",
            *CLIENT_RATE,
        ]
        port = settings.CONTROLLER_MANAGER_PORT
        return self._process("kube-controller-manager", command, lambda: answers(port, "/healthz", tls=True))

    def _scheduler(self) -> Process:
        command = [
            str(self.kubenode),
            "kube-scheduler",
            f"--kubeconfig={self._kubeconfig(pki.SCHEDULER)}",
            "--leader-elect=false",
            f"--bind-address={LOOPBACK}",
            f"--secure-port={settings.SCHEDULER_PORT}",
            *CLIENT_RATE,
        ]
        return self._process("kube-scheduler", command, lambda: answers(settings.SCHEDULER_PORT, "/healthz", tls=True))

    def _provisioner(self) -> Process:
        kubeconfig = self._kubeconfig(pki.PROVISIONER)
        options = ["--kubeconfig", str(kubeconfig), "--root", str(self.state.volumes)]
        command = [str(self.kubenode), "provisioner", *options]
        return self._process("provisioner", command, lambda: True)
