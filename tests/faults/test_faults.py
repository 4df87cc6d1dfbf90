"""Every scenario of every kind: `make test-faults`. FAULTS=words takes those alone whose name has the words, and
FAULTS_EVERY=7 each seventh of a table, FAULTS_FROM=3 from its fourth row on.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import pytest
from apiserver.api import Api
from faults.judge import fill, judged
from faults.kinds import KINDS, Kind
from faults.lab import Lab
from faults.of_people import BASE, goldens_of_fields
from faults.of_requests import Goldens


@pytest.fixture(scope="session")
def goldens() -> Goldens:
    """By the name of the story; filled as they are asked for."""
    return {}


@pytest.fixture(scope="session")
def counts() -> Iterator[dict[str, int]]:
    """Scenarios that met their fault, by kind; said at the end."""
    found: dict[str, int] = {}
    yield found
    print("\n".join(["", *(f"{count:5} {kind}" for kind, count in found.items()), f"{sum(found.values()):5} in all"]))


@pytest.mark.parametrize("kind", KINDS)
def test_every_scenario_ends_as_the_golden_run(
    api: Api, account: str, goldens: Goldens, counts: dict[str, int], kind: str
) -> None:
    count, found = asyncio.run(_play(api, account, goldens, KINDS[kind]))
    counts[kind] = count
    assert found == []


async def _play(api: Api, account: str, goldens: Goldens, kind: Kind) -> tuple[int, list[str]]:
    words = os.environ.get("FAULTS", "")
    first, every = int(os.environ.get("FAULTS_FROM", "0")), int(os.environ.get("FAULTS_EVERY", "1"))
    async with Lab(api, account) as lab:
        await fill(lab, goldens, BASE, times=3)
        if kind.fields:
            await fill(lab, goldens, goldens_of_fields(), times=1)
        rows = [row for row in kind.rows(goldens) if words in row.name][first::every]
        return await judged(lab, goldens, kind, rows)
