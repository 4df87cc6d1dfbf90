"""How conditions change and what Ready means."""

from __future__ import annotations

from typing import Any

import pytest
from unit.operator.builders import a_condition

from embedding_operator.resource.conditions import DEPENDENTS, READY, compute_ready, drop_condition, set_condition

ALL = tuple(a_condition(kind) for kind in DEPENDENTS)


def but(*others: Any) -> tuple[Any, ...]:
    changed = {item.type: item for item in others}
    return tuple(changed.get(item.type, item) for item in ALL)


def without(kind: str) -> tuple[Any, ...]:
    return tuple(item for item in ALL if item.type != kind)


@pytest.mark.parametrize(
    ("conditions", "ready"),
    [
        (ALL, ("True", "Verified")),
        ((), ("Unknown", "InProgress")),
        (but(a_condition("Trained", "Unknown", reason="Running")), ("Unknown", "Running")),
        (but(a_condition("Trained", "False", reason="OOMKilled")), ("False", "OOMKilled")),
        (
            but(a_condition("Validated", "Unknown", reason="A"), a_condition("Verified", "False", reason="B")),
            ("False", "B"),
        ),
        (
            but(a_condition("Deployed", "False", reason="First"), a_condition("Verified", "False", reason="Second")),
            ("False", "First"),
        ),
        (without("Exported"), ("Unknown", "InProgress")),
        (but(a_condition("Verified", generation=0)), ("Unknown", "InProgress")),
        (but(a_condition("Verified", "False", generation=0)), ("Unknown", "InProgress")),
    ],
    ids=[
        "all are true",
        "none is known",
        "one is unknown",
        "one is false",
        "false wins over unknown",
        "the first failure is told",
        "one is missing",
        "one is of an older generation",
        "an older generation's failure is no failure",
    ],
)
def test_ready_is_what_the_others_say(conditions: Any, ready: tuple[str, str]) -> None:
    assert compute_ready(conditions, 1)[:2] == ready


@pytest.mark.parametrize("kind", DEPENDENTS)
@pytest.mark.parametrize("status", ["False", "Unknown"])
def test_no_dependent_can_be_forgotten(kind: str, status: str) -> None:
    assert compute_ready(but(a_condition(kind, status)), 1)[0] == status
    assert compute_ready(without(kind), 1)[0] == "Unknown"


def put(conditions: Any, status: Any, now: str, message: str = "") -> Any:
    return set_condition(conditions, READY, status, "Reason", message, generation=1, now=now)


def test_its_time_moves_with_its_status_and_not_with_its_message() -> None:
    first = put((), "Unknown", "t1")
    second = put(first, "Unknown", "t2", "more")
    third = put(second, "True", "t3")
    assert [items[0].last_transition_time for items in (first, second, third)] == ["t1", "t1", "t3"]
    assert second[0].message == "more"


def test_they_are_kept_in_one_order_and_once_each() -> None:
    conditions: Any = ()
    for kind in (*reversed(DEPENDENTS), READY, "Stalled", *DEPENDENTS):
        conditions = set_condition(conditions, kind, "True", "R", "", generation=1, now="t")
    assert [item.type for item in conditions] == [READY, *DEPENDENTS, "Stalled"]
    assert [item.type for item in drop_condition(conditions, "Stalled")] == [READY, *DEPENDENTS]


def test_a_message_is_cut() -> None:
    assert len(put((), "True", "t", "x" * 5000)[0].message) == 1024
