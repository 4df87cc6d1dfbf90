"""The dashboard of the chart is one that Grafana can draw; its queries are read by promtool in test_alerts.py."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from unit.operator.builders import NOON

from embedding_operator.metrics import Metrics

DASHBOARD = Path(__file__).parents[3] / "charts" / "embedding-operator" / "files" / "dashboard.json"
BOARD: dict[str, Any] = json.loads(DASHBOARD.read_text())
PANELS: dict[str, dict[str, Any]] = {panel["title"]: panel for panel in BOARD["panels"]}
VARIABLES = {item["name"]: item for item in BOARD["templating"]["list"]}
COLUMNS = 24
OF_GRAFANA = {"__all", "__interval", "__range", "__rate_interval"}


def test_grafana_can_read_it() -> None:
    assert BOARD["schemaVersion"] >= 36, "data sources are objects since then"
    assert len(BOARD["uid"]) <= 40
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(PANELS) == len(BOARD["panels"])
    assert {panel["type"] for panel in BOARD["panels"]} <= {"barchart", "gauge", "stat", "table", "timeseries"}


def test_no_panel_lies_on_another() -> None:
    def cells(panel: dict[str, Any]) -> set[tuple[int, int]]:
        at = panel["gridPos"]
        assert at["x"] >= 0
        assert at["x"] + at["w"] <= COLUMNS
        return {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}

    for one, other in combinations(BOARD["panels"], 2):
        assert not cells(one) & cells(other), f"{one['title']} and {other['title']}"


@pytest.mark.parametrize("title", PANELS)
def test_a_panel_asks_by_variables_and_labels_that_there_are(title: str) -> None:
    panel = PANELS[title]
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert panel["targets"]
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    for target in panel["targets"]:
        used = set(re.findall(r"\$\{?(\w+)", target["expr"]))
        assert used <= VARIABLES.keys() | OF_GRAFANA
        grouped = {label for by in re.findall(r"\bby \(([^)]*)\)", target["expr"]) for label in by.split(", ")}
        assert set(re.findall(r"\{\{ *(\w+) *\}\}", target.get("legendFormat", ""))) <= grouped


def test_the_variables_ask_for_labels_that_the_operator_tells() -> None:
    registry = CollectorRegistry()
    Metrics(registry).export_resources(1, lambda: NOON, registry)
    told = {family.name for family in registry.collect()}
    for item in VARIABLES.values():
        if item["type"] == "query":
            metric, _, label = re.fullmatch(r"label_values\((\w+)(\{.*\})?, (\w+)\)", item["definition"]).groups()  # type: ignore[union-attr]
            assert metric in told
            assert label in ("namespace", "name")
            assert item["query"]["query"] == item["definition"]
