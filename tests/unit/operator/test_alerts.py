"""The alert rules of the chart, checked and played by promtool; their runbooks; the dashboard."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry
from unit.operator.builders import NOON, a_pod, a_spec

from embedding_operator.decide.contract import CANARIES_DIFFER
from embedding_operator.decide.waiting import explain_wait
from embedding_operator.metrics import Metrics
from embedding_operator.resource.conditions import ORDER
from embedding_stages.contract import Stage

ROOT = Path(__file__).parents[3]
CHART = ROOT / "charts" / "embedding-operator"
RULES = CHART / "files" / "alerts.yaml"
PLAYED = Path(__file__).parent / "data" / "alerts.yaml"
ALERTS: dict[str, dict[str, Any]] = {
    rule["alert"]: rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
}


@pytest.fixture(scope="module")
def promtool() -> str:
    done = subprocess.run([ROOT / "hack" / "promtool.sh"], stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0, "hack/promtool.sh says why"
    return done.stdout.strip()


def test_prometheus_takes_the_rules(promtool: str) -> None:
    done = subprocess.run([promtool, "check", "rules", RULES], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    assert f"{len(ALERTS)} rules found" in done.stdout


def test_the_rules_fire_when_they_should_and_not_otherwise(promtool: str) -> None:
    done = subprocess.run([promtool, "test", "rules", PLAYED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"


def test_each_alert_is_played_both_ways() -> None:
    asked = [test for played in yaml.safe_load(PLAYED.read_text())["tests"] for test in played["alert_rule_test"]]
    fires = {test["alertname"] for test in asked if test.get("exp_alerts")}
    assert fires == {test["alertname"] for test in asked if not test.get("exp_alerts")} == ALERTS.keys()


def test_each_alert_has_its_runbook() -> None:
    parts = re.split(r"^## ", (ROOT / "docs" / "alerts.md").read_text(), flags=re.MULTILINE)[1:]
    runbooks = dict(part.split("\n", 1) for part in parts)
    assert list(runbooks) == list(ALERTS)
    for text in runbooks.values():
        assert re.findall(r"^\*\*(.+?)\.\*\*", text, re.MULTILINE) == ["Meaning", "What to look at", "Cure"]


def test_the_chart_can_leave_out_each_of_them() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    rules = schema["properties"]["metrics"]["properties"]["rules"]["properties"]
    assert rules["disabled"]["items"]["enum"] == list(ALERTS)


def test_the_dashboard_asks_for_what_the_operator_tells(promtool: str, told: set[str], tmp_path: Path) -> None:
    panels = json.loads((CHART / "files" / "dashboard.json").read_text())["panels"]
    expressions = [target["expr"] for panel in panels for target in panel["targets"]]
    assert set(re.findall(r"embedding_operator_\w+", " ".join(expressions))) <= told
    # As rules, promtool reads them.
    rules = [{"record": f"panel:{number}", "expr": text} for number, text in enumerate(expressions)]
    file = tmp_path / "panels.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run([promtool, "check", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"


def test_canaries_that_differ_have_the_reason_that_is_asked_for() -> None:
    assert f'reason="{CANARIES_DIFFER}"' in ALERTS["EmbeddingFineTuneCanariesDiffer"]["expr"]


@pytest.fixture(scope="module")
def told() -> set[str]:
    """The operator's metrics."""
    registry = CollectorRegistry()
    Metrics(registry).export_resources(1, lambda: NOON, registry)
    return {f"{family.name}_total" if family.type == "counter" else family.name for family in registry.collect()}


@pytest.mark.parametrize("name", ALERTS)
def test_a_rule_asks_for_what_the_operator_tells(name: str, told: set[str]) -> None:
    expression = ALERTS[name]["expr"]
    assert set(re.findall(r"embedding_operator_\w+", expression)) <= told
    types = re.findall(r'type="(\w+)"', expression)
    assert set(types) <= set(ORDER)


def test_a_gpu_that_is_not_free_has_the_reason_that_is_asked_for() -> None:
    pod = a_pod(unschedulable="0/1 nodes are available: 1 Insufficient nvidia.com/gpu.")
    reason = explain_wait(pod, (), a_spec(), Stage.FINETUNE).reason
    assert f'reason="{reason}"' in ALERTS["EmbeddingFineTuneWaitsForGPU"]["expr"]
