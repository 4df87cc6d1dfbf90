"""Where the images go. It follows from the cluster, and `hack/cluster` is the one that chooses that:

localkube   built with buildah, put into the node's containerd
kind        built with Docker, taken over by kind
given       built with Docker, or with buildah where no engine answers, and pushed to REGISTRY
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache

from catalogue import PREFIX, ROOT
from tools import ImagesError

CLUSTER = [sys.executable, str(ROOT / "hack" / "cluster")]
GIVEN, KIND, LOCALKUBE = "given", "kind", "localkube"


_chosen: list[str] = []


def choose(kind: str) -> None:
    """Take this kind of cluster without a look at what there is, before anything else is asked: a registry can be
    filled without any.
    """
    _chosen[:] = [kind]


@cache
def cluster() -> str:
    if _chosen:
        return _chosen[0]
    done = subprocess.run([*CLUSTER, "choice"], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise ImagesError("there is no cluster to make images for")
    return done.stdout.strip()


@cache
def with_docker() -> bool:
    return cluster() == KIND or (cluster() == GIVEN and docker_answers())


@cache
def docker_answers() -> bool:
    if not shutil.which("docker"):
        return False
    try:
        return subprocess.run(["docker", "info"], capture_output=True, check=False, timeout=30).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def prefix() -> str:
    """What the names of the project's images begin with."""
    return os.environ["REGISTRY"].rstrip("/") if cluster() == GIVEN else PREFIX


def is_loopback(reference: str) -> bool:
    """Whether the registry is one on this machine."""
    host = reference.partition("/")[0]
    return host.startswith("[::1]") or host.partition(":")[0] in ("localhost", "127.0.0.1")
