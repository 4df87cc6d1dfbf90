"""Metrics stay few, whatever stages say."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kubernetes import client
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
from unit.operator.builders import NOON, a_stage

from embedding_operator.cluster.client import KubeCluster
from embedding_operator.cluster.errors import Unavailable
from embedding_operator.metrics import METRICS, Metrics
from embedding_operator.resource_metrics import ResourceMetrics
from embedding_stages.contract import Stage

ROOT = Path(__file__).parents[3]


def test_reasons_that_never_repeat_are_counted_as_others() -> None:
    for number in range(300):
        ended = a_stage(Stage.SDG, state="Failed", reason=f"Reason{number}", job_name=f"job-{number}")
        METRICS.stage_ended(a_stage(Stage.SDG, state="Running"), ended)
    (metric,) = METRICS.stage_ends.collect()
    reasons = {sample.labels["reason"] for sample in metric.samples}
    assert len(reasons) <= 101
    assert "Other" in reasons


class Answering(client.ApiClient):
    """The API server's answers, in their order; an error is none."""

    def __init__(self, *answers: int | Exception) -> None:
        super().__init__(client.Configuration(host="http://api.test"))
        self.answers = list(answers)

    def call_api(self, *_: Any, **__: Any) -> Any:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        body = b'{"kind": "Status", "reason": "NotFound"}' if answer == 404 else b"{}"
        return SimpleNamespace(status=answer, headers={}, read=lambda: body)


def test_every_answer_of_the_api_server_is_counted_and_so_is_none() -> None:
    def counted(code: str) -> float:
        name = "embedding_operator_api_requests_total"
        return REGISTRY.get_sample_value(name, {"method": "GET", "code": code}) or 0.0

    before = {code: counted(code) for code in ("200", "404", "503", "none")}
    with Answering(200, 404, 503, OSError("no route")) as api:
        cluster = KubeCluster(api)
        for _ in range(2):
            cluster.get("Job", "team-a", "j")
        for _ in range(2):
            with pytest.raises(Unavailable):
                cluster.get("Job", "team-a", "j")
    assert {code: counted(code) - known for code, known in before.items()} == dict.fromkeys(before, 1)


def test_the_page_lists_every_metric_with_its_labels() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.export_resources(1, lambda: NOON, registry)
    labels = {f"{name}_total" if isinstance(one, Counter) else name: one._labelnames for name, one in own(metrics)}
    labels |= {family.name: family._labelnames for family in ResourceMetrics(most=1, clock=lambda: NOON).describe()}
    assert labels.keys() == {
        f"{family.name}_total" if family.type == "counter" else family.name for family in registry.collect()
    }
    page = (ROOT / "docs" / "metrics.md").read_text()
    listed = re.findall(r"^\| `(embedding_operator_\w+)` \| (.*?) \|", page, re.MULTILINE)
    assert {name: tuple(re.findall(r"`(\w+)`", text)) for name, text in listed} == {
        name: tuple(names) for name, names in labels.items()
    }


def own(metrics: Metrics) -> list[tuple[str, Any]]:
    """The metrics of the whole operator, by name."""
    return [(one._name, one) for one in vars(metrics).values() if isinstance(one, Counter | Gauge | Histogram)]
