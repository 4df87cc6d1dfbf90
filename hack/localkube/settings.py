"""Every name, address, port and folder of the cluster in one place."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from shell import LocalkubeError

HERE = Path(__file__).resolve().parent
SOURCES = HERE / "kubenode"

NODE_NAME = "localkube"
CLUSTER_DOMAIN = "cluster.local"

# 198.18.0.0/15 is reserved for tests of network devices and routed nowhere, so
# no packet of the cluster finds its way to a machine that exists.
TEST_RANGES = ("198.18.0.0/16", "198.19.0.0/16")
POD_RANGE = "198.18.0.0/16"
POD_SUBNET = "198.18.0.0/20"
POD_GATEWAY = "198.18.0.1"
SERVICE_RANGE = "198.19.0.0/16"
API_SERVICE_ADDRESS = "198.19.0.1"
DNS_ADDRESS = "198.19.0.10"
NODE_ADDRESS = "198.18.255.1"
NODE_BRIDGE = "kn0"
CNI_NETWORK = "localkube"

API_PORT = 6443
ETCD_PORT = 23790
ETCD_PEER_PORT = 23800
ETCD_HEALTH_PORT = 23810
KUBELET_PORT = 10250
KUBELET_HEALTH_PORT = 10248
PROXY_HEALTH_PORT = 10256
PROXY_METRICS_PORT = 10249
CONTROLLER_MANAGER_PORT = 10257
SCHEDULER_PORT = 10259

STORAGE_CLASS = "local-path"
PROVISIONER = "localkube/local-path"
CONTAINERD_NAMESPACE = "k8s.io"

# Fixed in the kubelet's sources, whatever its root folder is.
KUBELET_DEVICE_PLUGINS = Path("/var/lib/kubelet")
KUBELET_CONTAINER_LOGS = Path("/var/log/containers")
CNI_CACHE = Path("/var/lib/cni/results")

DEFAULT_STATE = Path("/var/lib/embedding-operator-localkube")
DISK_SIZE_GIB = 40
# A Unix socket's path holds 107 bytes; ours add about this many to the state folder's.
LONGEST_SOCKET_SUFFIX = 60


@dataclass(frozen=True)
class Place:
    """What tells one node from another."""

    name: str
    address: str
    pod_subnet: str
    pod_gateway: str
    health_host: str = "127.0.0.1"
    # The kubelet keeps the control groups of its pods below it; empty: below the machine's root.
    cgroup_root: str = ""
    # Keeps every pod away that does not tolerate this key.
    taint: str = ""


FIRST = Place(NODE_NAME, NODE_ADDRESS, POD_SUBNET, POD_GATEWAY)
SECOND = Place(
    name="localkube-2",
    address="198.18.255.2",
    pod_subnet="198.18.16.0/20",
    pod_gateway="198.18.16.1",
    health_host="198.18.255.2",
    cgroup_root="/localkube-2",
    taint="localkube/second-node",
)
# The machine's end of the link to the second node.
SECOND_LINK = "kn1"


def memory_wanted_free() -> str:
    """With less free memory, a quantity or a share, the kubelet evicts pods one after the other. Empty: it wants none.

    Tests of a node that runs short want nearly all of it. It is a soft threshold: a hard one is taken off what pods may
    request, so that those that run would be refused instead.
    """
    return os.environ.get("LOCALKUBE_MEMORY_WANTED_FREE", "")


def container_runtime() -> Path | None:
    """The program that containerd runs in place of runc. None: runc itself.

    `LOCALKUBE_CPU=avx2` shows containers a CPU without AVX-512, to measure what such a machine would take.
    """
    cpu = os.environ.get("LOCALKUBE_CPU", "")
    if cpu not in ("", "avx2"):
        raise LocalkubeError(f"LOCALKUBE_CPU is {cpu!r}: leave it out, or set it to avx2")
    return HERE / "runc_avx2.py" if cpu else None


def cache_home() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "embedding-operator" / "localkube"


@dataclass(frozen=True)
class State:
    """The one folder that holds a cluster."""

    root: Path

    @classmethod
    def from_environment(cls) -> State:
        return cls(Path(os.environ.get("LOCALKUBE_DIR") or DEFAULT_STATE).resolve())

    @property
    def pki(self) -> Path:
        return self.root / "pki"

    @property
    def config(self) -> Path:
        return self.root / "config"

    @property
    def logs(self) -> Path:
        return self.root / "log"

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def etcd(self) -> Path:
        return self.root / "etcd"

    @property
    def kubeconfig(self) -> Path:
        return self.root / "kubeconfig"

    @property
    def second(self) -> State:
        """The second node's folder, in the same file system, so that it goes with it."""
        return State(self.disk / "node2")

    @property
    def disk_image(self) -> Path:
        return self.root / "disk.img"

    @property
    def disk(self) -> Path:
        """Mount point of the file system that containerd and the kubelet have to themselves."""
        return self.root / "disk"

    @property
    def containerd(self) -> Path:
        return self.disk / "containerd"

    @property
    def kubelet(self) -> Path:
        return self.disk / "kubelet"

    @property
    def pod_logs(self) -> Path:
        return self.disk / "pod-logs"

    @property
    def volumes(self) -> Path:
        return self.disk / "volumes"

    @property
    def containerd_run(self) -> Path:
        return self.run / "containerd"

    @property
    def containerd_socket(self) -> Path:
        return self.run / "containerd.sock"

    @property
    def advertised(self) -> Path:
        return self.root / "advertised.json"

    @property
    def restore(self) -> Path:
        """What `down` has to put back as it was."""
        return self.root / "restore.json"
