"""Another cluster's node on this machine.

Two nodes share what Kubernetes gives a fixed name: ports, nftables tables, cgroups, the folder
of device plugins. Each would take the other's away, so localkube does not start beside one.
"""

from __future__ import annotations

from pathlib import Path

import leftovers
import network
import settings
from health import listens
from processes import all_pids, command_line
from settings import State
from shell import LocalkubeError

PROGRAMS = ("kubelet", "kube-proxy", "k3s", "k3s-server", "k3s-agent", "rke2", "k0s", "kubelite", "hyperkube")
PLUGIN_SOCKET = settings.KUBELET_DEVICE_PLUGINS / "device-plugins" / "kubelet.sock"


def processes(state: State) -> list[int]:
    """Node processes of others. Those in containers, as kind's are, have a network of their own and do no harm."""
    ours = leftovers.processes(state)
    network_of_ours = Path("/proc/self/ns/net").readlink()
    return [
        pid
        for pid in all_pids()
        if pid not in ours and _is_node(command_line(pid)) and _network(pid) in (None, network_of_ours)
    ]


def _is_node(words: list[str]) -> bool:
    names = [Path(word.split(" ")[0]).name for word in words[:2]]
    # A kubenode of another LOCALKUBE_DIR names its component in the second word.
    return bool(names) and (names[0] in PROGRAMS or (names[0] == "kubenode" and names[-1] in PROGRAMS))


def _network(pid: int) -> Path | None:
    try:
        return Path(f"/proc/{pid}/ns/net").readlink()
    except OSError:
        return None


def refuse(state: State) -> None:
    """Raise when a start from nothing would meet another node; a cluster of ours that is up is only healed."""
    if network.is_set_up(state) or leftovers.processes(state):
        return
    found = [f"process {pid}: {' '.join(command_line(pid))[:100]}" for pid in processes(state)]
    found += [f"nftables table {family} {table}" for family, table in network.nftables_tables()]
    # After a crash of the whole machine the socket of our own kubelet is still there, but nobody answers.
    if PLUGIN_SOCKET.exists() and (listens(PLUGIN_SOCKET) or not state.restore.exists()):
        found.append(f"a kubelet's socket: {PLUGIN_SOCKET}")
    found += [f"route {line}" for line in network.foreign_routes()]
    if found:
        listing = "\n".join(f"  {line}" for line in found)
        raise LocalkubeError(
            f"this machine is a node of another cluster, or uses addresses that localkube needs:\n{listing}\n"
            "localkube would break it. Set KUBECONFIG and REGISTRY to use that cluster, or remove what is left of it."
        )
