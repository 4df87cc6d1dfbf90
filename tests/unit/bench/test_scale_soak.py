"""The soak's plan of faults and what it holds the operator to."""

from __future__ import annotations

import json
from typing import Any

import pytest
from bench.scale import faults
from bench.scale.invariants import OWNER_UID, Place, leaked, repeated, tracebacks


def test_a_seed_makes_the_same_plan_again() -> None:
    asked = {"seconds": 3600.0, "every_s": 10.0, "kills_until": 1800.0}
    assert faults.plan(7, **asked) == faults.plan(7, **asked)
    assert faults.plan(7, **asked) != faults.plan(8, **asked)


def test_faults_come_about_as_often_as_asked_and_all_kinds_come() -> None:
    found = faults.plan(1, seconds=7200, every_s=10, kills_until=3600)
    assert 620 < len(found) < 820
    assert {fault.what for fault in found} == set(faults._DRAWN)
    assert [fault.at for fault in found] == sorted(fault.at for fault in found)
    assert found[-1].at < 7200


def test_after_a_time_the_operator_is_no_longer_killed() -> None:
    found = faults.plan(1, seconds=7200, every_s=10, kills_until=3600)
    killed = [fault.at for fault in found if fault.what == faults.KILL]
    assert killed
    assert max(killed) < 3600


def event(what: str, uid: str, **changes: Any) -> dict[str, Any]:
    known = {"what": what, "uid": uid, "namespace": "a", "name": f"job-{uid}"}
    return {**known, "owner": "o", "stage": "sdg", "fingerprint": "f", **changes}


@pytest.mark.parametrize(
    ("events", "found"),
    [
        ([event("run", "1"), event("ended", "1")], 0),
        ([event("run", "1"), event("ended", "1"), event("run", "2")], 1),
        ([event("run", "1"), event("ended", "1"), event("gone", "1"), event("run", "2")], 1),  # removed after its end
        ([event("run", "1"), event("gone", "1"), event("run", "2")], 0),  # removed before its end
        ([event("run", "1"), event("run", "2")], 1),  # both at a time
        ([event("run", "1"), event("run", "1")], 0),  # told again after the watch broke
        ([event("run", "1"), event("ended", "1"), event("run", "2", fingerprint="g")], 0),
        ([event("run", "1"), event("ended", "1"), event("run", "2", owner="p")], 0),
        ([event("run", "1"), event("ended", "1"), event("run", "2", stage="prep")], 0),
        ([event("run", "1", fingerprint=""), event("run", "2", fingerprint="")], 0),  # somebody else's Jobs
    ],
)
def test_work_done_twice(events: list[dict[str, Any]], found: int) -> None:
    assert len(repeated(events)) == found


def child(owner: str | None) -> dict[str, Any]:
    labels = {} if owner is None else {OWNER_UID: owner}
    return {"metadata": {"namespace": "a", "name": f"of-{owner}", "labels": labels}}


def test_what_has_no_living_owner_is_leaked() -> None:
    objects = [("Job", child("alive")), ("Service", child("gone")), ("Pod", child(None))]
    assert leaked(objects, {"alive"}) == {Place("Service", "a", "of-gone")}


def test_tracebacks_are_counted_by_their_last_line() -> None:
    text = "Traceback (most recent call last):\n  File x\nValueError: no"
    lines = [
        json.dumps({"message": "resync failed", "exception": text}),
        json.dumps({"message": text}),
        json.dumps({"message": "all well"}),
        "Traceback (most recent call last):",
    ]
    assert tracebacks(lines) == {"ValueError: no": 2, "a traceback outside of the log's format": 1}
