"""The processes of the node: their command lines, configuration files and health."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import network
import pki
import settings
from api import Api
from binaries import Binaries
from health import LOOPBACK, answers, listens
from pki import Pki
from processes import Process
from settings import State
from shell import write_if_changed

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
        self.state, self.kubenode, self.sandbox_image = state, binaries.kubenode, sandbox_image
        self.keys = Pki(state.pki)
        self.api = Api(settings.NODE_ADDRESS, settings.API_PORT, self.keys)

    def foundation(self) -> list[Process]:
        return [self._containerd(), self._etcd()]

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
        return [self._controller_manager(), self._scheduler(), self._kubelet(), self._proxy(), self._provisioner()]

    def all(self) -> list[Process]:
        return [*self.foundation(), self.api_server(), *self.workers()]

    def write_configuration(self) -> None:
        state = self.state
        for folder in (state.config / "cni", state.volumes, state.pod_logs, state.run, state.logs):
            folder.mkdir(parents=True, exist_ok=True)
        identities = (pki.CONTROLLER_MANAGER, pki.SCHEDULER, pki.KUBELET, pki.PROXY, pki.PROVISIONER)
        for identity in identities:
            self.keys.write_kubeconfig(self._kubeconfig(identity), identity, self.api.server)
        self.keys.write_kubeconfig(self.state.kubeconfig, pki.ADMIN, self.api.server)
        _write_json(self.state.config / "cni" / "10-localkube.conflist", network.cni_config(self.state))
        write_if_changed(self.state.config / "containerd.toml", _containerd_config(self.state, self.sandbox_image))
        _write_json(self.state.config / "kubelet.json", _kubelet_config(self.state, self.keys))
        _write_json(self.state.config / "proxy.json", _proxy_config(self._kubeconfig(pki.PROXY)))

    def _kubeconfig(self, identity: pki.Identity) -> Path:
        return self.state.config / f"{identity.name}.kubeconfig"

    def _process(
        self, name: str, command: list[str], healthy: Callable[[], bool], reads: Sequence[Path] = ()
    ) -> Process:
        return Process(name, command, self.state.run, self.state.logs, healthy, reads=reads)

    def _containerd(self) -> Process:
        command = ["containerd", "--config", str(self.state.config / "containerd.toml")]
        return self._process("containerd", command, lambda: listens(self.state.containerd_socket))

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

    def _kubelet(self) -> Process:
        command = [
            str(self.kubenode),
            "kubelet",
            f"--config={self.state.config / 'kubelet.json'}",
            f"--kubeconfig={self._kubeconfig(pki.KUBELET)}",
            f"--hostname-override={settings.NODE_NAME}",
            f"--node-ip={settings.NODE_ADDRESS}",
            f"--root-dir={self.state.kubelet}",
        ]
        reads = (self.keys.authority, self.keys.certificate(pki.KUBELET))
        return self._process("kubelet", command, lambda: answers(settings.KUBELET_HEALTH_PORT, "/healthz"), reads)

    def _proxy(self) -> Process:
        command = [str(self.kubenode), "kube-proxy", f"--config={self.state.config / 'proxy.json'}"]
        reads = (self._kubeconfig(pki.PROXY),)
        return self._process("kube-proxy", command, lambda: answers(settings.PROXY_HEALTH_PORT, "/healthz"), reads)

    def _provisioner(self) -> Process:
        kubeconfig = self._kubeconfig(pki.PROVISIONER)
        options = ["--kubeconfig", str(kubeconfig), "--root", str(self.state.volumes)]
        command = [str(self.kubenode), "provisioner", *options]
        return self._process("provisioner", command, lambda: True)


def _write_json(path: Path, document: object) -> None:
    write_if_changed(path, json.dumps(document, indent=1) + "\n")


def _containerd_config(state: State, sandbox_image: str) -> str:
    cri = 'plugins."io.containerd.grpc.v1.cri"'
    return f"""\
version = 2
root = "{state.containerd}"
state = "{state.containerd_run}"
oom_score = 0

[grpc]
address = "{state.containerd_socket}"

[plugins."io.containerd.internal.v1.opt"]
path = "{state.containerd / "opt"}"

[{cri}]
sandbox_image = "{sandbox_image}"
# The machine may lack CAP_SYS_RESOURCE, without which runc dies of a lowered score.
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
disable_tcp_service = true

[{cri}.cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{state.config / "cni"}"

[{cri}.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
"""


def _kubelet_config(state: State, keys: Pki) -> dict[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": settings.NODE_ADDRESS,
        "port": settings.KUBELET_PORT,
        "healthzBindAddress": LOOPBACK,
        "healthzPort": settings.KUBELET_HEALTH_PORT,
        "authentication": {"anonymous": {"enabled": False}, "x509": {"clientCAFile": str(keys.authority)}},
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(keys.certificate(pki.KUBELET)),
        "tlsPrivateKeyFile": str(keys.key(pki.KUBELET)),
        "containerRuntimeEndpoint": f"unix://{state.containerd_socket}",
        "podLogsDir": str(state.pod_logs),
        "cgroupDriver": "cgroupfs",
        "failSwapOn": False,
        "failCgroupV1": False,
        "clusterDNS": [settings.DNS_ADDRESS],
        "clusterDomain": settings.CLUSTER_DOMAIN,
        "resolvConf": "/dev/null",
        "enforceNodeAllocatable": [],
        # kube-proxy speaks nftables: no iptables chains are left on the machine.
        "makeIPTablesUtilChains": False,
        "evictionHard": {"nodefs.available": "1Gi", "imagefs.available": "1Gi", "memory.available": "200Mi"},
        # Images are loaded by hand and cannot be pulled again.
        "imageGCHighThresholdPercent": 100,
        "serializeImagePulls": False,
        "kubeAPIQPS": 100,
        "kubeAPIBurst": 200,
        "syncFrequency": "20s",
    }


def _proxy_config(kubeconfig: Path) -> dict[str, object]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": {"kubeconfig": str(kubeconfig)},
        "clusterCIDR": settings.POD_RANGE,
        "hostnameOverride": settings.NODE_NAME,
        "conntrack": {"maxPerCore": 0},
        "healthzBindAddress": f"{LOOPBACK}:{settings.PROXY_HEALTH_PORT}",
        "metricsBindAddress": f"{LOOPBACK}:{settings.PROXY_METRICS_PORT}",
        "nodePortAddresses": [f"{settings.NODE_ADDRESS}/32"],
        "nftables": {"minSyncPeriod": "100ms", "syncPeriod": "30s"},
    }
