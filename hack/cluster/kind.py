"""kind, where there is a Docker engine for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

from tools import ROOT, cache_home, quiet

# The one place for it: whoever creates, loads or deletes gives it by --name.
NAME = os.environ.get("KIND_CLUSTER_NAME") or "embedding-operator"


def kubeconfig() -> Path:
    return cache_home() / "kind.kubeconfig"


@cache
def is_usable() -> bool:
    return shutil.which("kind") is not None and quiet("docker", "info").returncode == 0


def exists() -> bool:
    return NAME in quiet("kind", "get", "clusters").stdout.split()


def up() -> int:
    path = kubeconfig()
    path.parent.mkdir(parents=True, exist_ok=True)
    if exists():
        command = ["export", "kubeconfig"]
    else:
        command = ["create", "cluster", "--config", str(ROOT / "kind-config.yaml"), "--wait", "180s"]
    named = ["--name", NAME, "--kubeconfig", str(path)]
    # What it prints is for people; standard output is for whoever evaluates the last line.
    return subprocess.run(["kind", *command, *named], stdout=sys.stderr, check=False).returncode


def load(reference: str) -> int:
    return subprocess.run(
        ["kind", "load", "docker-image", reference, "--name", NAME], stdout=sys.stderr, check=False
    ).returncode


def down() -> int:
    code = subprocess.run(["kind", "delete", "cluster", "--name", NAME], check=False).returncode
    kubeconfig().unlink(missing_ok=True)
    return code
