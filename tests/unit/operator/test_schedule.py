"""When spec.schedule is due, and what it refuses."""

from __future__ import annotations

from datetime import datetime

import pytest
from unit.operator.builders import a_spec

from embedding_operator.resource.api import SpecError
from embedding_operator.resource.schedule import next_due
from embedding_operator.resource.schedule_status import ScheduleStatus
from embedding_operator.resource.stage_status import StageStatus
from embedding_operator.resource.status import Status
from embedding_stages.contract import Stage

BERLIN, NEW_YORK = "Europe/Berlin", "America/New_York"


def at(text: str) -> datetime:
    return datetime.fromisoformat(f"{text}:00+00:00")


@pytest.mark.parametrize(
    ("cron", "zone", "after", "due"),
    [
        pytest.param("0 3 * * 1", "UTC", "2026-01-01T00:00", "2026-01-05T03:00", id="the next Monday"),
        pytest.param("0 3 * * 1", "UTC", "2026-01-05T03:00", "2026-01-12T03:00", id="never the time itself"),
        pytest.param("0 3 * * 1", "UTC", "2026-01-05T02:59", "2026-01-05T03:00", id="a minute before"),
        pytest.param("0 3 * * *", BERLIN, "2026-01-01T00:00", "2026-01-01T02:00", id="winter in Berlin"),
        pytest.param("0 3 * * *", BERLIN, "2026-07-01T02:00", "2026-07-02T01:00", id="summer in Berlin"),
        pytest.param("0 0 * * *", "Asia/Kolkata", "2026-01-01T00:00", "2026-01-01T18:30", id="half an hour off"),
        # 29 March 2026: 02:00 in Berlin is followed by 03:00, which is 01:00 UTC.
        pytest.param("30 2 * * *", BERLIN, "2026-03-28T12:00", "2026-03-29T01:00", id="left out: right after"),
        pytest.param("30 2 * * *", BERLIN, "2026-03-29T01:00", "2026-03-30T00:30", id="left out: once"),
        pytest.param("0,30 2 * * *", BERLIN, "2026-03-29T01:00", "2026-03-30T00:00", id="two left out: once"),
        pytest.param("0 * * * *", BERLIN, "2026-03-29T00:30", "2026-03-29T01:00", id="each hour goes on"),
        pytest.param("*/30 2 * * 0", BERLIN, "2026-03-28T12:00", "2026-03-29T01:00", id="steps left out: right after"),
        pytest.param("*/30 2 * * 0", BERLIN, "2026-03-29T01:00", "2026-04-05T00:00", id="steps left out: once"),
        pytest.param("30 */2 * * *", BERLIN, "2026-03-28T23:30", "2026-03-29T01:00", id="hours left out: right after"),
        pytest.param("30 */2 * * *", BERLIN, "2026-03-29T01:00", "2026-03-29T02:30", id="hours left out: once"),
        pytest.param("*/15 * * * *", BERLIN, "2026-03-29T00:45", "2026-03-29T01:00", id="all quarters go on"),
        # 25 October 2026: 02:00 to 03:00 in Berlin comes twice, from 00:00 UTC and from 01:00 UTC.
        pytest.param("30 2 * * *", BERLIN, "2026-10-24T12:00", "2026-10-25T00:30", id="twice: the first"),
        pytest.param("30 2 * * *", BERLIN, "2026-10-25T00:30", "2026-10-26T01:30", id="twice: once"),
        pytest.param("30 2 * * *", BERLIN, "2026-10-25T01:10", "2026-10-26T01:30", id="made in the second hour"),
        pytest.param("0 * * * *", BERLIN, "2026-10-25T00:30", "2026-10-25T01:00", id="each hour is each hour"),
        pytest.param("*/30 2 * * *", BERLIN, "2026-10-24T12:00", "2026-10-25T00:00", id="steps twice: the first"),
        pytest.param("30 */12,2 * * *", BERLIN, "2026-03-28T22:00", "2026-03-28T23:30", id="a list with steps"),
        pytest.param("30 */12,2 * * *", BERLIN, "2026-03-28T23:30", "2026-03-29T01:00", id="list with steps left out"),
        pytest.param(
            "*/30 2 * * *", BERLIN, "2026-10-25T00:00", "2026-10-25T00:30", id="steps twice: the second of them"
        ),
        pytest.param("*/30 2 * * *", BERLIN, "2026-10-25T00:30", "2026-10-26T01:00", id="steps twice: once"),
        pytest.param("0 */2 * * *", BERLIN, "2026-10-25T00:00", "2026-10-25T03:00", id="hours twice: once"),
        pytest.param("*/20 */1 * * *", BERLIN, "2026-10-25T00:40", "2026-10-25T01:00", id="each hour by a step of one"),
        pytest.param("30 1 * * *", NEW_YORK, "2026-11-01T05:30", "2026-11-02T06:30", id="twice in New York: once"),
        pytest.param("0 3 31 * *", "UTC", "2026-01-31T03:00", "2026-03-31T03:00", id="the 31st skips February"),
        pytest.param("0 3 29 2 *", "UTC", "2026-01-01T00:00", "2028-02-29T03:00", id="a leap day"),
        pytest.param("0 3 29 2 *", "UTC", "2096-03-01T00:00", "2104-02-29T03:00", id="2100 has none"),
        pytest.param("0 3 1 * 1", "UTC", "2026-01-02T00:00", "2026-01-05T03:00", id="a day of either kind"),
        pytest.param("0 3 * * sun", "UTC", "2026-01-01T00:00", "2026-01-04T03:00", id="a name of a day"),
        pytest.param("0 3 * * 7", "UTC", "2026-01-01T00:00", "2026-01-04T03:00", id="7 is Sunday"),
        pytest.param("*/15 * * * *", "UTC", "2026-01-01T00:01", "2026-01-01T00:15", id="the most often"),
        pytest.param("0 9-17/4 * * mon-fri", "UTC", "2026-01-02T14:00", "2026-01-02T17:00", id="steps of a range"),
        pytest.param("0 3 1 1,7 *", "UTC", "2026-01-01T03:00", "2026-07-01T03:00", id="two months"),
    ],
)
def test_due_times(cron: str, zone: str, after: str, due: str) -> None:
    assert a_spec(schedule={"cron": cron, "timeZone": zone}).schedule is not None
    assert next_due(cron, zone, at(after)) == at(due)


