"""What is told of single resources: of how many, in which numbers, and until when."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from unit.operator.builders import NOON, a_condition, a_stage

from embedding_operator.metrics import Metrics
from embedding_operator.resource.status import Served, StageStatus, Status
from embedding_operator.resource_metrics import Key, ResourceMetrics, families, row_of
from embedding_stages.contract import Stage

KEY = ("team-a", "handbook")
WHO = {"namespace": "team-a", "name": "handbook"}
MORNING, ELEVEN = "2026-01-01T09:00:00Z", "2026-01-01T11:00:00Z"
Sample = tuple[str, dict[str, str], float]


def samples(rows: dict[Key, Status], now: datetime = NOON, most: int = 10) -> list[Sample]:
    told = families({key: row_of(status) for key, status in rows.items()}, now, most)
    return [
        (sample.name.removeprefix("embedding_operator_"), sample.labels, sample.value)
        for family in told
        for sample in family.samples
    ]


def value(of: Status, series: str, **labels: str) -> float | None:
    found = [sample[2] for sample in samples({KEY: of}) if sample[:2] == (series, {**WHO, **labels})]
    assert len(found) <= 1, "a series is told once"
    return found[0] if found else None


def done(**changes: Any) -> tuple[StageStatus, ...]:
    stages = [a_stage(stage, started_at=MORNING, finished_at=ELEVEN, **changes) for stage in Stage]
    return tuple(replace(item, fingerprint="serves") if item.name is Stage.DEPLOY else item for item in stages)


SERVED = Served(active_fingerprint="serves", active_revision=1)
SERVING = Status(
    phase="Ready",
    conditions=(a_condition("Ready", reason="Verified"), a_condition("Stranger")),
    stages=done(),
    served=SERVED,
    metrics={
        "base": {"ndcg@10": "0.59247"},
        "fineTuned": {"ndcg@10": "0.61507"},
        "served": {"ndcg@10": "0.61506"},
        "relativeUplift": "0.03815",
    },
)


def with_canaries(**canaries: Any) -> Status:
    return replace(SERVING, served=replace(SERVED, canaries=canaries))


def with_metrics(**metrics: Any) -> Status:
    return replace(SERVING, metrics=metrics)


TOLD: dict[str, tuple[Status, str, dict[str, str], float | None]] = {
    "the phase": (SERVING, "resource_info", {"phase": "Ready"}, 1),
    "a condition": (
        SERVING,
        "resource_condition",
        {"type": "Ready", "status": "True", "reason": "Verified"},
        1,
    ),
    "a condition that the operator does not know": (
        SERVING,
        "resource_condition",
        {"type": "Stranger", "status": "True", "reason": "Because"},
        None,
    ),
    "a server answers": (replace(SERVING, served=replace(SERVED, url="http://x")), "resource_available", {}, 1),
    "no server answers": (SERVING, "resource_available", {}, 0),
    "clients were sent nowhere yet": (Status(), "resource_available", {}, None),
    "the uplift": (SERVING, "resource_uplift_ratio", {}, 0.03815),
    "a loss": (with_metrics(relativeUplift="-0.01000"), "resource_uplift_ratio", {}, -0.01),
    "an uplift that is no number": (with_metrics(relativeUplift="nan"), "resource_uplift_ratio", {}, None),
    "no uplift yet": (Status(), "resource_uplift_ratio", {}, None),
    "the base model": (SERVING, "resource_ndcg_at_10", {"model": "base"}, 0.59247),
    "the tuned model": (SERVING, "resource_ndcg_at_10", {"model": "fineTuned"}, 0.61507),
    "the served model": (SERVING, "resource_ndcg_at_10", {"model": "served"}, 0.61506),
    "figures that somebody edited": (with_metrics(base="good"), "resource_ndcg_at_10", {"model": "base"}, None),
    "the age of a verification": (SERVING, "resource_verification_age_seconds", {}, 3600),
    "a comparison of canaries makes it young": (
        with_canaries(takenAt=MORNING, checkedAt="2026-01-01T11:59:00Z"),
        "resource_verification_age_seconds",
        {},
        60,
    ),
    "a candidate's verification is not that of what serves": (
        replace(SERVING, served=replace(SERVED, candidate_fingerprint="next", canaries={"takenAt": MORNING})),
        "resource_verification_age_seconds",
        {},
        3 * 3600,
    ),
    "nothing serves, so nothing is verified": (
        replace(SERVING, served=Served()),
        "resource_verification_age_seconds",
        {},
        None,
    ),
    "a clock that is behind": (
        with_canaries(takenAt="2026-01-01T12:00:05Z"),
        "resource_verification_age_seconds",
        {},
        0,
    ),
    "a stage that runs": (
        Status(stages=(a_stage(Stage.FINETUNE, state="Running", started_at=MORNING),)),
        "resource_stage_running_seconds",
        {"stage": "finetune"},
        3 * 3600,
    ),
    "a stage that runs since nobody knows when": (
        Status(stages=(a_stage(Stage.FINETUNE, state="Running"),)),
        "resource_stage_running_seconds",
        {"stage": "finetune"},
        None,
    ),
    "a stage that waits": (
        Status(stages=(a_stage(Stage.FINETUNE, state="Waiting", started_at=MORNING),)),
        "resource_stage_running_seconds",
        {"stage": "finetune"},
        None,
    ),
    "what a stage of the serving revision took": (SERVING, "resource_stage_seconds", {"stage": "finetune"}, 2 * 3600),
    "an older revision serves": (
        replace(SERVING, served=replace(SERVED, active_fingerprint="before")),
        "resource_stage_seconds",
        {"stage": "finetune"},
        None,
    ),
    "a later revision has begun": (
        SERVING.with_stage(StageStatus(name=Stage.FINETUNE)),
        "resource_stage_seconds",
        {"stage": "sdg"},
        None,
    ),
    "canaries": (with_canaries(cosine="0.999871"), "canary_cosine", {}, 0.999871),
    "canaries that nobody compares": (SERVING, "canary_cosine", {}, None),
}


@pytest.mark.parametrize("row", TOLD)
def test_of_a_resource(row: str) -> None:
    status, name, labels, expected = TOLD[row]
    assert value(status, name, **labels) == expected


def left_out(told: list[Sample]) -> float:
    (found,) = (sample[2] for sample in told if sample[0] == "resources_left_out")
    return found


@pytest.mark.parametrize(("most", "named", "others"), [(0, 0, 5), (3, 3, 2), (5, 5, 0), (9, 5, 0)])
def test_of_as_many_as_may_be_and_how_many_are_left_out(most: int, named: int, others: int) -> None:
    rows = {("team-a", f"r{number}"): SERVING for number in reversed(range(5))}
    told = samples(rows, most=most)
    assert {sample[1]["name"] for sample in told if "name" in sample[1]} == {f"r{number}" for number in range(named)}
    assert left_out(told) == others


def test_a_resource_has_a_bounded_number_of_series() -> None:
    everything = replace(
        with_canaries(cosine="1.0", takenAt=MORNING),
        conditions=tuple(
            a_condition(kind, reason="x" * 500)
            for kind in ("Ready", "Validated", "DataReady", "Trained", "Evaluated", "QualityGatePassed", "Exported")
        ),
    )
    told = samples({KEY: everything})
    assert len(told) <= 30
    assert all(len(text) <= 64 for sample in told for text in sample[1].values())


def test_of_a_resource_that_is_gone_nothing_is_told() -> None:
    clock = [NOON]
    metrics, registry = Metrics(registry=None), CollectorRegistry()
    metrics.export_resources(10, lambda: clock[0], registry)
    metrics.resource(KEY, SERVING)
    age = "embedding_operator_resource_verification_age_seconds"
    assert registry.get_sample_value(age, WHO) == 3600
    clock[0] += timedelta(seconds=30)
    assert registry.get_sample_value(age, WHO) == 3630
    metrics.forget(KEY)
    assert registry.get_sample_value(age, WHO) is None
    assert [item for family in registry.collect() for item in family.samples if "name" in item.labels] == []


def test_the_switch_is_off_until_somebody_turns_it_on() -> None:
    metrics = Metrics(registry=None)
    metrics.resource(KEY, SERVING)
    metrics.forget(KEY)


def test_two_do_not_tell_the_same() -> None:
    registry = CollectorRegistry()
    registry.register(ResourceMetrics(most=1, clock=lambda: datetime.now(UTC)))
    with pytest.raises(ValueError, match="Duplicated"):
        registry.register(ResourceMetrics(most=1, clock=lambda: datetime.now(UTC)))
