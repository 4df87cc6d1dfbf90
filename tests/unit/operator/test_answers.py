"""What an answer of the API server says besides its body."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from embedding_operator.cluster.answers import server_ahead_s

NOW = datetime(2026, 1, 1, 12, 0, 0, 900000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("date", "ahead"),
    [
        ("Thu, 01 Jan 2026 12:00:00 GMT", 0),  # the same second
        ("Thu, 01 Jan 2026 11:59:59 GMT", 0),  # the answer was on its way
        ("Thu, 01 Jan 2026 12:01:00 GMT", 59.1),
        ("Thu, 01 Jan 2026 11:00:00 GMT", -3600.9),
        ("", 0),
        ("yesterday", 0),
        ("Thu, 01 Jan 2026 12:01:00", 0),  # no zone: not as HTTP writes it
    ],
)
def test_the_servers_clock_is_the_one_that_deadlines_are_told_by(date: str, ahead: float) -> None:
    assert server_ahead_s(date, NOW) == pytest.approx(ahead)
