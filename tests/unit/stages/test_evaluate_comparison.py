"""The paired bootstrap of a difference, against one that is worked out in full."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest

from embedding_stages.evaluate.comparison import compare, compare_scores
from embedding_stages.evaluate.metrics import Scores

BEFORE = [0.5, 0.0, 1.0, 0.25, 0.75, 0.5]
AFTER = [0.75, 0.5, 0.9, 0.25, 1.0, 0.1]


def every_mean(before: Sequence[float], after: Sequence[float]) -> list[float]:
    """The mean difference of every sample with replacement there is, in rising order."""
    differences = [new - old for old, new in zip(before, after, strict=True)]
    return sorted(sum(sample) / len(sample) for sample in itertools.product(differences, repeat=len(differences)))


def test_the_lower_end_is_that_of_all_samples_there_are() -> None:
    means = every_mean(BEFORE, AFTER)
    found = compare(BEFORE, AFTER)
    below, above = (means[round(share * len(means))] for share in (0.043, 0.057))
    assert below <= found.lower <= above
    assert above < means[len(means) // 4], "so that an end of another level is seen"


def test_the_same_samples_drawn_one_by_one_give_the_same_end() -> None:
    generator = np.random.default_rng(7)
    rows = generator.integers(len(BEFORE), size=(200, len(BEFORE))).tolist()
    means = sorted(sum(AFTER[at] - BEFORE[at] for at in row) / len(row) for row in rows)
    place = 0.05 * (len(means) - 1)
    low = math.floor(place)
    expected = means[low] + (place - low) * (means[low + 1] - means[low])
    assert compare(BEFORE, AFTER, samples=200, seed=7).lower == pytest.approx(expected)


def test_the_figures_are_the_means_and_what_the_spread_allows() -> None:
    found = compare(BEFORE, AFTER)
    differences = [new - old for old, new in zip(BEFORE, AFTER, strict=True)]
    mean = sum(differences) / 6
    spread = math.sqrt(sum((value - mean) ** 2 for value in differences) / 5)
    assert (found.before, found.after) == pytest.approx((sum(BEFORE) / 6, sum(AFTER) / 6))
    assert found.detectable == pytest.approx(2.487 * spread / math.sqrt(6))
    assert found.to_json() == [round(value, 6) for value in (found.before, found.after, found.lower, found.detectable)]


@pytest.mark.parametrize("seed", range(5))
def test_the_lower_end_lies_below_the_difference(seed: int) -> None:
    random = np.random.default_rng(seed)
    before, after = random.random(50), random.random(50)
    found = compare(before.tolist(), after.tolist())
    assert found.lower < found.after - found.before


def test_a_better_model_on_many_questions_is_surely_better_and_on_few_it_is_not() -> None:
    random = np.random.default_rng(0)
    before = random.random(2000)
    after = before + random.normal(0.03, 0.25, size=2000)
    assert compare(before.tolist(), after.tolist()).lower > 0
    assert compare(before[:20].tolist(), after[:20].tolist()).lower < 0


@pytest.mark.parametrize("scores", [[0.5] * 4, [0.1, 0.9, 0.3], [0.0], [1.0]], ids=str)
def test_identical_scores_differ_by_nothing(scores: list[float]) -> None:
    found = compare(scores, scores)
    assert (found.after - found.before, found.lower, found.detectable) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(("before", "after"), [([], []), ([0.1], []), ([0.1], [0.1, 0.2])], ids=str)
def test_what_are_no_pairs(before: list[float], after: list[float]) -> None:
    with pytest.raises(ValueError, match="no pairs"):
        compare(before, after)


def test_scores_are_paired_by_their_query() -> None:
    before = Scores({}, {"a": {"ndcg@10": 0.1, "map@1": 0.0}, "b": {"ndcg@10": 0.9, "map@1": 1.0}})
    after = Scores({}, {"b": {"ndcg@10": 0.9, "map@1": 1.0}, "a": {"ndcg@10": 0.1, "map@1": 0.0}})
    assert compare_scores(before, after, ["ndcg@10"]) == {"ndcg@10": [0.5, 0.5, 0.0, 0.0]}
