"""Whether the served model measures the same, with few queries as with many, whatever is measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from unit.operator.builders import IMAGES, a_manifest, a_stage

from embedding_operator.decide.verdict import Verdict, judge, relative_uplift, verdict_of
from embedding_operator.resource.api import Tolerance
from embedding_operator.resource.spec import parse_spec
from embedding_operator.resource.status import Status
from embedding_stages.contract import Artefact, ArtefactRef, Stage

LIMITS = Tolerance(at_one=0.03, at_five_and_above=0.01)
DIGEST = "sha256:model"


def verdict(
    tuned: Mapping[str, float],
    served: Mapping[str, float],
    queries: int = 1000,
    evaluated: Mapping[str, Any] | None = None,
    tolerance: Tolerance = LIMITS,
    **changes: Any,
) -> Verdict:
    """`evaluated` are the details of the eval stage, `changes` those of the verify stage's status."""
    counts = {"queries": queries, "changedQueries": 1, "invalidVectors": 0}
    measured = {"metrics": {"fineTuned": tuned}, "counts": {"queries": queries}, "details": evaluated or {}}
    verified = a_stage(Stage.VERIFY, metrics={"served": served}, counts=counts, details={"artefactDigest": DIGEST})
    return judge(a_stage(Stage.EVAL, **measured), replace(verified, **changes), tolerance, DIGEST)


