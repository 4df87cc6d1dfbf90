"""Argo CD's health check, run as Argo CD runs it: Lua 5.1 with few libraries."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from lupa import lua51
from simulation.endings import BAD_INPUT
from simulation.scene import Scene, a_scene, a_spec, is_ready, is_stalled
from unit.operator.builders import a_condition

from embedding_stages.contract import Stage

ROOT = Path(__file__).parents[3]
(CHECK,) = (ROOT / "charts" / "argocd").rglob("health.lua")
ROWS = yaml.safe_load((CHECK.parent / "health_test.yaml").read_text())["tests"]
HIDDEN = ("string", "os", "io", "math", "debug", "coroutine", "python")


def health(resource: dict[str, Any]) -> tuple[str, str]:
    """(status, message) of a resource."""
    runtime = lua51.LuaRuntime(register_eval=False)
    for library in HIDDEN:
        runtime.globals()[library] = None
    runtime.globals()["obj"] = runtime.table_from(resource, recursive=True)
    found = runtime.execute(CHECK.read_text())
    return found["status"], found["message"]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: Path(row["inputPath"]).stem)
def test_argo_cds_own_table(row: dict[str, Any]) -> None:
    expected = row["healthStatus"]
    assert health(yaml.safe_load((CHECK.parent / row["inputPath"]).read_text())) == (
        expected["status"],
        expected["message"],
    )


CASES: list[tuple[str, str, str, str, int, bool]] = [
    # phase, Ready, Stalled, health, observed generation of 2, suspended
    ("Pending", "Unknown", "", "Progressing", 2, False),
    ("Running", "Unknown", "", "Progressing", 2, False),
    ("Verifying", "Unknown", "", "Progressing", 2, False),
    ("Blocked", "False", "", "Degraded", 2, False),
    ("Blocked", "False", "True", "Degraded", 2, False),
    ("Degraded", "False", "", "Degraded", 2, False),
    ("Degraded", "Unknown", "", "Degraded", 2, False),
    ("Ready", "True", "", "Healthy", 2, False),
    ("Ready", "True", "", "Progressing", 1, False),
    ("Blocked", "False", "True", "Progressing", 1, False),
    ("Suspended", "Unknown", "", "Suspended", 2, True),
    ("Suspended", "Unknown", "", "Progressing", 1, True),
    ("Blocked", "False", "True", "Degraded", 2, True),
    ("Degraded", "False", "", "Degraded", 2, True),
    ("Failed", "False", "True", "Degraded", 2, False),
    ("Running", "False", "", "Degraded", 2, False),  # as 0.1 wrote it
]


@pytest.mark.parametrize(("phase", "ready", "stalled", "expected", "observed", "suspended"), CASES)
def test_a_status_is_as_healthy_as_its_phase(
    phase: str, ready: str, stalled: str, expected: str, observed: int, suspended: bool
) -> None:
    conditions = [a_condition("Ready", ready)] + ([a_condition("Stalled", stalled)] if stalled else [])
    status = {"observedGeneration": observed, "phase": phase, "conditions": [item.to_json() for item in conditions]}
    found = health({"metadata": {"generation": 2}, "spec": {"suspend": suspended}, "status": status})
    assert found[0] == expected
    assert found[1]


def bad_input() -> Scene:
    scene = a_scene()
    scene.will(Stage.PREP, BAD_INPUT)
    return scene.run(is_stalled)


def missing_secret() -> Scene:
    secret = {"name": "nobody", "key": "token"}
    provider = {"openAI": {"baseURL": "https://llm.test/v1", "model": "judge", "apiKeySecretRef": secret}}
    return a_scene(stages={"sdg": {"provider": provider}}).settle(15)


def invalid() -> Scene:
    scene = a_scene().run(is_ready)
    scene.edit({**a_spec(), "baseModel": {"name": "x", "source": {}}})
    return scene.settle(3)


@pytest.mark.parametrize(
    ("scene", "last"),
    [
        (lambda: a_scene().run(is_ready), "Healthy"),
        (bad_input, "Degraded"),
        (missing_secret, "Degraded"),
        (invalid, "Degraded"),
        (lambda: a_scene(suspend=True).settle(3), "Suspended"),
    ],
    ids=["ready", "bad input", "missing secret", "invalid", "suspended"],
)
def test_every_status_that_a_run_writes_has_its_health(scene: Callable[[], Scene], last: str) -> None:
    run = scene()
    of_phase = {"Ready": "Healthy", "Blocked": "Degraded", "Degraded": "Degraded", "Suspended": "Suspended"}
    for status in run.history:
        meta = {"generation": status["observedGeneration"]}
        spec = {"suspend": status["phase"] == "Suspended"}
        told = health({"metadata": meta, "spec": spec, "status": status})[0]
        assert told == of_phase.get(status["phase"], "Progressing")
    assert told == last
