"""What bench/scale makes of its figures: quantiles, lines, goals."""

from __future__ import annotations

import math

import pytest
from bench.scale.figures import beyond_what_is_held, fit, growth_per_hour, no_worse_than_linear, quantile
from bench.scale.goals import Row, goals_table


@pytest.mark.parametrize(
    ("values", "share", "wanted"),
    [
        ([3.0], 0.5, 3.0),
        ([1.0, 2.0, 3.0, 4.0], 0.5, 2.0),
        ([4.0, 1.0, 3.0, 2.0], 0.99, 4.0),
        ([float(x) for x in range(1, 101)], 0.99, 99.0),
        ([float(x) for x in range(1, 101)], 0.0, 1.0),
    ],
)
def test_quantile_is_a_value_that_was_measured(values: list[float], share: float, wanted: float) -> None:
    assert quantile(values, share) == wanted


def test_of_nothing_there_is_no_quantile() -> None:
    assert math.isnan(quantile([], 0.5))


def test_a_straight_line_is_found_with_its_start_and_slope() -> None:
    line = fit([1000, 2000, 5000, 10000], [70 + 0.03 * x for x in (1000, 2000, 5000, 10000)])
    assert line.start == pytest.approx(70)
    assert line.slope == pytest.approx(0.03)
    assert line.r2 == pytest.approx(1.0)


def test_what_grows_faster_than_a_line_fits_it_badly() -> None:
    xs = [1000.0, 2000.0, 5000.0, 10000.0]
    assert fit(xs, [x**3 for x in xs]).r2 < 0.98


@pytest.mark.parametrize("xs", [[], [5.0], [5.0, 5.0]])
def test_without_two_different_x_there_is_no_line(xs: list[float]) -> None:
    assert math.isnan(fit(xs, xs).slope)


def test_x_and_y_must_be_as_many() -> None:
    with pytest.raises(ValueError, match="2 x and 1 y"):
        fit([1.0, 2.0], [1.0])


@pytest.mark.parametrize(
    ("ys", "wanted"),
    [
        ([10.0, 20.0, 50.0, 100.0], True),  # straight
        ([10.0, 40.0, 250.0, 1000.0], False),  # with the square of x
        ([50.0, 80.0, 100.0, 110.0], True),  # slower and slower
        ([50.0, 50.0, 50.0, 50.5], True),  # does not depend on x
        ([50.0, 50.0, 50.0, 500.0], False),  # one that jumps in the end
    ],
)
def test_growth_is_no_worse_than_linear(ys: list[float], wanted: bool) -> None:
    assert no_worse_than_linear([1000.0, 2000.0, 5000.0, 10000.0], ys) is wanted


def test_growth_is_counted_after_the_warm_up() -> None:
    warm = [(float(second), 100.0 + second) for second in range(0, 600, 10)]
    later = [(float(second), 700.0 + 2.0 * (second - 600) / 3600) for second in range(600, 7200, 10)]
    assert growth_per_hour(warm + later, warm_up_s=600) == pytest.approx(2.0)


@pytest.mark.parametrize("samples", [[], [(0.0, 1.0)], [(0.0, 1.0), (10.0, 1.0)]])
def test_of_too_few_samples_there_is_no_growth(samples: list[tuple[float, float]]) -> None:
    assert math.isnan(growth_per_hour(samples, warm_up_s=5))


@pytest.mark.parametrize(
    ("measured", "goal", "at_least", "verdict"),
    [
        (50.0, 50.0, False, "met"),
        (50.1, 50.0, False, "missed"),
        (10.0, 10.0, True, "met"),
        (9.9, 10.0, True, "missed"),
        (math.nan, 50.0, False, "missed"),  # what could not be measured is no success
        (math.nan, 10.0, True, "missed"),
        (1.0, None, False, ""),
    ],
)
def test_verdict(measured: float, goal: float | None, at_least: bool, verdict: str) -> None:
    assert Row(what="x", measured=measured, unit="s", goal=goal, at_least=at_least).verdict == verdict


def test_a_missed_goal_stands_in_the_table() -> None:
    rows = [Row(what="restart", measured=124.0, unit="s", goal=90, note="10,000 requests")]
    assert goals_table(rows).splitlines()[-1] == "| restart | 124 s | at most 90 | missed | 10,000 requests |"


@pytest.mark.parametrize("leak_an_hour", [0.0, 7.0])
def test_what_more_objects_take_is_no_growth(leak_an_hour: float) -> None:
    """70 MiB with none, 4 KiB each, of which there are more and more, then as many as before."""
    held = [(60.0 * minute, 20_000 + min(50 * minute, 2_000)) for minute in range(121)]
    samples = [(when, 70 + count * 4 / 1024 + leak_an_hour * when / 3600) for when, count in held]
    rest = beyond_what_is_held(samples, held[::5], empty=70)
    assert growth_per_hour(samples, warm_up_s=0) > leak_an_hour + 2
    # What leaks is a part of each object's share, too: 14 of 100 MiB in the end.
    assert growth_per_hour(rest, warm_up_s=0) == pytest.approx(leak_an_hour, abs=0.6)


def test_nothing_is_held_by_who_was_not_looked_at() -> None:
    assert beyond_what_is_held([(0.0, 70.0)], [], empty=70) == []
    assert beyond_what_is_held([(0.0, 70.0)], [(0.0, 0)], empty=70) == [(0.0, 70.0)]
