"""What the chart offers to Prometheus and Grafana."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from apiserver.api import Api
from apiserver.chart import CHART, render, the

from embedding_operator.resource.labels import OWNER_LABEL, SERVING_LABEL

SELECTED = ("Service", "ServiceMonitor", "PodMonitor", "PrometheusRule")


@pytest.mark.parametrize(
    ("values", "kinds"),
    [
        ((), set()),
        (("metrics.service=true",), {"Service"}),
        (("metrics.serviceMonitor=true",), {"Service", "ServiceMonitor"}),
        (("metrics.serverPodMonitor=true",), {"PodMonitor"}),
        (("metrics.rules.enabled=true",), {"PrometheusRule"}),
    ],
    ids=["none at first", "a Service", "a ServiceMonitor and what it scrapes", "the servers", "alerts"],
)
def test_metrics_are_offered_when_asked_for(api: Api, values: tuple[str, ...], kinds: set[str]) -> None:
    objects = render(api, *(part for value in values for part in ("--set", value)))
    assert {item["kind"] for item in objects if item["kind"] in SELECTED} == kinds
    pod_labels = the("Deployment", objects)["spec"]["template"]["metadata"]["labels"]
    for item in objects:
        if item["kind"] == "Service":
            assert item["spec"]["selector"].items() <= pod_labels.items()


def test_a_resources_namespace_is_not_taken_for_the_operators(api: Api) -> None:
    (endpoint,) = the("ServiceMonitor", render(api, "--set", "metrics.serviceMonitor=true"))["spec"]["endpoints"]
    assert endpoint["honorLabels"], "else Prometheus renames the label"


@pytest.mark.parametrize(
    ("values", "selected"),
    [((), {"any": True}), (("--set", "watchNamespaces={a,b}"), {"matchNames": ["a", "b"]})],
    ids=["everywhere", "in the namespaces that are watched"],
)
def test_servers_are_scraped_where_they_are(api: Api, values: tuple[str, ...], selected: dict[str, Any]) -> None:
    spec = the("PodMonitor", render(api, "--set", "metrics.serverPodMonitor=true", *values))["spec"]
    assert spec["namespaceSelector"] == selected
    assert spec["selector"]["matchExpressions"] == [{"key": SERVING_LABEL, "operator": "Exists"}]
    assert spec["podTargetLabels"] == [OWNER_LABEL]
    ours, nvidias = spec["podMetricsEndpoints"]
    assert (ours["port"], ours["path"], nvidias["port"], nvidias["path"]) == (
        "http",
        "/v1/metrics",
        "api",
        "/v1/metrics",
    )
    (moved,) = ours["relabelings"]  # vLLM tells of itself elsewhere
    assert re.fullmatch(moved["regex"], "registry.example/vllm/vllm-openai:v0.11.0")
    assert not re.fullmatch(moved["regex"], "registry.example/embedding-operator/serve-torch:0.1.0")
    assert (moved["targetLabel"], moved["replacement"]) == ("__metrics_path__", "/metrics")


def test_the_alerts_are_those_of_the_file_but_for_some(api: Api) -> None:
    (known,) = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())["groups"]
    on = ("--set", "metrics.rules.enabled=true")
    assert the("PrometheusRule", render(api, *on))["spec"]["groups"] == [known]
    first, *others = known["rules"]
    links = ("--set", f"metrics.rules.disabled={{{first['alert']}}}", "--set", "metrics.rules.runbookURL=https://r/a")
    (group,) = the("PrometheusRule", render(api, *on, *links))["spec"]["groups"]
    assert [rule["alert"] for rule in group["rules"]] == [rule["alert"] for rule in others]
    for rule in group["rules"]:
        assert rule["annotations"]["runbook_url"] == f"https://r/a#{rule['alert'].lower()}"


def test_an_operator_is_absent_whatever_another_release_tells(api: Api) -> None:
    on = ("--set", "metrics.rules.enabled=true", "--set", "metrics.serviceMonitor=true")
    (group,) = the("PrometheusRule", render(api, *on))["spec"]["groups"]
    (absent,) = [rule["expr"] for rule in group["rules"] if rule["alert"] == "EmbeddingOperatorAbsent"]
    namespace = the("ServiceMonitor", render(api, *on))["metadata"]["namespace"]
    assert absent == f'absent(embedding_operator_last_resync_timestamp_seconds{{namespace="{namespace}"}})'


def test_the_dashboard_arrives_as_it_is(api: Api) -> None:
    found = the("ConfigMap", render(api, "--set", "metrics.dashboard.enabled=true"))
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert found["data"] == {"embedding-operator.json": (CHART / "files" / "dashboard.json").read_text()}
