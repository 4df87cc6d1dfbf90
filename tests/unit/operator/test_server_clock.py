"""What time it is for the API server, by what its answers have said."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from embedding_operator.cluster.server_clock import ServerClock

BEGAN = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOURS = 3600.0

ROWS: dict[str, tuple[list[float | None], float]] = {
    # how far ahead of the true time the answers are, one a second; how far the clock is in the end
    "nothing was said": ([], 0),
    "an answer without a time": ([None], 0),
    "the first is believed": ([2 * HOURS], 2 * HOURS),
    "one is wrong": ([0, 2 * HOURS], 0),
    "one is wrong among others": ([0, 0, 2 * HOURS, 0, 0], 0),
    "one of several servers is wrong": ([0, 2 * HOURS, 0, 2 * HOURS, 0, 2 * HOURS], 0),
    "two are wrong, each in its own way": ([0, 2 * HOURS, -3 * HOURS], 0),
    "the first of all was wrong": ([2 * HOURS, 0, 0], 0),
    "a second one says the same": ([0, 2 * HOURS, 2 * HOURS], 2 * HOURS),
    "a second one says the same after one that says nothing": ([0, 2 * HOURS, None, 2 * HOURS], 2 * HOURS),
    "set back": ([0, -2 * HOURS, -2 * HOURS], -2 * HOURS),
    "it drifts": ([0, 3, 6, 9], 9),
}


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("own_ahead", [0, 7 * HOURS])
def test_a_jump_is_believed_once_a_second_answer_says_the_same(row: str, own_ahead: float) -> None:
    """Whatever this machine's clock shows, as long as anything was said."""
    aheads, expected = ROWS[row]
    clock, second = ServerClock(), 0
    for second, ahead in enumerate(aheads, 1):
        true = BEGAN + timedelta(seconds=second)
        date = "" if ahead is None else format_datetime(true + timedelta(seconds=ahead), usegmt=True)
        clock.hear(date, true + timedelta(seconds=own_ahead), float(second))
    later = 60
    own = BEGAN + timedelta(seconds=later + own_ahead)
    heard = any(ahead is not None for ahead in aheads)
    found = (clock.now(own, float(later)) - BEGAN).total_seconds() - later
    assert found == pytest.approx(expected if heard else own_ahead, abs=2)
