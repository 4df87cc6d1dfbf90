"""Give me a cluster: the one I point at, else kind, else localkube.

python3 hack/cluster up                   says which and why, prints `export KUBECONFIG=...`
python3 hack/cluster env                  the environment that reaches it, as a JSON object
python3 hack/cluster advertise NAME=COUNT makes its first node offer a resource without a device; 0 takes it back
python3 hack/cluster down                 takes away what `up` made, never a cluster that it found
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOCALKUBE = [sys.executable, str(ROOT / "hack" / "localkube")]
KIND_CLUSTER = os.environ.get("KIND_CLUSTER_NAME", "embedding-operator")


def say(message: str) -> None:
    print(f"cluster: {message}", file=sys.stderr, flush=True)


def succeeds(*command: str, seconds: float = 20) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False, timeout=seconds).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def localkube(*command: str) -> str:
    done = subprocess.run([*LOCALKUBE, *command], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def tool(name: str) -> str:
    """The machine's own program, else the one that localkube compiled."""
    return shutil.which(name) or str(Path(localkube("bin"), name))


def given() -> str | None:
    """The kubeconfig that somebody else's cluster answers to; localkube heals its own by `up`."""
    path = os.environ.get("KUBECONFIG")
    if not path or path == localkube("kubeconfig"):
        return None
    answers = succeeds(tool("kubectl"), "get", "--raw", "/readyz", "--request-timeout=10s")
    return path if answers else None


def has_kind() -> bool:
    return shutil.which("kind") is not None and shutil.which("docker") is not None and succeeds("docker", "info")


def kind_kubeconfig() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base, "embedding-operator", "kind.kubeconfig")


def kind_exists() -> bool:
    listing = subprocess.run(["kind", "get", "clusters"], capture_output=True, text=True, check=False)
    return KIND_CLUSTER in listing.stdout.split()


def kind_up() -> int:
    path = kind_kubeconfig()
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind_exists():
        command = ["kind", "export", "kubeconfig", "--name", KIND_CLUSTER, "--kubeconfig", str(path)]
    else:
        command = ["kind", "create", "cluster", "--name", KIND_CLUSTER, "--config", str(ROOT / "kind-config.yaml")]
        command += ["--kubeconfig", str(path), "--wait", "180s"]
    code = subprocess.run(command, stdout=sys.stderr, check=False).returncode
    if code == 0:
        print(f"export KUBECONFIG={path}")
    return code


def kubeconfig() -> str:
    """Of the cluster that `up` chooses."""
    return given() or (str(kind_kubeconfig()) if has_kind() else localkube("kubeconfig"))


def up() -> int:
    found = given()
    if found:
        say(f"using the cluster that KUBECONFIG={found} points at: it answers")
        print(f"export KUBECONFIG={found}")
        return 0
    if has_kind():
        say("using kind: a Docker engine answers")
        return kind_up()
    say("using localkube: no other cluster answers in KUBECONFIG, and there is no kind with a Docker engine")
    return subprocess.run([*LOCALKUBE, "up"], check=False).returncode


def env() -> int:
    variables = {"KUBECONFIG": kubeconfig()}
    if not (shutil.which("kubectl") and shutil.which("helm")) and localkube("bin"):
        variables["PATH"] = f"{localkube('bin')}:{os.environ.get('PATH', os.defpath)}"
    print(json.dumps(variables))
    return 0


def advertise(wish: str) -> int:
    target = kubeconfig()
    if target == localkube("kubeconfig"):
        return subprocess.run([*LOCALKUBE, "advertise", wish], check=False).returncode
    resource, _, count = wish.partition("=")
    kubectl = [tool("kubectl"), "--kubeconfig", target]
    node = subprocess.run(
        [*kubectl, "get", "nodes", "--output=jsonpath={.items[0].metadata.name}"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    # A merge patch removes what is null; the kubelet makes the allocatable amount follow the capacity.
    patch = {"status": {"capacity": {resource: count if int(count) else None}}}
    command = ["patch", "node", node, "--subresource=status", "--type=merge", "--patch", json.dumps(patch)]
    return subprocess.run([*kubectl, *command], check=False).returncode


def down() -> int:
    if has_kind() and kind_exists():
        return subprocess.run(["kind", "delete", "cluster", "--name", KIND_CLUSTER], check=False).returncode
    return subprocess.run([*LOCALKUBE, "down"], check=False).returncode


def main() -> int:
    commands = {"up": up, "env": env, "down": down}
    match sys.argv[1:]:
        case [name] if name in commands:
            return commands[name]()
        case ["advertise", wish] if wish.partition("=")[2].isdecimal():
            return advertise(wish)
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
