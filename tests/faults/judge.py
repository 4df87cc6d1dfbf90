"""Golden runs first, then the rows of a table, several at a time; what is wrong with each is said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from faults.kinds import Kind
from faults.lab import Lab, Scenario, Script
from faults.of_requests import Goldens
from faults.oracles import Golden, troubles

_AT_ONCE = 12


async def fill(lab: Lab, goldens: Goldens, wanted: Mapping[str, Script], times: int) -> None:
    """Play what is not known yet, several times: what a pass happens to see of a run differs from run to run."""
    rows = [Scenario(name=name, script=script) for name, script in wanted.items() if name not in goldens] * times
    records = [record for at in range(0, len(rows), _AT_ONCE) for record in await lab.play(rows[at : at + _AT_ONCE])]
    for name in {row.name for row in rows}:
        of_name = [record for record in records if record.name == name]
        assert not any(record.error for record in of_name), [record.error for record in of_name]
        goldens[name] = Golden.of(of_name)
        for record in of_name:
            assert troubles(record, goldens[name]) == []


async def judged(lab: Lab, goldens: Goldens, kind: Kind, rows: Sequence[Scenario]) -> tuple[int, list[str]]:
    """How many met their fault, and all that is wrong; also with the stand-ins, whose errors would make it easier."""
    count, found = 0, list[str]()
    for at in range(0, len(rows), kind.at_once):
        some = rows[at : at + kind.at_once]
        for row, record in zip(some, await lab.play(some, kind.operators, pauses=kind.pauses), strict=True):
            wrong = troubles(
                record, goldens[row.golden], cost=row.cost, end=row.end, strangers=row.strangers, may_miss=row.may_miss
            )
            found += [f"{row.name}: {words}" for words in wrong]
            count += not record.unmet
            how = "FAILED" if wrong else "missed" if record.unmet else "passed"
            print(f"{how}  {row.name}, {len(record.writes)} writes", *wrong, sep="\n    ", flush=True)
    return count, found + lab.world.trouble
