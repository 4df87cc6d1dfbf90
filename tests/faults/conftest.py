"""The API server of tests/apiserver, and an account with the rights that the chart gives the operator."""

from __future__ import annotations

import pytest
from apiserver.api import Api
from apiserver.chart import install
from apiserver.conftest import api

__all__ = ["api"]


@pytest.fixture(scope="session")
def account(api: Api) -> str:
    return install(api, namespace="operator-faults")
