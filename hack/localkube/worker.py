"""What makes a machine a node: containerd, the kubelet and kube-proxy, and their configuration files."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import network
import pki
import settings
from health import answers, listens
from pki import Pki
from processes import Process
from settings import Place, State
from shell import write_if_changed


class Worker:
    """The processes of one node. `within` is the command that runs another one in the node's namespaces."""

    def __init__(
        self, place: Place, state: State, kubenode: Path, keys: Pki, sandbox_image: str, within: Sequence[str] = ()
    ) -> None:
        self.place, self.state, self.kubenode, self.keys = place, state, kubenode, keys
        self.sandbox_image, self.within = sandbox_image, tuple(within)
        self.identity = pki.kubelet(place)

    def write_configuration(self, server: str) -> None:
        state = self.state
        for folder in (state.config / "cni", state.pod_logs, state.run, state.logs):
            folder.mkdir(parents=True, exist_ok=True)
        for identity in (self.identity, pki.PROXY):
            self.keys.write_kubeconfig(self._kubeconfig(identity), identity, server)
        _write_json(state.config / "cni" / "10-localkube.conflist", network.cni_config(self.place, state))
        text = _containerd_config(state, self.sandbox_image, settings.container_runtime())
        write_if_changed(state.config / "containerd.toml", text)
        _write_json(state.config / "kubelet.json", self._kubelet_config())
        _write_json(state.config / "proxy.json", self._proxy_config())

    def containerd(self) -> Process:
        command = ["containerd", "--config", str(self.state.config / "containerd.toml")]
        return self._process("containerd", command, lambda: listens(self.state.containerd_socket))

    def kubelet(self) -> Process:
        command = [
            str(self.kubenode),
            "kubelet",
            f"--config={self.state.config / 'kubelet.json'}",
            f"--kubeconfig={self._kubeconfig(self.identity)}",
            f"--hostname-override={self.place.name}",
            f"--node-ip={self.place.address}",
            f"--root-dir={self.state.kubelet}",
        ]
        reads = (self.keys.authority, self.keys.certificate(self.identity))
        return self._process("kubelet", command, lambda: self._answers(settings.KUBELET_HEALTH_PORT), reads)

    def proxy(self) -> Process:
        command = [str(self.kubenode), "kube-proxy", f"--config={self.state.config / 'proxy.json'}"]
        reads = (self._kubeconfig(pki.PROXY),)
        process = self._process("kube-proxy", command, lambda: self._answers(settings.PROXY_HEALTH_PORT), reads)
        return replace(process, prepare=lambda: network.remove_half_written_rules(self.within))

    def _kubeconfig(self, identity: pki.Identity) -> Path:
        return self.state.config / f"{identity.name}.kubeconfig"

    def _answers(self, port: int) -> bool:
        return answers(port, "/healthz", host=self.place.health_host)

    def _process(
        self, name: str, command: list[str], healthy: Callable[[], bool], reads: Sequence[Path] = ()
    ) -> Process:
        return Process(name, [*self.within, *command], self.state.run, self.state.logs, healthy, reads=reads)

    def _kubelet_config(self) -> dict[str, object]:
        place, keys = self.place, self.keys
        config: dict[str, object] = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": place.address,
            "port": settings.KUBELET_PORT,
            "healthzBindAddress": place.health_host,
            "healthzPort": settings.KUBELET_HEALTH_PORT,
            "authentication": {"anonymous": {"enabled": False}, "x509": {"clientCAFile": str(keys.authority)}},
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": str(keys.certificate(self.identity)),
            "tlsPrivateKeyFile": str(keys.key(self.identity)),
            "containerRuntimeEndpoint": f"unix://{self.state.containerd_socket}",
            "podLogsDir": str(self.state.pod_logs),
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
        if wanted := settings.memory_wanted_free():
            config["evictionSoft"] = {"memory.available": wanted}
            config["evictionSoftGracePeriod"] = {"memory.available": "1s"}
            config["evictionMaxPodGracePeriod"] = 10
        if place.cgroup_root:
            config["cgroupRoot"] = place.cgroup_root
        if place.taint:
            config["registerWithTaints"] = [{"key": place.taint, "effect": "NoSchedule"}]
        return config

    def _proxy_config(self) -> dict[str, object]:
        place = self.place
        return {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "nftables",
            "clientConnection": {"kubeconfig": str(self._kubeconfig(pki.PROXY))},
            "clusterCIDR": settings.POD_RANGE,
            "hostnameOverride": place.name,
            "conntrack": {"maxPerCore": 0},
            "healthzBindAddress": f"{place.health_host}:{settings.PROXY_HEALTH_PORT}",
            "metricsBindAddress": f"{place.health_host}:{settings.PROXY_METRICS_PORT}",
            "nodePortAddresses": [f"{place.address}/32"],
            "nftables": {"minSyncPeriod": "100ms", "syncPeriod": "30s"},
        }


def _write_json(path: Path, document: object) -> None:
    write_if_changed(path, json.dumps(document, indent=1) + "\n")


def _containerd_config(state: State, sandbox_image: str, runtime: Path | None) -> str:
    cri = 'plugins."io.containerd.grpc.v1.cri"'
    options = f'[{cri}.containerd.runtimes.runc.options]\nBinaryName = "{runtime}"\n' if runtime else ""
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
{options}"""