@pytest.mark.parametrize(
    ("schedule", "field", "said"),
    [
        ({}, "cron", "is required"),
        ({"cron": "61 * * * *"}, "cron", "the five fields of cron"),
        ({"cron": "* * * * *"}, "cron", "as minute up to four numbers"),
        ({"cron": "*/5 * * * *"}, "cron", "or */15, */20 or */30"),
        ({"cron": "0 0 3 * * 1"}, "cron", "the five fields of cron"),
        ({"cron": "@daily"}, "cron", "the five fields of cron"),
        ({"cron": "0 24 * * *"}, "cron", "the five fields of cron"),
        ({"cron": "0 3 0 * *"}, "cron", "the five fields of cron"),
        ({"cron": "0 3 * 13 *"}, "cron", "the five fields of cron"),
        ({"cron": "0 3 * * 8"}, "cron", "the five fields of cron"),
        ({"cron": "0 3 * * mo"}, "cron", "the five fields of cron"),
        ({"cron": "0,5 3 * * *"}, "cron", "less than 15 apart"),
        ({"cron": "5,50,59 3 * * *"}, "cron", "also around the hour"),
        ({"cron": "0,50 3 * * *"}, "cron", "also around the hour"),
        ({"cron": "0 17-9 * * *"}, "cron", "Bad hour"),
        ({"cron": "0 3 31 2 *"}, "cron", "Bad day-of-month"),
        ({"cron": "0 3 * * 1", "timeZone": "Mars/Olympus"}, "timeZone", "give a name such as Europe/Berlin"),
        ({"cron": "0 3 * * 1", "timeZone": "../etc/passwd"}, "timeZone", "a name of the IANA time zone database"),
        ({"cron": "0 3 * * 1", "timeZone": "Europe"}, "timeZone", "is not in the IANA time zone database"),
        ({"cron": "0 3 * * 1", "onCorpusChange": "Ignore"}, "onCorpusChange", "give Run or Report"),
    ],
)
def test_what_is_refused_names_the_field_and_the_cure(schedule: dict[str, str], field: str, said: str) -> None:
    with pytest.raises(SpecError) as caught:
        a_spec(schedule=schedule)
    assert caught.value.field == f"spec.schedule.{field}"
    assert said in str(caught.value)


def test_the_status_of_a_schedule_is_read_as_it_was_written() -> None:
    known = ScheduleStatus(
        asked="0 3 * * 1 UTC",
        next_look="2026-01-12T03:00:00Z",
        last_look="2026-01-05T03:00:09Z",
        last_change="2026-01-05T03:00:09Z",
        result="Changed",
        message="the documents changed: revision 2",
        waits="it is due",
        drift={"newDocuments": 3, "goneDocuments": 0, "newText": "0.25000", "unseenTerms": "0.01000"},
        revisions=1,
        due="2026-01-05T03:00:00Z",
        look=StageStatus(name=Stage.INPUTS, fingerprint="ab" * 32, attempt=1),
        seen={"corpus": "sha256:00"},
        before={"fingerprint": "cd" * 32, "corpus": "inputs/corpus-00"},
    )
    written = Status(schedule=known).to_json()
    assert Status.from_json(written).schedule == known
    shown = {"nextLookTime", "lastLookTime", "lastChangeTime", "result", "message", "waits", "drift", "revisions"}
    assert set(written["schedule"]) == shown


def test_a_schedule_that_somebody_made_something_else_of_is_forgotten() -> None:
    assert Status.from_json({"schedule": "weekly"}).schedule == ScheduleStatus()
    assert Status.from_json({"schedule": {"look": {"name": "nothing"}}}).schedule == ScheduleStatus()
    assert Status.from_json({"schedule": {"look": "at three"}}).schedule == ScheduleStatus()
    odd = {"asked": 3, "due": ["now"], "seen": "all", "before": {"corpus": 7}, "drift": [1]}
    assert Status.from_json({"schedule": odd}).schedule == ScheduleStatus()
