"""A real etcd and kube-apiserver, without root and without a node; the CRD in them."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from apiserver.api import EFT, Api, make_namespace
from apiserver.plane import running

from embedding_operator.cluster.client import KubeCluster


@pytest.fixture(scope="session")
def api() -> Iterator[Api]:
    """A control plane of its own for these tests."""
    with running() as found:
        yield found


@pytest.fixture
def namespace(api: Api) -> Iterator[str]:
    """A namespace that enforces the restricted standard, one a test."""
    name = make_namespace(api)
    yield name
    # An operator that watches the whole cluster would go on working on it.
    api.send("DELETE", EFT.format(name))


@pytest.fixture(scope="session")
def scratch(api: Api) -> str:
    """A namespace for what is only tried, never kept."""
    return make_namespace(api)


@pytest.fixture(scope="session")
def cluster(api: Api) -> KubeCluster:
    """The operator's own client, as administrator."""
    return KubeCluster(api.http)


def pytest_make_parametrize_id(val: object) -> str | None:
    """Sentences name the rows; what they hold is for the test."""
    return None if isinstance(val, str) else json.dumps(val, default=str)[:30]
