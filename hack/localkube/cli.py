"""The command line."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import binaries
import cluster
import controlplane
import foreign
import imagestore
import leftovers
import secondnode
from settings import State
from shell import LocalkubeError, say

SYSTEM_FOLDERS = "/usr/local/sbin:/usr/sbin:/sbin"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="localkube", description="A real single-node Kubernetes.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("build", help="compile the node's programs into the cache")
    commands.add_parser("bin", help="print the folder with kubectl and helm")
    commands.add_parser("socket", help="print the path of containerd's socket")
    commands.add_parser("disk", help="print the folder of the node's file system")
    commands.add_parser("kubeconfig", help="print the path of the kubeconfig")
    commands.add_parser("up", help="start the cluster, or restart what is dead")
    commands.add_parser("status", help="one line a component; fails unless all are healthy")
    load = commands.add_parser("load-image", help="import OCI or docker archives")
    load.add_argument("archives", nargs="+", type=Path, metavar="ARCHIVE")
    commands.add_parser("images", help="list the images that pods can use")
    advertise = commands.add_parser("advertise", help="make the node offer a resource; 0 removes it")
    advertise.add_argument("resource", metavar="NAME=COUNT", help="for example nvidia.com/gpu=1")
    second = commands.add_parser("second-node", help="another node, for tests, in the foreground")
    second.add_argument("images", nargs="*", metavar="IMAGE", help="images of the first node that its pods use")
    down = commands.add_parser("down", help="stop the cluster and leave nothing running")
    down.add_argument("--purge", action="store_true", help="remove the disk with the images too")
    commands.add_parser("check-clean", help="list what `down` left behind; fails if there is anything")
    plane = commands.add_parser("control-plane", help="etcd and an API server in the foreground, without root")
    plane.add_argument("--dir", required=True, type=Path, help="folder for keys, logs, data and the kubeconfig")
    plane.add_argument("--port", type=int, default=0, help="port on loopback (0: any free one)")
    return parser


def _build() -> int:
    binaries.install_debian_packages()
    binaries.build()
    return 0


def _up(state: State) -> int:
    if not binaries.locate().complete():
        _build()
    with cluster.only_one(state):
        cluster.up(state)
    print(f"export KUBECONFIG={state.kubeconfig}")
    return 0


def _advertise(state: State, text: str) -> int:
    resource, _, count = text.partition("=")
    if not resource or not count.isdecimal():
        raise LocalkubeError(f"expected NAME=COUNT, not {text!r}")
    cluster.advertise(state, resource, int(count))
    return 0


def _check_clean(state: State) -> int:
    found = leftovers.find(state, shared=not foreign.processes(state))
    for line in found:
        print(line)
    say("clean" if not found else f"{len(found)} things are left")
    return 1 if found else 0


def _serve(arguments: argparse.Namespace, state: State) -> None:
    """In the foreground, until somebody ends it."""
    if arguments.command == "control-plane":
        controlplane.serve(arguments.dir, arguments.port)
    else:
        secondnode.serve(state, arguments.images)


def _dispatch(arguments: argparse.Namespace, state: State) -> int:
    match arguments.command:
        case "build":
            return _build()
        case "bin":
            print(binaries.require().folder)
        case "socket" | "kubeconfig" | "disk":
            places = {"socket": state.containerd_socket, "kubeconfig": state.kubeconfig, "disk": state.disk}
            print(places[arguments.command])
        case "up":
            return _up(state)
        case "status":
            return 0 if cluster.status(state) else 1
        case "load-image":
            imagestore.load(state, arguments.archives)
        case "images":
            print("\n".join(imagestore.names(state)))
        case "advertise":
            return _advertise(state, arguments.resource)
        case "down":
            with cluster.only_one(state):
                cluster.down(state, purge=arguments.purge)
        case "check-clean":
            return _check_clean(state)
        case "control-plane" | "second-node":
            _serve(arguments, state)
    return 0


def main() -> int:
    os.environ["PATH"] = f"{os.environ.get('PATH', os.defpath)}:{SYSTEM_FOLDERS}"
    try:
        return _dispatch(_parser().parse_args(), State.from_environment())
    except LocalkubeError as error:
        print(f"localkube: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
