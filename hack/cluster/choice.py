"""Which cluster it is: the one that KUBECONFIG points at, else kind, else localkube.

Images follow the cluster, so `hack/images` asks here too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import kind
from tools import ROOT, ClusterError, quiet, say

GIVEN, KIND, LOCALKUBE = "given", "kind", "localkube"
LOCALKUBE_TOOL = [sys.executable, str(ROOT / "hack" / "localkube")]


@dataclass(frozen=True)
class Choice:
    """The cluster, how to reach it, and why it is this one."""

    name: str
    kubeconfig: str
    reason: str


@cache
def localkube(*command: str) -> str:
    """What localkube prints; nothing when it fails."""
    done = subprocess.run([*LOCALKUBE_TOOL, *command], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def choose() -> Choice:
    """Raises rather than take another cluster than the one that is asked for."""
    path = os.environ.get("KUBECONFIG", "")
    if path == localkube("kubeconfig"):
        return Choice(LOCALKUBE, path, "KUBECONFIG is localkube's own")
    if path and path != str(kind.kubeconfig()):
        _require_given(path)
        return Choice(GIVEN, path, f"KUBECONFIG={path} is set and its cluster answers")
    if kind.is_usable():
        return Choice(KIND, str(kind.kubeconfig()), "there is kind and a Docker engine answers")
    if path:
        raise ClusterError(f"KUBECONFIG={path} is of kind, but kind is gone or no Docker engine answers; unset it")
    reason = "KUBECONFIG is not set, and there is no kind with a Docker engine"
    return Choice(LOCALKUBE, localkube("kubeconfig"), reason)


def _require_given(path: str) -> None:
    if not os.environ.get("REGISTRY"):
        raise ClusterError(
            f"KUBECONFIG={path} is a cluster of yours, and it has to pull the images from somewhere: set REGISTRY to "
            "a registry that you may push to and the cluster can pull from, as in "
            "`REGISTRY=registry.example/team make quickstart`; or unset KUBECONFIG"
        )
    require_programs()
    done = quiet(program("kubectl"), "get", "--raw", "/readyz", "--request-timeout=10s")
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise ClusterError(f"the cluster of KUBECONFIG={path} does not answer; unset it to get one here. {said}")


def program(name: str) -> str:
    """The machine's own program, else the one that localkube compiled."""
    return shutil.which(name) or str(Path(localkube("bin"), name))


def require_programs() -> None:
    """localkube compiles kubectl and helm; every other cluster needs the machine's own."""
    missing = [name for name in ("kubectl", "helm") if not shutil.which(program(name))]
    if missing:
        names = " and ".join(missing)
        raise ClusterError(f"not on PATH: {names}; install {names}, or run `python3 hack/localkube build`")


def announce(choice: Choice) -> None:
    say(f"using {'your cluster' if choice.name == GIVEN else choice.name}: {choice.reason}")
