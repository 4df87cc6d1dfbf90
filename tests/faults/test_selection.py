"""A few scenarios of most kinds, in `make test`; all of them take `make test-faults`."""

from __future__ import annotations

import asyncio

from apiserver.api import Api
from faults.judge import fill, judged
from faults.kinds import KINDS, Kind
from faults.lab import Lab, Scenario
from faults.of_people import BASE
from faults.of_requests import Goldens

SELECTED: dict[str, tuple[str, ...]] = {
    "a reply lost": (
        "lost reply of create jobs finetune 1",
        "lost reply of patch services 2",
        "lost reply of update embeddingfinetunes/status 4",
    ),
    "a write answered 409": ("409 to update embeddingfinetunes/status 6",),
    "a write answered 429": ("429 to create jobs eval 1",),
    "a write answered 503": ("503 to patch deployments 1",),
    "watches refused": ("watch jobs answered 401", "watch jobs answered 403"),
    "events dropped": ("dropped event jobs 5",),
    "events twice": ("every event twice of jobs 1",),
    "events reordered": ("event after the next pods 6",),
    "streams broken": ("410 at jobs 5", "stream cut at pods 11"),
    "policies": ("a policy adds a toleration on create jobs",),
    "remade under its name": ("remade at finetune, Background",),
    "a field rolled back": ("stages.finetune.epochs rolled back",),
    "Jobs and pods lost": ("the Job of prep is deleted, Background",),
    "names taken": ("Service docs is somebody else's",),
    "stages failed": ("prep: bad input",),
}
KILLED: dict[str, tuple[str, ...]] = {
    "killed before a write": ("killed before patch services 2",),
    "killed after a write": ("killed after create jobs finetune 1",),
}


def test_a_few_scenarios_of_most_kinds_end_as_the_golden_run(api: Api, account: str) -> None:
    async def played() -> list[str]:
        async with Lab(api, account) as lab:
            goldens: Goldens = {}
            await fill(lab, goldens, BASE, times=2)
            found = []
            for names, at_once in ((SELECTED, 20), (KILLED, 2)):
                rows = [_row(goldens, kind, name) for kind, wanted in names.items() for name in wanted]
                found += (await judged(lab, goldens, Kind(lambda _: [], at_once=at_once), rows))[1]
            return found

    assert asyncio.run(played()) == []


def _row(goldens: Goldens, kind: str, name: str) -> Scenario:
    (row,) = (row for row in KINDS[kind].rows(goldens) if row.name == name)
    return row
