"""All kinds of scenarios, by name. A kind is a table: its rows follow from golden runs that are made first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from faults import of_people as people
from faults import of_requests as requests
from faults import of_stages as stages
from faults import of_strangers as strangers
from faults import of_watches as watches
from faults.lab import Scenario
from faults.of_requests import AFTER, BEFORE, LOST, REFUSED, SLOW, Goldens, at_each_write


@dataclass(frozen=True, slots=True)
class Kind:
    """`at_once`: that many share a process of the operator, and see each other's kills."""

    rows: Callable[[Goldens], list[Scenario]]
    at_once: int = 12
    operators: int = 1  # that work on the same resources
    pauses: bool = False  # the first of them is stopped and continued
    fields: bool = False  # wants the ends of resources that always had another value


KINDS: dict[str, Kind] = {
    "killed before a write": Kind(at_each_write(BEFORE, "killed before", cost=0), at_once=5),
    "killed after a write": Kind(at_each_write(AFTER, "killed after", cost=0), at_once=5),
    "a reply lost": Kind(at_each_write(LOST, "lost reply of", cost=4)),
    "a write answered 409": Kind(at_each_write(REFUSED[409], "409 to", cost=4)),
    "a write answered 429": Kind(at_each_write(REFUSED[429], "429 to", cost=4, second=False)),
    "a write answered 500": Kind(at_each_write(REFUSED[500], "500 to", cost=4, second=False)),
    "a write answered 503": Kind(at_each_write(REFUSED[503], "503 to", cost=4, second=False)),
    "a write answered slowly": Kind(at_each_write(SLOW, "slow", cost=4, second=False, every=2)),
    "stale reads": Kind(requests.stale_reads),
    "rights withdrawn": Kind(requests.rights_withdrawn),
    "watches refused": Kind(requests.watches_refused),
    "events dropped": Kind(watches.events_dropped),
    "events twice": Kind(watches.events_twice),
    "events reordered": Kind(watches.events_reordered),
    "streams broken": Kind(watches.streams_broken),
    "two operators": Kind(requests.two_operators, at_once=6, operators=2),
    "two operators, one paused": Kind(requests.two_operators, at_once=6, operators=2, pauses=True),
    "policies": Kind(requests.policies),
    "remade under its name": Kind(people.deleted_and_remade),
    "a field changed": Kind(people.fields_changed, fields=True),
    "a field reverted": Kind(people.fields_reverted),
    "a field rolled back": Kind(people.fields_rolled_back),
    "children drifted": Kind(strangers.children_drifted),
    "Jobs and pods lost": Kind(strangers.jobs_lost),
    "names taken": Kind(strangers.names_taken),
    "stages failed": Kind(stages.stages_fail),
    "stages of a second revision failed": Kind(stages.stages_fail_later),
}