@pytest.mark.parametrize(
    ("name", "difference", "within"),
    [
        ("ndcg@1", 0.03, True),
        ("ndcg@1", 0.0301, False),
        ("recall@1", 0.03, True),
        ("ndcg@3", 0.03, True),
        ("ndcg@5", 0.01, True),
        ("ndcg@5", 0.0101, False),
        ("recall@100", 0.01, True),
        ("recall@100", 0.0101, False),
        ("map@10", 0.5, True),
        ("precision@10", 0.5, True),
    ],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_ndcg_and_recall_are_held_to_the_recipes_limits(name: str, difference: float, within: bool, sign: int) -> None:
    tuned = {"ndcg@10": 0.5, name: 0.5}
    assert verdict(tuned, tuned | {name: 0.5 + sign * difference}).within is within


@pytest.mark.parametrize("queries", [36, 50, 99, 100, 101, 199, 201])
@pytest.mark.parametrize("hits", [0, 17, 34])
def test_one_query_may_change_sides_and_two_only_when_that_moves_less_than_the_limit(queries: int, hits: int) -> None:
    """BEIR rounds to five places: at 36 queries 1/36 = 0.02778 either way, sometimes 0.02777."""
    before, one, two = (round((hits + changed) / queries, 5) for changed in range(3))
    assert verdict({"recall@10": before}, {"recall@10": one}, queries).within
    assert verdict({"recall@10": one}, {"recall@10": before}, queries).within
    assert verdict({"recall@10": before}, {"recall@10": two}, queries).within is (queries > 200)


def test_the_effective_tolerance_is_told() -> None:
    report = verdict({"ndcg@1": 0.5, "ndcg@10": 0.5}, {"ndcg@1": 0.5, "ndcg@10": 0.5}, 36).report
    assert report["effectiveTolerance"] == {"@1": "0.03001", "@10": "0.02779"}
    assert report["withinTolerance"] is True
    assert report["queries"] == 36


@pytest.mark.parametrize(
    ("served", "changes", "reason"),
    [
        ({"ndcg@10": math.nan}, {}, "MetricsNotFinite"),
        ({"ndcg@10": math.inf}, {}, "MetricsNotFinite"),
        ({}, {}, "MetricsMissing"),
        ({"ndcg@5": 0.5}, {}, "MetricsMissing"),
        ({"ndcg@10": 0.5}, {"details": {"artefactDigest": "sha256:other"}}, "ArtefactMismatch"),
        ({"ndcg@10": 0.5}, {"details": {}}, "ArtefactMismatch"),
        ({"ndcg@10": 0.5}, {"counts": {"queries": 999}}, "QueriesDiffer"),
        ({"ndcg@10": 0.5}, {"counts": {}}, "QueriesDiffer"),
        ({"ndcg@10": 0.6}, {}, "OutsideTolerance"),
    ],
    ids=str,
)
def test_what_cannot_be_compared_is_never_within(served: Any, changes: dict[str, Any], reason: str) -> None:
    found = verdict({"ndcg@10": 0.5}, served, **changes)
    assert (found.within, found.reason) == (False, reason)
    assert found.report["withinTolerance"] is False


def test_an_evaluation_without_metrics_or_queries_verifies_nothing() -> None:
    assert verdict({}, {}).reason == "MetricsMissing"
    assert verdict({"map@10": 0.5}, {"map@10": 0.5}).reason == "MetricsMissing"
    assert verdict({"ndcg@10": math.nan}, {"ndcg@10": 0.5}).reason == "MetricsNotFinite"
    assert verdict({"ndcg@10": 0.5}, {"ndcg@10": 0.5}, 0).reason == "VectorsDiffer"


def test_the_worst_metric_is_the_one_that_exceeds_its_own_limit_most() -> None:
    tuned = {"ndcg@1": 0.5, "ndcg@10": 0.5}
    found = verdict(tuned, {"ndcg@1": 0.53, "ndcg@10": 0.515})
    assert found.reason == "OutsideTolerance"
    assert found.message.startswith("ndcg@10: served 0.51500, evaluated 0.50000")
    assert found.report["largestDifference"] == {"metric": "ndcg@10", "difference": "0.01500"}


@pytest.mark.parametrize("uplift", [0.2000049, -0.2, 0.0, None])
def test_the_uplift_is_the_evaluations_own_whose_interval_stands_beside_it(uplift: float | None) -> None:
    """Metrics in the status are rounded to five decimals; the stage divides before it rounds."""
    metrics = {"base": {"ndcg@10": 0.00003}, "fineTuned": {"ndcg@10": 0.00004}}
    assert relative_uplift(a_stage(metrics=metrics, details={"relativeUplift": uplift})) == uplift
    assert relative_uplift(a_stage(metrics=metrics)) is None


@pytest.mark.parametrize(
    ("precision", "at_one", "at_five"),
    [("float32", 0.01, 0.005), ("bfloat16", 0.03, 0.01), (None, 0.03, 0.01)],
)
def test_default_limits_are_those_of_the_precision(precision: str | None, at_one: float, at_five: float) -> None:
    """An evaluation that says nothing of it is of an older release and may have computed in bfloat16."""
    details = {} if precision is None else {"precision": precision}

    def within(name: str, difference: float, **limits: float) -> bool:
        tuned, served = ({"ndcg@10": 0.5, name: value} for value in (0.5, 0.5 + difference))
        return verdict(tuned, served, evaluated=details, tolerance=Tolerance(**limits)).within

    assert (within("recall@1", at_one), within("recall@1", at_one + 0.0001)) == (True, False)
    assert (within("recall@5", at_five), within("recall@5", at_five + 0.0001)) == (True, False)
    assert within("recall@5", 0.02, at_five_and_above=0.02)
    assert not within("recall@5", 0.004, at_five_and_above=0.003)


@pytest.mark.parametrize("served", [0.5, 0.6])
def test_the_precision_of_the_evaluation_is_told(served: float) -> None:
    found = verdict({"ndcg@10": 0.5}, {"ndcg@10": served}, evaluated={"precision": "float32"})
    assert "evaluated in float32" in found.message
    assert found.report["evaluatedIn"] == "float32"
    assert "evaluatedIn" not in verdict({"ndcg@10": 0.5}, {"ndcg@10": served}).report


@pytest.mark.parametrize(
    ("cosine", "said"),
    [
        (1.0, "True WithinTolerance"),
        (0.9991, "True WithinTolerance"),
        (0.9, "False VectorsDiffer"),
        (None, "False VectorsDiffer"),
    ],
)
def test_without_a_question_the_vectors_of_canaries_decide(cosine: float | None, said: str) -> None:
    found = verdict({}, {}, 0, details={"artefactDigest": DIGEST, "canaryCosine": cosine})
    assert f"{found.within} {found.reason}" == said


@pytest.mark.parametrize(
    ("cosine", "said"),
    [
        (1.0, "True WithinTolerance"),
        (0.999, "True WithinTolerance"),
        (None, "True WithinTolerance"),  # an earlier release, or a server that refuses a canary
        (0.983, "False VectorsDiffer"),  # of the base model, with as few questions
        (0.0, "False VectorsDiffer"),
    ],
)
@pytest.mark.parametrize("queries", [20, 1000])
def test_metrics_that_are_equal_show_nothing_where_the_vectors_of_canaries_differ(
    cosine: float | None, said: str, queries: int
) -> None:
    details = {"artefactDigest": DIGEST, "canaryCosine": cosine}
    found = verdict({"ndcg@10": 0.5}, {"ndcg@10": 0.5}, queries, details=details)
    assert f"{found.within} {found.reason}" == said
    assert found.report["withinTolerance"] is found.within
    if not found.within:
        assert f"{cosine:.6f}, below 0.999" in found.message
        assert "spec.tolerance.minCosine" in found.cure


def test_metrics_are_told_before_vectors() -> None:
    details = {"artefactDigest": DIGEST, "canaryCosine": 0.5}
    assert verdict({"ndcg@10": 0.5}, {"ndcg@10": 0.6}, details=details).reason == "OutsideTolerance"


INT8, FP8 = {"quantization": "int8"}, {"quantization": "fp8"}


@pytest.mark.parametrize(
    ("export", "built", "given", "least"),
    [
        ({}, {}, None, 0.999),
        ({"precision": "fp16"}, {"precision": "fp16"}, None, 0.999),
        ({"precision": "fp16", "minCosine": "0.95"}, {"precision": "fp16"}, None, 0.95),
        ({"precision": "fp32", "minCosine": "0.9999"}, {"precision": "fp32"}, None, 0.999),
        (INT8, INT8, None, 0.9),
        (FP8, FP8, None, 0.97),
        (INT8 | {"minCosine": "0.95"}, INT8, None, 0.95),
        (INT8 | {"minCosine": "0.95", "onParityFail": "FallBack"}, {}, None, 0.999),  # it fell back
        (FP8 | {"minCosine": "0.95"}, INT8, None, 0.9),  # of a revision that is pinned
        (INT8, {"quantization": "of an image of the user's own"}, None, 0.999),
        ({}, {}, "0.95", 0.95),
        (INT8, INT8, "0.99", 0.99),
    ],
    ids=str,
)
@pytest.mark.parametrize("queries", [0, 1000])
def test_how_like_vectors_have_to_be_follows_from_what_was_exported(
    export: dict[str, Any], built: dict[str, Any], given: str | None, least: float, queries: int
) -> None:
    tolerance = {} if given is None else {"minCosine": given}
    spec = parse_spec(a_manifest(stages={"export": export}, tolerance=tolerance), IMAGES)
    model = {Artefact.SERVING_MODEL: ArtefactRef(path="export", digest=DIGEST)}
    metrics = {"ndcg@10": 0.5} if queries else {}

    def within(cosine: float) -> bool:
        stages = (
            a_stage(Stage.EVAL, metrics={"fineTuned": metrics}, counts={"queries": queries}),
            a_stage(Stage.EXPORT, artefacts=model, details={"contract": {"precision": "fp32"} | built}),
            a_stage(
                Stage.VERIFY,
                metrics={"served": metrics},
                counts={"queries": queries},
                details={"artefactDigest": DIGEST, "canaryCosine": cosine},
            ),
        )
        return verdict_of(Status(stages=stages), spec).within

    assert (within(least), within(least - 0.001)) == (True, False)
