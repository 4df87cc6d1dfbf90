"""What a replica makes of the Lease: rows of what it has read and when, by its own clock."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from embedding_operator.cluster.election import Sight, Terms, claimed, left_s, look, pause_s, released

TERMS = Terms(lease_s=15, renew_s=10, retry_s=2)
WHERE = ("home", "operator")
NOW = datetime(2026, 1, 2, 3, 4, 5, 600, tzinfo=UTC)
Read = tuple[dict[str, Any] | None, float]  # what was read, and when


def a_lease(holder: str = "b", renewed: str = "1", lasts: int | None = 15, **others: Any) -> dict[str, Any]:
    spec = {"holderIdentity": holder, "renewTime": renewed, "acquireTime": "0", "leaseTransitions": 3, **others}
    spec |= {"leaseDurationSeconds": lasts} if lasts is not None else {}
    return {"metadata": {"namespace": "home", "name": "operator", "resourceVersion": "7"}, "spec": spec}


def seen(reads: tuple[Read, ...]) -> Sight:
    sight = None
    for lease, at in reads:
        sight = look(sight, lease, TERMS, at)
    assert sight is not None
    return sight


ROWS: dict[str, tuple[tuple[Read, ...], float, float]] = {
    # what `a` has read and when; the time now; for how long somebody else may still lead
    "there is none": (((None, 0),), 0, 0),
    "ours": (((a_lease("a"), 0),), 3, 0),
    "ours, and long ago": (((a_lease("a"), 0),), 300, 0),
    "released": (((a_lease(""), 0),), 0, 0),
    "another's, just seen": (((a_lease(), 100),), 100, 15),
    "another's, half over": (((a_lease(), 100),), 107, 8),
    "another's, a moment before its end": (((a_lease(), 100),), 114.5, 0.5),
    "another's, over": (((a_lease(), 100),), 115, 0),
    "another's, looked at again and not renewed": (((a_lease(), 100), (a_lease(), 110)), 112, 3),
    "another's, renewed": (((a_lease(), 100), (a_lease(renewed="2"), 110)), 112, 13),
    "renewed by a clock that is an hour slow": (
        ((a_lease(renewed="2026"), 100), (a_lease(renewed="2025"), 110)),
        112,
        13,
    ),
    "taken by a third": (((a_lease("b"), 100), (a_lease("c"), 110)), 112, 13),
    "taken again by the same, with the same times": (((a_lease(), 100), (a_lease(leaseTransitions=4), 110)), 112, 13),
    "a label was put on it": (((a_lease(), 100), ({**a_lease(), "metadata": {"labels": {"x": "y"}}}, 110)), 112, 3),
    "its holder makes it longer": (((a_lease(lasts=60), 100),), 130, 30),
    "its holder says no length": (((a_lease(lasts=None), 100),), 105, 10),
    "removed while another held it, who may not know": (((a_lease(), 100), (None, 105)), 107, 8),
    "removed and made again by another": (((a_lease(), 100), (None, 105), (a_lease("c"), 110)), 112, 13),
    "removed, and over": (((a_lease(), 100), (None, 105)), 115, 0),
    "removed while we held it": (((a_lease("a"), 100), (None, 105)), 106, 0),
    "it has no spec": ((({"metadata": {}}, 100),), 100, 0),
}


@pytest.mark.parametrize("row", ROWS)
def test_for_how_long_another_may_still_lead(row: str) -> None:
    reads, now, expected = ROWS[row]
    assert left_s(seen(reads), "a", now) == pytest.approx(expected)


CLAIMS: dict[str, tuple[Read, dict[str, Any]]] = {
    "the first": ((None, 0), {"acquireTime": "now", "leaseTransitions": 0}),
    "renewed": ((a_lease("a"), 0), {"acquireTime": "0", "leaseTransitions": 3}),
    "taken": ((a_lease("b"), 0), {"acquireTime": "now", "leaseTransitions": 4}),
    "taken after a release": ((a_lease(""), 0), {"acquireTime": "now", "leaseTransitions": 4}),
    "what others wrote stays": ((a_lease("a", strategy="x"), 0), {"strategy": "x", "acquireTime": "0"}),
}


@pytest.mark.parametrize("row", CLAIMS)
def test_what_is_written(row: str) -> None:
    (lease, at), expected = CLAIMS[row]
    written = claimed(look(None, lease, TERMS, at), "a", TERMS, WHERE, NOW)
    now = "2026-01-02T03:04:05.000600Z"
    always = {"holderIdentity": "a", "leaseDurationSeconds": 15, "renewTime": now}
    wanted = always | {key: now if value == "now" else value for key, value in expected.items()}
    assert {key: written["spec"][key] for key in wanted} == wanted
    assert (written["metadata"]["namespace"], written["metadata"]["name"]) == WHERE
    # With it the API server refuses whoever was overtaken, and without it whoever is not the first.
    assert written["metadata"].get("resourceVersion") == ("7" if lease else None)


def test_a_release_leaves_nothing_to_wait_for() -> None:
    left = released(look(None, a_lease("a"), TERMS, 0), WHERE, NOW)
    assert left_s(look(None, left, TERMS, 0), "b", 0) == 0
    assert left["spec"]["leaseTransitions"] == 3, "taking it is what counts"
    assert left["spec"]["leaseDurationSeconds"] > 0, "the API server takes no other"


@pytest.mark.parametrize(
    ("lease", "now", "chance", "expected"),
    [
        (None, 0, 0.0, 2.0),
        (a_lease("a"), 0, 0.5, 2.2),
        (a_lease("b"), 0, 0.0, 2.0),
        (a_lease("b"), 0, 1.0, 2.4),
        (a_lease("b"), 14.25, 1.0, 0.75),
        (a_lease("b"), 15, 1.0, 2.4),  # it was tried, in vain
    ],
)
def test_the_next_look(lease: dict[str, Any] | None, now: float, chance: float, expected: float) -> None:
    assert pause_s(look(None, lease, TERMS, 0), "a", TERMS, now, chance) == pytest.approx(expected)


def test_nothing_was_seen_yet() -> None:
    assert pause_s(None, "a", TERMS, 0, 0) == 2.0
