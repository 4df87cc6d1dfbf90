"""What a cluster leaves on a machine, found without trusting what the cluster says of itself."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from pathlib import Path

import network
import settings
import storage
from processes import all_pids, command_line, descendants
from settings import State
from shell import run

CGROUPS = Path("/sys/fs/cgroup")
POD_CGROUPS = ("kubepods", settings.SECOND.cgroup_root.strip("/"))
SHIMS = ("containerd-shim-runc-v1", "containerd-shim-runc-v2")
# The last three hold or enter the namespaces of the second node.
PROGRAMS = (*SHIMS, "containerd", "kubenode", "pause", "unshare", "nsenter")


def processes(state: State) -> set[int]:
    """Processes that name the state folder in their command line, and all below a shim of ours."""
    mine = os.getpid()
    found: set[int] = set()
    for pid in all_pids():
        words = command_line(pid)
        if pid == mine or not words:
            continue
        program = Path(words[0]).name
        if program not in PROGRAMS or not any(_names(word, state.root) for word in words):
            continue
        found.add(pid)
        if program in SHIMS:
            found |= descendants({pid})
    return found


def _names(word: str, folder: Path) -> bool:
    return f"{folder}/" in f"{word}/"


def pod_cgroups() -> list[Path]:
    """The kubelets' groups in every hierarchy, version 1 or 2."""
    candidates = [root / name for root in _hierarchies() for name in POD_CGROUPS]
    return [path for path in candidates if path.is_dir()]


def second_node_cgroups() -> list[Path]:
    """What the second node's kubelet finds its groups below, in every hierarchy, there or not."""
    return [root / settings.SECOND.cgroup_root.strip("/") for root in _hierarchies()]


def remove_groups(groups: list[Path]) -> None:
    for group in groups:
        for inner, _, _ in os.walk(group, topdown=False):
            with contextlib.suppress(OSError):
                Path(inner).rmdir()


def _hierarchies() -> list[Path]:
    """Version 2 has one at the top, version 1 one a controller."""
    if (CGROUPS / "cgroup.controllers").exists():
        return [CGROUPS]
    if not CGROUPS.is_dir():
        return []
    return [entry for entry in CGROUPS.iterdir() if entry.is_dir() and not entry.is_symlink()]


def iptables_chains() -> list[str]:
    chains: list[str] = []
    for command in ("iptables-save", "ip6tables-save"):
        if shutil.which(command):
            lines = run([command], check=False).stdout.splitlines()
            chains += [f"{command}: {line}" for line in lines if line.startswith((":KUBE-", ":CNI-"))]
    return chains


def log_links(state: State) -> list[Path]:
    folder = settings.KUBELET_CONTAINER_LOGS
    if not folder.is_dir():
        return []
    ours = str(state.root) + "/"
    return [path for path in folder.iterdir() if path.is_symlink() and str(path.readlink()).startswith(ours)]


def cni_results() -> list[Path]:
    folder = settings.CNI_CACHE
    return sorted(folder.glob(f"{settings.CNI_NETWORK}-*")) if folder.is_dir() else []


def remove_files(state: State, *, shared: bool) -> None:
    """What lies outside the state folder because its place is fixed in somebody's source code;
    what every kubelet uses goes only when `shared` says that it is ours."""
    remove_groups(pod_cgroups() if shared else [])
    for path in (*log_links(state), *cni_results()):
        path.unlink(missing_ok=True)
    if shared:
        shutil.rmtree(settings.KUBELET_DEVICE_PLUGINS / "device-plugins", ignore_errors=True)
    for folder in (settings.KUBELET_DEVICE_PLUGINS, settings.KUBELET_CONTAINER_LOGS, settings.CNI_CACHE):
        with contextlib.suppress(OSError):
            folder.rmdir()  # Fails, as it should, when something else lies in it.


def find(state: State, *, shared: bool) -> list[str]:
    """One line for each thing that is still there; `shared`: also what any cluster's node would leave."""
    found = [f"process {pid}: {' '.join(command_line(pid))[:120]}" for pid in sorted(processes(state))]
    found += [f"mount {point}" for point in storage.mounts_below(state.root)]
    found += [f"loop device {device}" for device in storage.loop_devices(state)]
    if network.has_bridge():
        found.append(f"bridge {settings.NODE_BRIDGE}")
    if network.has_second_link():
        found.append(f"link {settings.SECOND_LINK}")
    found += [f"pod link {link}" for link in network.pod_links()]
    found += [f"network namespace {name}" for name in _namespaces(state)]
    found += [f"route {line}" for line in network.routes()]
    if shared:
        found += [f"nftables table {family} {table}" for family, table in network.nftables_tables()]
        found += [f"chain {line}" for line in iptables_chains()]
        found += [f"cgroup {path}" for path in pod_cgroups()]
    found += [f"file {path}" for path in (*log_links(state), *cni_results())]
    return found


def _namespaces(state: State) -> list[str]:
    listing = run(["lsns", "--json", "--type", "net", "--output", "NSFS"], check=False).stdout
    with contextlib.suppress(ValueError):
        entries = json.loads(listing or "{}").get("namespaces", [])
        return [str(one["nsfs"]) for one in entries if str(one.get("nsfs") or "").startswith(str(state.root))]
    return []
