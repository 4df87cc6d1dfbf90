"""Metrics stay few, whatever stages say."""

from __future__ import annotations

from unit.operator.builders import a_stage

from embedding_operator.metrics import METRICS
from embedding_stages.contract import Stage


def test_reasons_that_never_repeat_are_counted_as_others() -> None:
    for number in range(300):
        ended = a_stage(Stage.SDG, state="Failed", reason=f"Reason{number}", job_name=f"job-{number}")
        METRICS.stage_ended(a_stage(Stage.SDG, state="Running"), ended)
    (metric,) = METRICS.stage_ends.collect()
    reasons = {sample.labels["reason"] for sample in metric.samples}
    assert len(reasons) <= 101
    assert "Other" in reasons
