"""Every scenario of every kind: `make test-faults`. FAULTS=words runs those alone whose name has the words."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence

import pytest
from apiserver.api import Api
from faults.kinds import KINDS, Kind
from faults.lab import Lab, Scenario
from faults.of_people import BASE, goldens_of_fields
from faults.of_requests import Goldens
from faults.oracles import Golden, troubles


@pytest.fixture(scope="session")
def goldens() -> Goldens:
    """Filled as they are asked for."""
    return {}


@pytest.mark.parametrize("kind", KINDS)
def test_every_scenario_ends_as_the_golden_run(api: Api, account: str, goldens: Goldens, kind: str) -> None:
    found = asyncio.run(_play(api, account, goldens, KINDS[kind], os.environ.get("FAULTS", "")))
    assert found == []


async def _play(api: Api, account: str, goldens: Goldens, kind: Kind, words: str) -> list[str]:
    async with Lab(api, account) as lab:
        await fill(lab, goldens, fields=kind.fields)
        rows = [row for row in kind.rows(goldens) if words in row.name][:: int(os.environ.get("FAULTS_EVERY", "1"))]
        found = await judged(lab, goldens, kind, rows)
        print(f"{len(rows)} scenarios")
        return found + lab.world.trouble


async def fill(lab: Lab, goldens: Goldens, *, fields: bool = False) -> None:
    wanted = [(name, script, 3) for name, script in BASE.items()]
    wanted += [(name, script, 1) for name, script in goldens_of_fields().items()] if fields else []
    wanted = [item for item in wanted if item[0] not in goldens]
    if not wanted:
        return
    rows = [Scenario(name=name, script=script) for name, script, count in wanted for _ in range(count)]
    records = [record for at in range(0, len(rows), 12) for record in await lab.play(rows[at : at + 12])]
    for name, _, _ in wanted:
        of_name = [record for record in records if record.name == name]
        assert not any(record.error for record in of_name), [record.error for record in of_name]
        goldens[name] = Golden.of(of_name)
        for record in of_name:
            assert troubles(record, goldens[name]) == []


async def judged(lab: Lab, goldens: Goldens, kind: Kind, rows: Sequence[Scenario]) -> list[str]:
    found = []
    for at in range(0, len(rows), kind.at_once):
        some = rows[at : at + kind.at_once]
        for row, record in zip(some, await lab.play(some, kind.operators, pauses=kind.pauses), strict=True):
            wrong = troubles(
                record, goldens[row.golden], cost=row.cost, end=row.end, strangers=row.strangers, may_miss=row.may_miss
            )
            found += [f"{row.name}: {words}" for words in wrong]
            print(row.name, "FAILED" if wrong else "passed", len(record.writes), record.kills, *wrong)
    return found
