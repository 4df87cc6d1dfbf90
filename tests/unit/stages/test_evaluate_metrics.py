"""Search, metrics, bootstrap: numbers worked out by hand, and one row for each trap of BEIR's evaluator."""

from __future__ import annotations

import math

import numpy as np
import pytest
from beir.retrieval.evaluation import EvaluateRetrieval

from embedding_stages.errors import BadInput, StageError
from embedding_stages.evaluate.bootstrap import confidence_interval, relative_uplift
from embedding_stages.evaluate.evaluation_set import EvaluationSet
from embedding_stages.evaluate.metrics import headline, k_values_of, measure, score
from embedding_stages.evaluate.report import changed_queries, per_query
from embedding_stages.evaluate.search import nearest_passages


def a_set(relevance: dict[str, dict[str, int]], passages: tuple[str, ...] = ("a", "b", "c")) -> EvaluationSet:
    ids = tuple(sorted(relevance))
    return EvaluationSet(query_ids=ids, queries=ids, passage_ids=passages, passages=passages, relevance=relevance)


def unit(*rows: tuple[float, ...]) -> np.ndarray:
    vectors = np.array(rows, dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


PASSAGES = unit((1, 0), (0, 1), (1, 1))


def test_numbers_worked_out_by_hand() -> None:
    # q1 ranks a, c, b; c is relevant: second. q2 ranks b, c, a; b and a are relevant: first and third.
    queries = unit((1, 0.1), (0.1, 1))
    found = measure(a_set({"q1": {"c": 1}, "q2": {"b": 1, "a": 1}}), queries, PASSAGES, (1, 2, 3))
    third = 1 / math.log2(4)
    ideal = 1 + 1 / math.log2(3)
    assert found.per_query["q1"]["ndcg@2"] == pytest.approx(1 / math.log2(3))
    assert found.per_query["q2"]["ndcg@3"] == pytest.approx((1 + third) / ideal)
    assert found.means["recall@1"] == pytest.approx((0 + 0.5) / 2)
    assert found.means["recall@3"] == 1.0
    assert found.means["precision@3"] == pytest.approx((1 / 3 + 2 / 3) / 2)
    assert found.means["map@3"] == pytest.approx((1 / 2 + (1 + 2 / 3) / 2) / 2)
    assert found.means["ndcg@1"] == 0.5


def test_graded_relevance_changes_ndcg_alone() -> None:
    graded = measure(a_set({"q": {"a": 1, "c": 3}}), unit((1, 0.1)), PASSAGES, (2,))
    flat = measure(a_set({"q": {"a": 1, "c": 1}}), unit((1, 0.1)), PASSAGES, (2,))
    assert graded.means["ndcg@2"] < flat.means["ndcg@2"] == 1.0
    assert graded.means["recall@2"] == flat.means["recall@2"]


RANKING = {"a": 0.9, "b": 0.8, "c": 0.1}


class TestTraps:
    """What BEIR's evaluator does silently, and what happens here instead."""

    def test_queries_without_results_are_left_out_by_beir_and_refused_here(self) -> None:
        relevance = {"q1": {"a": 1}, "q2": {"a": 1}}
        ndcg, *_ = EvaluateRetrieval.evaluate(relevance, {"q1": dict(RANKING)}, [1])
        assert ndcg["NDCG@1"] == 1.0  # half of the queries found nothing
        with pytest.raises(StageError, match="1 of 2 queries have no results"):
            score(a_set(relevance), {"q1": RANKING}, (1,))

    def test_too_few_results_are_refused(self) -> None:
        with pytest.raises(StageError, match="has 1 results, expected 3"):
            score(a_set({"q": {"a": 1}}), {"q": {"a": 0.9}}, (1, 10))

    def test_unknown_passages_are_refused(self) -> None:
        with pytest.raises(StageError) as caught:
            score(a_set({"q": {"a": 1}}), {"q": {"a": 0.9, "b": 0.8, "z": 0.7}}, (1, 10))
        assert caught.value.reason == "RankingsIncomplete"

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_scores_that_are_not_finite_are_refused(self, value: float) -> None:
        with pytest.raises(StageError) as caught:
            score(a_set({"q": {"a": 1}}), {"q": RANKING | {"b": value}}, (3,))
        assert caught.value.reason == "ScoresNotFinite"

    def test_a_query_id_that_equals_a_passage_id_keeps_its_result(self) -> None:
        relevance = {"a": {"a": 1}}
        ndcg, *_ = EvaluateRetrieval.evaluate(relevance, {"a": dict(RANKING)}, [1])
        assert ndcg["NDCG@1"] == 0.0  # the right answer was removed
        assert score(a_set(relevance), {"a": RANKING}, (3,)).means["ndcg@3"] == 1.0

    def test_a_query_that_is_a_passage_is_no_result_of_its_own(self) -> None:
        """Queries a and b are passages, as in ArguAna and Quora; q is none."""
        queries = unit((1, 0), (0, 1), (1, 0.1))
        found = measure(a_set({"a": {"c": 1}, "b": {"c": 1}, "q": {"a": 1}}), queries, PASSAGES, (1, 3, 10))
        assert found.means["ndcg@1"] == 1.0
        assert found.means["ndcg@10"] == 1.0
        with pytest.raises(StageError, match="has 3 results, expected 2"):
            score(a_set({"a": {"c": 1}}), {"a": RANKING}, (10,))

    def test_figures_are_those_of_beirs_evaluator(self) -> None:
        """Half of the queries are passages, some passages are unknown, grades go from -2 to 3."""
        random = np.random.default_rng(7)
        ids = tuple(f"p{at:02}" for at in range(40))
        names = (*ids[:10], *(f"q{at:02}" for at in range(10)))
        judged = (*ids, "gone")
        relevance = {
            name: {one: int(random.integers(-2, 4)) for one in random.choice(judged, 6) if one != name} | {ids[-1]: 1}
            for name in names
        }
        queries, passages = unit(*random.normal(size=(20, 4))), unit(*random.normal(size=(40, 4)))
        queries[:10] = passages[:10]
        found = measure(a_set(relevance, ids), queries, passages, (1, 5, 10))
        results = {
            name: {one: float(value) for one, value in zip(ids, row, strict=True)}
            for name, row in zip(names, queries @ passages.T, strict=True)
        }
        figures = EvaluateRetrieval.evaluate(relevance, results, [1, 5, 10])
        theirs = {key.lower(): value for values in figures for key, value in values.items()}
        for name, value in found.means.items():
            assert value == pytest.approx(theirs[name.replace("precision", "p")], abs=1e-5), name

    def test_a_single_query(self) -> None:
        assert score(a_set({"q": {"a": 1}}), {"q": RANKING}, (3,)).means["recall@3"] == 1.0

    def test_k_beyond_the_corpus(self) -> None:
        found = measure(a_set({"q": {"a": 1}}), unit((1, 0)), PASSAGES, (1, 100))
        assert found.means["recall@100"] == 1.0
        assert found.means["precision@100"] == pytest.approx(0.01)

    def test_means_are_not_rounded_to_five_decimals(self) -> None:
        relevance = {f"q{at}": {"a" if at else "b": 1} for at in range(3)}
        found = score(a_set(relevance), dict.fromkeys(relevance, RANKING), (3,))
        assert found.means["ndcg@3"] == pytest.approx((2 + 1 / math.log2(3)) / 3, abs=6e-7)

    def test_a_relevant_passage_that_the_corpus_lacks_counts_as_not_found(self) -> None:
        found = score(a_set({"q": {"a": 1, "gone": 1}}), {"q": RANKING}, (3,))
        assert found.means["recall@3"] == 0.5


class TestSearch:
    def test_of_equal_scores_the_greater_id_comes_first_as_in_trec_eval(self) -> None:
        found = nearest_passages(["q"], unit((1, 0)), ["a", "b", "c"], unit((1, 0), (1, 0), (0, 1)), 2)
        assert list(found["q"]) == ["b", "a"]

    def test_ties_at_the_cut_do_not_depend_on_the_search(self) -> None:
        passages = [f"p{at:03}" for at in range(200)]
        found = nearest_passages(["q"], unit((1, 0)), passages, unit(*[(1, 0)] * 200), 5)
        assert list(found["q"]) == ["p199", "p198", "p197", "p196", "p195"]

    def test_rounding_noise_makes_no_order(self) -> None:
        noise = np.float32(1e-7)
        found = nearest_passages(["q"], unit((1, 0)), ["a", "b"], PASSAGES[:2] * 0 + [[1 + noise, 0], [1, 0]], 2)
        assert list(found["q"]) == ["b", "a"]

    def test_many_queries_against_a_slow_and_sure_search(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("embedding_stages.evaluate.search._BLOCK_BYTES", 7 * 4 * 50)  # seven queries a block
        random = np.random.default_rng(1)
        queries, passages = unit(*random.normal(size=(20, 6))), unit(*random.normal(size=(50, 6)))
        ids = [f"p{at:02}" for at in range(50)]
        found = nearest_passages([f"q{at:02}" for at in range(20)], queries, ids, passages, 7)
        for at, (_, ranking) in enumerate(sorted(found.items())):
            scores = queries[at].astype(np.float64) @ passages.T.astype(np.float64)
            assert list(ranking) == [ids[best] for best in np.argsort(-scores)[:7]]

    @pytest.mark.parametrize(
        ("queries", "passages", "reason"),
        [
            (np.full((1, 2), np.nan, dtype=np.float32), PASSAGES, "VectorsNotFinite"),
            (unit((1, 0)), np.full_like(PASSAGES, np.inf), "VectorsNotFinite"),
            (unit((1, 0), (1, 0)), PASSAGES, "VectorsMisshapen"),
            (unit((1, 0, 0)), PASSAGES, "VectorsMisshapen"),
        ],
    )
    def test_vectors_that_cannot_be_searched(self, queries: np.ndarray, passages: np.ndarray, reason: str) -> None:
        with pytest.raises(StageError) as caught:
            nearest_passages(["q"], queries, ["a", "b", "c"], passages, 2)
        assert caught.value.reason == reason


class TestBootstrap:
    def test_no_difference_has_an_interval_of_nothing(self) -> None:
        assert confidence_interval([0.5, 1.0, 0.2], [0.5, 1.0, 0.2]) == (0.0, 0.0)

    def test_the_same_gain_everywhere_is_sure(self) -> None:
        base = [0.1 + 0.01 * at for at in range(50)]
        low, high = confidence_interval(base, [1.1 * value for value in base]) or (0.0, 0.0)
        assert low == pytest.approx(0.1)
        assert high == pytest.approx(0.1)

    def test_it_is_repeatable_and_contains_the_uplift(self) -> None:
        random = np.random.default_rng(0)
        base = random.uniform(0.2, 0.8, size=300).tolist()
        tuned = [min(1.0, value + extra) for value, extra in zip(base, random.normal(0.05, 0.2, 300), strict=True)]
        interval = confidence_interval(base, tuned)
        assert interval == confidence_interval(base, tuned)
        uplift = relative_uplift(base, tuned)
        assert interval is not None
        assert uplift is not None
        assert interval[0] < uplift < interval[1]

    def test_pairs_matter(self) -> None:
        random = np.random.default_rng(0)
        base = random.uniform(0.1, 1.0, size=200)
        tuned = base + 0.02
        paired = confidence_interval(base.tolist(), tuned.tolist())
        shuffled = confidence_interval(base.tolist(), random.permutation(tuned).tolist())
        assert paired is not None
        assert shuffled is not None
        assert paired[0] > 0.0 > shuffled[0]

    def test_a_base_model_that_finds_nothing_has_no_ratio(self) -> None:
        assert relative_uplift([0.0, 0.0], [1.0, 0.5]) is None
        assert confidence_interval([0.0, 0.0], [1.0, 0.5]) is None
        assert confidence_interval([0.0, 0.5], [1.0, 0.5]) is None  # some samples hold the first query alone

    @pytest.mark.parametrize(("base", "tuned"), [([], []), ([1.0], [1.0, 2.0])])
    def test_what_is_no_pair(self, base: list[float], tuned: list[float]) -> None:
        with pytest.raises(ValueError, match="no pairs"):
            confidence_interval(base, tuned)


@pytest.mark.parametrize(
    ("k_values", "metric"), [((1, 5, 10, 100), "ndcg@10"), ((1, 3), "ndcg@3"), ((20, 50), "ndcg@20")]
)
def test_the_headline_metric(k_values: tuple[int, ...], metric: str) -> None:
    assert headline(k_values) == metric


def test_k_values_are_sorted_and_unique() -> None:
    assert k_values_of([10, 1, 10], field="f") == (1, 10)


@pytest.mark.parametrize("value", [[], None, [0], [1.5], [True], "1,5"])
def test_k_values_that_are_none(value: object) -> None:
    with pytest.raises(BadInput):
        k_values_of(value, field="spec.evaluation.kValues")


def test_queries_that_changed() -> None:
    evaluation_set = a_set({"q1": {"a": 1}, "q2": {"a": 1}, "q3": {"a": 1}})
    same = {"a": 0.9, "b": 0.8, "c": 0.1}
    before = per_query(score(evaluation_set, {f"q{at}": same for at in (1, 2, 3)}, (3,)), (3,))
    swapped = {"a": 0.8, "b": 0.9, "c": 0.1}
    other = per_query(score(evaluation_set, {"q1": same, "q2": swapped, "q3": same}, (3,)), (3,))
    assert changed_queries(before, other) == ["q2"]
    assert changed_queries(before, {"q1": before["q1"], "q2": before["q2"]}) == ["q3"]
    assert before["q1"] == {"ndcg@3": 1.0, "recall@3": 1.0, "hits": {"3": 1}}
