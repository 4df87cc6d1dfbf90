"""Kueue's real manager and Kubernetes' real controllers beside an API server of the tests' own; pods are played."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from apiserver.api import ROOT, Api
from apiserver.chart import install
from apiserver.conftest import api, namespace
from apiserver.process import Operator
from kueue.kubelet import Kubelet
from kueue.manager import running
from kueue.queues import make_queues

__all__ = ["api", "namespace"]  # fixtures


@pytest.fixture(scope="session")
def kueue(api: Api) -> Iterator[None]:
    done = subprocess.run(
        [sys.executable, "hack/localkube", "bin"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    with running(api, Path(done.stdout.strip())):
        yield


@pytest.fixture
def queue(api: Api, kueue: None, namespace: str) -> str:
    """The LocalQueue of the namespace, with quota for one pod."""
    return make_queues(api, namespace)


@pytest.fixture
def kubelet(api: Api, queue: str, namespace: str) -> Kubelet:
    return Kubelet(api, namespace)


@pytest.fixture(scope="session")
def account(api: Api) -> str:
    return install(api, namespace="operator-home")


@pytest.fixture
def operator(api: Api, account: str, queue: str) -> Iterator[Operator]:
    found = Operator(api, account)
    found.start()
    yield found
    found.kill()
