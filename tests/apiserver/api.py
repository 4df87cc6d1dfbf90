"""kubectl against the tests' own API server."""

from __future__ import annotations

import copy
import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Api:
    """An API server and the environment that reaches it."""

    env: Mapping[str, str]
    folder: Path

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        done = self.attempt(*arguments, stdin=stdin)
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def attempt(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["kubectl", *arguments], env=dict(self.env), input=stdin, capture_output=True, text=True, check=False
        )

    def apply(self, manifest: Mapping[str, Any]) -> str:
        return self.kubectl("apply", "-f", "-", stdin=json.dumps(manifest))

    def get(self, kind: str, name: str, namespace: str) -> dict[str, Any]:
        return dict(json.loads(self.kubectl("get", kind, name, "-n", namespace, "-o", "json")))


MINIMAL: dict[str, Any] = {
    "apiVersion": "embedding-operator.dev/v1alpha1",
    "kind": "EmbeddingFineTune",
    "metadata": {"name": "docs"},
    "spec": {
        "baseModel": {"name": "m", "source": {"pvc": {"claimName": "models"}}},
        "corpus": {"source": {"configMap": {"name": "docs"}}},
        "stages": {"sdg": {"provider": {"extractive": {}}}},
    },
}


def resource(namespace: str, patch: Mapping[str, Any] | None = None, name: str = "docs") -> dict[str, Any]:
    """The smallest resource, with a patch laid over its spec; None removes."""
    body = copy.deepcopy(MINIMAL)
    body["metadata"] = {"name": name, "namespace": namespace}
    merge(body["spec"], patch or {})
    return body


def merge(into: dict[str, Any], patch: Mapping[str, Any]) -> None:
    for key, value in patch.items():
        if value is None:
            into.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = copy.deepcopy(value)


def examples() -> dict[str, dict[str, Any]]:
    """Every resource in examples/, by file name, with the quickstart's variables filled in."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted((ROOT / "examples").glob("*.yaml")):
        text = path.read_text().replace("${DEMO_MODEL_IMAGE}", "model:1").replace("${DEMO_CORPUS_IMAGE}", "docs:1")
        for item in yaml.safe_load_all(text):
            if item and item["kind"] == "EmbeddingFineTune":
                found[path.name] = item
    return found
