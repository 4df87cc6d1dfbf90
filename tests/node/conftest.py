"""The cluster, the images and the operator are those of the end-to-end tests; the node is taken apart by these."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from e2e.conftest import images, kube, operator
from e2e.kube import Kube
from node.machine import tool, up
from node.record import Record
from settings import NODE_NAME

__all__ = ["images", "kube", "operator"]  # fixtures


@pytest.fixture(scope="session", autouse=True)
def own_node() -> None:
    if tool("hack/cluster", "choice").strip() != "localkube" or os.geteuid():
        pytest.skip("only localkube's node may be taken apart, by root")


@pytest.fixture(scope="session")
def record(kube: Kube, operator: None) -> Iterator[Record]:
    with Record(kube) as found:
        yield found


@pytest.fixture(autouse=True)
def whole(kube: Kube, operator: None) -> Iterator[None]:
    """Whatever a test took away is there again after it."""
    yield
    up()
    kube.run("uncordon", NODE_NAME)
