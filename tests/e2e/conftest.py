"""A cluster with the operator in it. The cluster and the images come from `hack/`, as in the quickstart."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from e2e.kube import NAMESPACE, OPERATOR_NAMESPACE, ROOT, Kube
from e2e.manifests import documents


def _tool(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False, timeout=1800
    )
    assert done.returncode == 0, f"{' '.join(arguments)} failed"
    return done.stdout


@pytest.fixture(scope="session")
def kube() -> Kube:
    """The cluster that `make test` has started."""
    env = json.loads(_tool("hack/cluster", "env"))
    return Kube({**os.environ, **env})


@pytest.fixture(scope="session")
def images() -> dict[str, str]:
    """Image references by name, as loaded into the cluster."""
    found: dict[str, str] = json.loads(_tool("hack/images", "references"))
    return found


@pytest.fixture(scope="session", autouse=True)
def operator(kube: Kube, images: dict[str, str]) -> Iterator[None]:
    """The operator, installed by its chart; a namespace that enforces the restricted standard."""
    _tool("hack/quickstart", "--install-only")
    kube.run("delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait", timeout_s=300)
    kube.apply(
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
        },
        documents(),
    )
    yield
    kube.run("delete", "namespace", NAMESPACE, "--wait", timeout_s=300)


@pytest.fixture
def kill_operator(kube: Kube) -> object:
    """Kill the operator's pod as a node failure would: no grace."""

    def kill() -> None:
        kube.run(
            "delete",
            "pod",
            "-n",
            OPERATOR_NAMESPACE,
            "-l",
            "app.kubernetes.io/name=embedding-operator",
            "--grace-period=0",
            "--force",
            "--wait=false",
        )

    return kill
