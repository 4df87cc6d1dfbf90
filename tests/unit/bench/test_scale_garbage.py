"""When the API server collected garbage, by the lines that Go writes of it."""

from __future__ import annotations

import pytest
from bench.scale.garbage import Collection, collections

_LOG = """I1201 06:03:57.1 server.go:150] started
gc 1 @0.015s 3%: 0.10+1.0+0.05 ms clock, 0.20+0.3/1.1/2.5+0.10 ms cpu, 3->4->2 MB, 4 MB goal, 2 P
gc 2 @40.500s 4%: 0.2+2500+0.3 ms clock, 0.4+600/1200/90+0.6 ms cpu, 900->990->480 MB, 960 MB goal, 2 P
"""


def test_each_collection_has_its_time() -> None:
    first, second = collections(_LOG.splitlines(), started=1000.0)
    assert (first.began, first.seconds) == pytest.approx((1000.015, 0.00115))
    assert (second.began, second.seconds) == pytest.approx((1040.5, 2.5005))


def test_those_of_a_process_before_are_not_counted() -> None:
    again = "gc 1 @0.020s 1%: 0+2+0 ms clock, 0+0/0/0+0 ms cpu, 3->4->2 MB, 4 MB goal, 2 P"
    (only,) = collections([*_LOG.splitlines(), again], started=2000.0)
    assert only.began == pytest.approx(2000.02)


@pytest.mark.parametrize(
    ("begin", "end", "meets"),
    [
        pytest.param(9.0, 9.9, False, id="before"),
        pytest.param(9.0, 10.1, True, id="into its beginning"),
        pytest.param(10.5, 11.0, True, id="within"),
        pytest.param(9.0, 20.0, True, id="around"),
        pytest.param(11.9, 13.0, True, id="from its end"),
        pytest.param(12.0, 13.0, False, id="after"),
    ],
)
def test_what_it_meets(begin: float, end: float, meets: bool) -> None:
    assert Collection(began=10.0, seconds=2.0).meets(begin, end) is meets
