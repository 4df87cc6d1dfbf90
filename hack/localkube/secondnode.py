"""A second node in the foreground, for tests of what one node cannot show.

Its processes have process, mount and network namespaces of their own: two nodes share what Kubernetes gives
a fixed name, and when the first process of the namespaces ends, the kernel takes all that is in them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from types import FrameType

import addons
import leftovers
import network
import settings
from api import Api
from binaries import Binaries, require
from imagestore import ctr, pause_image
from pki import Pki
from processes import Process, command_line, descendants, die_with_parent
from settings import SECOND, State
from shell import LocalkubeError, run, say, wait_until
from worker import Worker

# Places that are fixed in somebody's source code, so that the nodes would share them.
HIDDEN = (settings.KUBELET_DEVICE_PLUGINS, settings.KUBELET_CONTAINER_LOGS, settings.CNI_CACHE)


class _Asked(Exception):
    """Somebody asked us to end."""


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise _Asked


def serve(state: State, images: Sequence[str]) -> None:
    """Run until SIGTERM or Ctrl-C, then take the node and its pods away. `images`: what its pods can use."""
    started = time.monotonic()
    binaries = require()
    if not network.has_bridge():
        raise LocalkubeError("the cluster is not up: run `python3 hack/localkube up`")
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, _stop)
    with _only_one(state):
        try:
            running = _start(state, binaries, images)
            say(f"the second node is ready after {time.monotonic() - started:.1f} s")
            print(f"ready {SECOND.name}", flush=True)
            while all(process.pid() for process in running):
                time.sleep(0.5)
            dead = [process.name for process in running if not process.pid()]
            raise LocalkubeError(f"{' and '.join(dead)} of the second node ended; see {state.second.logs}")
        except _Asked:
            pass
        finally:
            for name in (signal.SIGTERM, signal.SIGINT):
                signal.signal(name, signal.SIG_IGN)
            _remove(state)


@contextlib.contextmanager
def _only_one(state: State) -> Iterator[None]:
    with (state.run / "second-node.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LocalkubeError("somebody else runs the second node; there can be one") from error
        yield


def _start(state: State, binaries: Binaries, images: Sequence[str]) -> list[Process]:
    # One that was killed could not tidy up.
    _remove(state)
    keys = Pki(state.pki)
    api = Api(settings.NODE_ADDRESS, settings.API_PORT, keys)
    pause = pause_image(binaries).reference
    first = _first_process(state, binaries)
    within = ["nsenter", f"--target={first}", "--mount", "--net", "--pid", "--"]
    for folder in HIDDEN:
        folder.mkdir(parents=True, exist_ok=True)
        run([*within, "mount", "-t", "tmpfs", "tmpfs", folder])
    network.link_second_node(first, within)
    for group in leftovers.second_node_cgroups():
        group.mkdir(exist_ok=True)
    worker = Worker(SECOND, state.second, binaries.kubenode, keys, pause, within)
    keys.issue(worker.identity)
    worker.write_configuration(api.server)
    running = [worker.containerd(), worker.kubelet(), worker.proxy()]
    running[0].ensure()
    running[0].wait_healthy()
    _copy_images(state, [pause, *images])
    for process in running[1:]:
        process.ensure()
    for process in running[1:]:
        process.wait_healthy()
    wait_until("the second node is Ready", lambda: addons.node_ready(api, SECOND.name), seconds=90)
    return running


def _first_process(state: State, binaries: Binaries) -> int:
    """Start what keeps the namespaces open and reaps orphans in them; it dies when we do, and all others with it."""
    namespaces = ["--mount", "--propagation=slave", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    # Its own arguments do nothing but say whose it is.
    command = ["unshare", *namespaces, binaries.pause, state.second.root]
    outer = subprocess.Popen(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        preexec_fn=die_with_parent(signal.SIGKILL),  # noqa: PLW1509 - one thread only
    )

    def found() -> set[int]:
        if outer.poll() is not None:
            raise LocalkubeError(f"`{' '.join(map(str, command))}` ended with {outer.returncode}")
        return {pid for pid in descendants({outer.pid}) if command_line(pid)[:1] == [str(binaries.pause)]}

    wait_until("the second node's namespaces are there", lambda: bool(found()), seconds=30)
    return found().pop()


def _copy_images(state: State, images: Sequence[str]) -> None:
    archive = state.second.run / "images.tar"
    try:
        ctr(state, "images", "export", archive, *images)
        ctr(state.second, "images", "import", "--digests=false", archive)
    finally:
        archive.unlink(missing_ok=True)


def _remove(state: State) -> None:
    """Its processes first, or its kubelet would make the Node again."""
    for pid in leftovers.processes(state.second):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    gone = leftovers.processes
    wait_until("no process of the second node lives", lambda: not gone(state.second), seconds=20)
    wait_until("its link is gone", lambda: not network.has_second_link(), seconds=20)
    leftovers.remove_groups(leftovers.second_node_cgroups())
    shutil.rmtree(state.second.root, ignore_errors=True)
    # Not so when the whole cluster was taken away in the meantime.
    if network.has_bridge():
        addons.remove_node(Api(settings.NODE_ADDRESS, settings.API_PORT, Pki(state.pki)), SECOND.name)
