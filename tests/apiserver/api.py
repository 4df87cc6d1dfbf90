"""The tests' own API server: kubectl, and plain HTTP where a table would call kubectl a hundred times."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import yaml
from kubernetes import client

ROOT = Path(__file__).resolve().parents[2]
EFT = "/apis/embedding-operator.dev/v1alpha1/namespaces/{}/embeddingfinetunes"


@dataclass(frozen=True)
class Api:
    """An API server, the environment that reaches it, and a folder that goes away with it."""

    env: Mapping[str, str]
    folder: Path
    http: client.ApiClient

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        done = self.attempt(*arguments, stdin=stdin)
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def attempt(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return self.program("kubectl", *arguments, stdin=stdin)

    def program(self, *command: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, env=dict(self.env), input=stdin, capture_output=True, text=True, check=False)

    def apply(self, manifest: Mapping[str, Any]) -> str:
        return self.kubectl("apply", "-f", "-", stdin=json.dumps(manifest))

    def get(self, kind: str, name: str, namespace: str) -> dict[str, Any]:
        return dict(json.loads(self.kubectl("get", kind, name, "-n", namespace, "-o", "json")))

    def send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
        **query: str,
    ) -> tuple[int, dict[str, Any]]:
        """Status and body of one request, as administrator."""
        url = f"{self.http.configuration.host}{path}" + (f"?{urlencode(query)}" if query else "")
        headers = {"Accept": "application/json", "Content-Type": content_type}
        response = self.http.call_api(method, url, headers, body, _request_timeout=15)
        return response.status, dict(json.loads(response.read()))

    def make(self, path: str, manifest: Mapping[str, Any], **query: str) -> dict[str, Any]:
        """Create it, strictly: an unknown field is an error."""
        status, answer = self.send("POST", path, manifest, fieldValidation="Strict", **query)
        assert status == 201, answer["message"]
        return answer

    def objection(self, path: str, manifest: Mapping[str, Any]) -> str:
        """What the API server has against an object; empty when it would take it."""
        status, answer = self.send("POST", path, manifest, fieldValidation="Strict", dryRun="All")
        return "" if status == 201 else str(answer["message"])


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


class Null(dict[str, Any]):
    """A part of a patch that stands as it is, with fields that YAML reads as null."""


def merge(into: dict[str, Any], patch: Mapping[str, Any]) -> None:
    for key, value in patch.items():
        if value is None:
            into.pop(key, None)
        elif isinstance(value, Null):
            into[key] = dict(value)
        elif isinstance(value, Mapping) and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = copy.deepcopy(value)


def make_namespace(api: Api) -> str:
    """Its name. It enforces the restricted standard."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    meta = {"generateName": "t-", "labels": labels}
    made = api.make("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": meta})
    name = str(made["metadata"]["name"])
    # The controller that makes it is not running here, and Pods are refused without it.
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
    api.make(f"/api/v1/namespaces/{name}/serviceaccounts", account)
    return name


def at(path: str, value: Any) -> dict[str, Any]:
    """A patch that sets one field: at("a.b", 1) is {"a": {"b": 1}}."""
    for key in reversed(path.split(".")):
        value = {key: value}
    return dict(value)


def pod_of(template: Mapping[str, Any], name: str, namespace: str) -> dict[str, Any]:
    """The pod that a Job or a Deployment makes from its template."""
    meta = {**template["metadata"], "name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": template["spec"]}


def examples() -> dict[str, dict[str, Any]]:
    """Every resource in examples/, by file name, with their variables filled in."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted((ROOT / "examples").glob("*.yaml")):
        for item in example(path.name):
            if item["kind"] == "EmbeddingFineTune":
                found[path.name] = item
    return found


def example(name: str) -> list[dict[str, Any]]:
    """All objects of a file in examples/, with its variables filled in."""
    text = re.sub(r"\$\{[A-Z_]+_IMAGE\}", "registry.test/image:1", (ROOT / "examples" / name).read_text())
    return [item for item in yaml.safe_load_all(text) if item]


def until(what: str, look: Callable[[], Any], meanwhile: Iterable[Callable[[], object]] = ()) -> Any:
    """What `look` finds, once it finds something."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        for step in meanwhile:
            step()
        time.sleep(0.1)
    raise AssertionError(f"not seen: {what}")
