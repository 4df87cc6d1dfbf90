"""spec.schedule: when the sources are due to be looked at again. Pure; the zones are those of Python's `zoneinfo`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from embedding_operator.resource.api import Schedule, SpecError, read
from embedding_stages.contract import settings as tables

_APART_MIN: Final = 15  # each look starts a pod
_HOUR_MIN: Final = 60
_DAY_HOURS: Final = 24
_STEP: Final = re.compile(r"\*/([2-9]|[1-9]\d+)")
_KNOWN: Final = 256  # of what was parsed; every pass asks for it


def parse_schedule(raw: Mapping[str, Any] | None) -> Schedule | None:
    """Raises SpecError."""
    if raw is None:
        return None
    found = read(tables.Schedule, raw)
    _zone(found.timeZone)
    _check(found.cron)
    return Schedule(cron=found.cron, zone=found.timeZone, runs=found.onCorpusChange == tables.ON_CORPUS_CHANGE[0])


def next_due(cron: str, zone: str, after: datetime) -> datetime:
    """The first time later than `after` that the schedule names, in UTC. Raises SpecError.

    A time that the clocks leave out is taken when they go on, one that comes twice is taken once, as cron does.
    """
    start = after.astimezone(_zone(zone))
    try:
        for due in CronSim(_with_times(cron), start):
            found = due.astimezone(UTC)
            if found > after:  # in the second of two equal hours cron names a time of the first
                return found
    except CronSimError as error:
        raise _invalid(cron, str(error)) from error
    raise _invalid(cron, "no year has such a day")


@lru_cache(_KNOWN)
def _with_times(cron: str) -> str:
    """With a list in place of each step, such as 0,30 for */30.

    Where a field begins with a star, cron takes the schedule for one of every so many minutes or hours: what a change
    of the clocks leaves out is left out, and what comes twice is taken twice. That is right where every hour is named.
    """
    minute, hour, *days = cron.split(" ")
    hour = _listed(hour, _DAY_HOURS)
    minute = minute if hour.startswith("*") else _listed(minute, _HOUR_MIN)
    return " ".join((minute, hour, *days))


def _listed(field: str, end: int) -> str:
    def listed(part: str) -> str:
        step = _STEP.fullmatch(part)
        return ",".join(str(number) for number in range(0, end, int(step[1]))) if step is not None else part

    return ",".join(listed(part) for part in field.split(","))


@lru_cache(_KNOWN)
def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise SpecError(
            "spec.schedule.timeZone",
            f"{name!r} is not in the IANA time zone database; give a name such as Europe/Berlin, or UTC",
        ) from error


@lru_cache(_KNOWN)
def _check(cron: str) -> None:
    """Raises SpecError for a schedule that names no time, or names times too near to each other."""
    next_due(cron, "UTC", datetime(2026, 1, 1, tzinfo=UTC))
    minutes = sorted(CronSim(cron, datetime(2026, 1, 1, tzinfo=UTC)).minutes)
    gaps = [later - minute for minute, later in zip(minutes, [*minutes[1:], minutes[0] + _HOUR_MIN], strict=True)]
    if min(gaps) < _APART_MIN:
        raise _invalid(
            cron,
            f"its minutes are less than {_APART_MIN} apart, and each look starts a pod; name minutes that lie at least "
            f"{_APART_MIN} apart, also around the hour, such as 0,30",
        )


def _invalid(cron: str, why: str) -> SpecError:
    return SpecError("spec.schedule.cron", f"{cron!r}: {why}; such as '0 3 * * 1' for Mondays at three")
