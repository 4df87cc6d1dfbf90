"""What time it is for the API server, by what its answers have said."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from embedding_operator.cluster.server_clock import ServerClock

BEGAN = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOURS = 3600.0

# How far ahead of the true time the answers are, the seconds from one to the next, and how far the clock is in the end:
# with a machine that shows the true time, and with one that does not.
ROWS: dict[str, tuple[list[float | None], float, float, float]] = {
    "an answer without a time": ([None], 1, 0, 7 * HOURS),
    "the first is believed": ([2 * HOURS], 1, 2 * HOURS, 2 * HOURS),
    "the first of all was wrong": ([2 * HOURS, 0], 1, 0, 2 * HOURS),
    "one is wrong": ([0, 2 * HOURS], 1, 0, 0),
    "one is wrong among others": ([0, 0, 2 * HOURS, 0, 0], 1, 0, 0),
    "one of several servers is wrong": ([0, 2 * HOURS] * 100, 1, 0, 0),
    "its answers come in rows": ([0, *[2 * HOURS] * 20] * 20, 1, 0, 0),
    "two are wrong, each in its own way": ([0, *[2 * HOURS, -3 * HOURS] * 100], 1, 0, 0),
    "some were held up together": ([0, *[-60] * 20], 1, 0, 0),
    "all say so for a minute": ([0, *[2 * HOURS] * 62], 1, 2 * HOURS, 2 * HOURS),
    "all say so for a minute, and some nothing": ([0, *[2 * HOURS, None] * 32], 1, 2 * HOURS, 2 * HOURS),
    "two say so, a minute apart": ([0, 2 * HOURS, 2 * HOURS], 61, 2 * HOURS, 2 * HOURS),
    "set back": ([0, *[-2 * HOURS] * 62], 1, -2 * HOURS, -2 * HOURS),
    "it drifts": ([0, 3, 6, 9], 1, 9, 9),
}


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("own_ahead", [0, 7 * HOURS])
def test_a_jump_is_believed_once_nobody_says_otherwise(row: str, own_ahead: float) -> None:
    aheads, apart, with_true, with_wrong = ROWS[row]
    clock, second = ServerClock(), 0.0
    for number, ahead in enumerate(aheads, 1):
        second = number * apart
        true = BEGAN + timedelta(seconds=second)
        date = "" if ahead is None else format_datetime(true + timedelta(seconds=ahead), usegmt=True)
        clock.hear(date, true + timedelta(seconds=own_ahead), second)
    later = second + 60
    own = BEGAN + timedelta(seconds=later + own_ahead)
    found = (clock.now(own, later) - BEGAN).total_seconds() - later
    assert found == pytest.approx(with_wrong if own_ahead else with_true, abs=2)
