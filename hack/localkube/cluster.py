"""The life of the cluster: up (which also heals), status, down."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import addons
import foreign
import leftovers
import network
import pki
import settings
import storage
from api import ApiError
from binaries import Binaries, require
from components import Node
from imagestore import StaticImage, ctr, pause_image
from processes import Process, kill_all, require_commands
from settings import State
from shell import LocalkubeError, run, say, wait_until

RUNTIME_COMMANDS = ("containerd", "runc", "ctr", "ip", "nft", "mount", "mkfs.ext4", "losetup", "openssl")


@contextlib.contextmanager
def only_one(state: State) -> Iterator[None]:
    """Two commands that change the cluster wait for each other."""
    if os.geteuid() != 0:
        raise LocalkubeError("a node needs root (only `control-plane` runs without)")
    if len(str(state.root)) + settings.LONGEST_SOCKET_SUFFIX > 107:
        raise LocalkubeError(f"{state.root} is too long for the paths of Unix sockets; choose a shorter LOCALKUBE_DIR")
    state.root.mkdir(parents=True, exist_ok=True)
    with (state.root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _images(binaries: Binaries) -> tuple[StaticImage, StaticImage]:
    dns = StaticImage("coredns", binaries.kubenode, "kubenode", ("coredns",))
    return pause_image(binaries), dns


def node_of(state: State, binaries: Binaries) -> Node:
    return Node(state, binaries, _images(binaries)[0].reference)


def up(state: State) -> None:
    """Bring the cluster to life, or whatever of it is dead."""
    started = time.monotonic()
    binaries = require()
    require_commands(RUNTIME_COMMANDS)
    foreign.refuse(state)
    pause, dns = _images(binaries)
    node = node_of(state, binaries)
    storage.mount(state)
    network.set_up(state)
    node.keys.ensure(pki.CLUSTER)
    node.write_configuration()
    _ensure(node.foundation())
    api_server = node.api_server()
    _announce(api_server)
    pause.ensure(state)
    dns_image = dns.ensure(state)
    api_server.wait_healthy(90)
    # Just after the start some namespaces and roles of the system are still being made.
    wait_until("the add-ons are accepted", lambda: _applied(node, dns_image), seconds=30)
    _ensure(node.workers())
    wait_until("the node is Ready", lambda: addons.node_ready(node.api), seconds=90)
    pods = partial(_pods, state, binaries)
    wait_until("CoreDNS is ready", lambda: addons.dns_ready(node.api), seconds=90, detail=pods)
    for resource, count in advertised(state).items():
        addons.advertise(node.api, resource, count)
    say(f"the cluster is up after {time.monotonic() - started:.1f} s")


def advertised(state: State) -> dict[str, int]:
    """What the node is to offer without a device; a restarted kubelet forgets it, so `up` says it again."""
    table: dict[str, int] = json.loads(state.advertised.read_text()) if state.advertised.exists() else {}
    return table


def advertise(state: State, resource: str, count: int) -> None:
    node = node_of(state, require())
    if not network.has_bridge():
        raise LocalkubeError("the cluster is not up: run `python3 hack/localkube up`")
    addons.advertise(node.api, resource, count)
    state.advertised.write_text(json.dumps({**advertised(state), resource: count}))


def _announce(process: Process) -> None:
    if process.ensure():
        say(f"  started {process.name}")


def _ensure(processes: list[Process]) -> None:
    for process in processes:
        _announce(process)
    for process in processes:
        process.wait_healthy()


def _applied(node: Node, dns_image: str) -> bool:
    try:
        addons.apply_all(node.api, dns_image)
    except ApiError as error:
        if error.status in (403, 404, 0):
            return False
        raise
    return True


def _pods(state: State, binaries: Binaries) -> str:
    kubectl = [str(binaries.kubenode), "kubectl", "--kubeconfig", str(state.kubeconfig)]
    return run([*kubectl, "--namespace=kube-system", "describe", "pods"], check=False).stdout[-3000:]


def status(state: State) -> bool:
    """Print one line a component; True when everything is well."""
    node = node_of(state, require())
    rows = [(process.name, process.state(), str(process.pid() or "-")) for process in node.all()]
    for name, ready in (("node Ready", addons.node_ready), ("CoreDNS ready", addons.dns_ready)):
        rows.append((name, "healthy" if network.has_bridge() and ready(node.api) else "unhealthy", "-"))
    for name, health, pid in rows:
        print(f"{name:<26}{health:<12}{pid}")
    return all(health == "healthy" for _, health, _ in rows)


def down(state: State, *, purge: bool) -> None:
    """Take everything away but caches and, unless purged, the disk with its images."""
    started = time.monotonic()
    # What bears a name that every cluster uses is ours when we set the machine up and are alone.
    shared = state.restore.exists() and not foreign.processes(state)
    if not purge:
        _mount_again(state)
    processes = _processes_to_stop(state)
    by_name = {process.name: process for process in processes}
    containerd = by_name.pop("containerd", None)
    # The kubelet ends first, so that nothing starts containers again; etcd ends last.
    for process in reversed(list(by_name.values())):
        # What they hold is thrown away, so nobody waits for open watches to end.
        process.stop(seconds=2)
    if containerd is not None:
        _remove_containers(state, containerd)
        containerd.stop()
    kill_all(leftovers.processes(state))
    wait_until("no process of the cluster lives", lambda: not leftovers.processes(state), seconds=20)
    _remove_state(state)
    storage.unmount_all(state)
    leftovers.remove_files(state, shared=shared)
    network.tear_down(state, shared=shared)
    if purge:
        # The lock file goes with the folder: whoever waits for it finds an empty state.
        shutil.rmtree(state.root, ignore_errors=True)
    say(f"the cluster is down after {time.monotonic() - started:.1f} s")


def _mount_again(state: State) -> None:
    """After a reboot the volumes and containers of the dead cluster lie in a disk that is not mounted."""
    if state.disk_image.exists():
        try:
            storage.mount(state)
        except LocalkubeError as error:
            say(f"the disk cannot be mounted, so old volumes stay in it: {error}")


def _processes_to_stop(state: State) -> list[Process]:
    """Known by their pid files alone, so that `down` works without the compiled programs."""
    order = ("containerd", "etcd", "kube-apiserver", "provisioner", "kube-proxy")
    rest = ("kube-controller-manager", "kube-scheduler", "kubelet")
    config = ["containerd", "--config", str(state.config / "containerd.toml")]
    named = [name for name in (*order, *rest) if (state.run / f"{name}.json").exists()]
    return [
        Process(name, config if name == "containerd" else [], state.run, state.logs, lambda: True) for name in named
    ]


def _remove_containers(state: State, containerd: Process) -> None:
    """Containers go by way of containerd, so that their snapshots go too; images stay."""
    if state.disk not in storage.mounts_below(state.disk):
        return
    alive = containerd.pid() is not None or not containerd.ensure()
    with contextlib.suppress(LocalkubeError):
        wait_until("containerd answers", lambda: _lists(state), seconds=20 if alive else 30)
        tasks = ctr(state, "tasks", "ls", "-q").split()
        if tasks:
            ctr(state, "tasks", "rm", "--force", *tasks, check=False)
        containers = ctr(state, "containers", "ls", "-q").split()
        if containers:
            ctr(state, "containers", "rm", *containers, check=False)


def _lists(state: State) -> bool:
    try:
        ctr(state, "containers", "ls", "-q")
    except LocalkubeError:
        return False
    return True


def _remove_state(state: State) -> None:
    """The next cluster starts fresh: no objects, no pods, no volumes."""
    for point in storage.mounts_below(state.root):
        if point != state.disk:
            run(["umount", "--lazy", point], check=False)
    for folder in (state.etcd, state.run, state.kubelet, state.volumes, state.pod_logs, state.config):
        _remove_tree(folder)
    for file in (state.kubeconfig, state.advertised):
        file.unlink(missing_ok=True)


def _remove_tree(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder, ignore_errors=True)
