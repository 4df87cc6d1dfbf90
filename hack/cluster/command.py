"""The command line.

python3 hack/cluster up                   says which cluster it is and why, prints `export KUBECONFIG=...`
python3 hack/cluster choice               prints which one it is: given, kind or localkube
python3 hack/cluster room [venv]          fails when the disks have no room for all that is still to be made
python3 hack/cluster env                  the environment that reaches it, as a JSON object
python3 hack/cluster load REFERENCE...    takes images of the Docker engine into kind
python3 hack/cluster advertise NAME=COUNT makes its first node offer a resource without a device; 0 takes it back
python3 hack/cluster down [--purge]       takes away what `up` made, never a cluster that it found

KUBECONFIG makes it a cluster of yours; REGISTRY then says where its images go, for example registry.example/team.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import kind
import room
from choice import KIND, LOCALKUBE, LOCALKUBE_TOOL, announce, choose, localkube, program, require_programs
from tools import ClusterError, say


def up() -> int:
    choice = choose()
    announce(choice)
    if choice.name == LOCALKUBE:
        return subprocess.run([*LOCALKUBE_TOOL, "up"], check=False).returncode
    require_programs()
    code = kind.up() if choice.name == KIND else 0
    if code == 0:
        print(f"export KUBECONFIG={choice.kubeconfig}")
    return code


def which() -> int:
    print(choose().name)
    return 0


def check_room(*, with_venv: bool = False) -> int:
    room.check(choose(), with_venv=with_venv)
    return 0


def _environment() -> dict[str, str]:
    variables = {"KUBECONFIG": choose().kubeconfig}
    folder = localkube("bin")
    if folder and not (shutil.which("kubectl") and shutil.which("helm")):
        variables["PATH"] = f"{folder}:{os.environ.get('PATH', os.defpath)}"
    return variables


def env() -> int:
    print(json.dumps(_environment()))
    return 0


def load(references: list[str]) -> int:
    if choose().name != KIND:
        raise ClusterError("only kind takes images from Docker's engine")
    return max(map(kind.load, references), default=0)


def advertise(wish: str) -> int:
    if choose().name == LOCALKUBE:
        return subprocess.run([*LOCALKUBE_TOOL, "advertise", wish], check=False).returncode
    resource, _, count = wish.partition("=")
    kubectl, environment = program("kubectl"), {**os.environ, **_environment()}
    node = subprocess.run(
        [kubectl, "get", "nodes", "--output=jsonpath={.items[0].metadata.name}"],
        capture_output=True, text=True, check=True, env=environment,
    ).stdout  # fmt: skip
    # A merge patch removes what is null; the kubelet makes the allocatable amount follow the capacity.
    patch = {"status": {"capacity": {resource: count if int(count) else None}}}
    command = ["patch", "node", node, "--subresource=status", "--type=merge", "--patch", json.dumps(patch)]
    return subprocess.run([kubectl, *command], check=False, env=environment).returncode


def down(*options: str) -> int:
    """Whatever KUBECONFIG says now: only kind's cluster of our name and localkube's folder are ours."""
    code = kind.down() if kind.is_usable() and kind.exists() else 0
    if Path(localkube("kubeconfig")).parent.exists():
        return subprocess.run([*LOCALKUBE_TOOL, "down", *options], check=False).returncode or code
    if not code:
        say("there is no node on this machine")
    return code


def _run(words: list[str]) -> int:
    commands = {"up": up, "choice": which, "room": check_room, "env": env, "down": down}
    match words:
        case [name] if name in commands:
            return commands[name]()
        case ["room", "venv"]:
            return check_room(with_venv=True)
        case ["down", "--purge"]:
            return down("--purge")
        case ["load", *references] if references:
            return load(references)
        case ["advertise", wish] if wish.partition("=")[2].isdecimal():
            return advertise(wish)
    print(__doc__, file=sys.stderr)
    return 2


def main() -> int:
    try:
        return _run(sys.argv[1:])
    except ClusterError as error:
        say(str(error))
        return 1
