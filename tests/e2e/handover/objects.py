"""PostgreSQL with pgvector, the client of the index, and the example's Job, for one resource."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from e2e.kube import NAMESPACE, ROOT

DATABASE, CLIENT, REINDEX = "handover-index", "handover-client", "reindex"
LINES = 8  # a passage
_PASSWORD = "of-this-test-alone"
_SECRET = "index"  # the example's
_CONTAINER_SECURITY = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
_POD_SECURITY = {
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "runAsGroup": 65532,
    "fsGroup": 65532,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def database(image: str) -> list[dict[str, Any]]:
    """A PostgreSQL that forgets everything with its pod, a Service, and the Secret that the example reads."""
    variables = [{"name": "POSTGRES_PASSWORD", "value": _PASSWORD}]
    container = {
        **_container("postgres", image, variables),
        "ports": [{"containerPort": 5432}],
        "readinessProbe": {"exec": {"command": ["pg_isready", "-h", "127.0.0.1"]}, "periodSeconds": 1},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    volumes = [{"name": "data", "emptyDir": {}}]
    dsn = f"postgresql://postgres:{_PASSWORD}@{DATABASE}:5432/postgres"
    return [
        {**_named("v1", "Secret", _SECRET), "stringData": {"dsn": dsn}},
        {
            **_named("v1", "Service", DATABASE),
            "spec": {"selector": {"handover": DATABASE}, "ports": [{"port": 5432}]},
        },
        _pod(DATABASE, container, volumes),
    ]


def client(image: str, resource: str, model: str, space: str) -> list[dict[str, Any]]:
    """The pod that asks all the time, and its program; at first it believes in the index of `space`."""
    script = {"client.py": (Path(__file__).parent / "client.py").read_text()}
    variables: list[dict[str, Any]] = [
        {"name": "URL", "value": f"http://{resource}:8000/v1/embeddings"},
        {"name": "MODEL", "value": model},
        {"name": "DSN", "valueFrom": {"secretKeyRef": {"name": _SECRET, "key": "dsn"}}},
    ]
    container = {
        **_container("client", image, variables),
        # A shell would not pass SIGTERM on.
        "command": ["python3", "/client/client.py", space],
        "volumeMounts": [{"name": "client", "mountPath": "/client"}],
    }
    volumes = [{"name": "client", "configMap": {"name": CLIENT}}]
    return [{**_named("v1", "ConfigMap", CLIENT), "data": script}, _pod(CLIENT, container, volumes)]


def reindex_job(image: str, resource: str) -> str:
    """examples/reindex-job.yaml, with this resource's name and namespace in the place of the quickstart's."""
    text = (ROOT / "examples" / "reindex-job.yaml").read_text()
    for old, new in (("embedding-demo", NAMESPACE), ("python-docs", resource), ("${PGVECTOR_IMAGE}", image)):
        assert old in text
        text = text.replace(old, new)
    return text


def job_manifest(text: str) -> dict[str, Any]:
    """The Job among the documents of the example."""
    return next(item for item in yaml.safe_load_all(text) if item["kind"] == "Job")


def passages_sql(texts: dict[str, str]) -> str:
    """The table of passages that the example reads, with one row for some lines of text each."""
    rows = [
        (f"{name}#{first:04d}", passage)
        for name, lines in sorted((name, text.splitlines()) for name, text in texts.items())
        for first in range(0, len(lines), LINES)
        if len(passage := "\n".join(lines[first : first + LINES])) >= 50
    ]
    values = ",\n".join(f"({_quoted(identity)}, {_quoted(text)})" for identity, text in rows)
    return f"CREATE TABLE passages (id text PRIMARY KEY, text text NOT NULL);\nINSERT INTO passages VALUES\n{values};\n"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _named(version: str, kind: str, name: str) -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE}}


def _container(name: str, image: str, variables: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "name": name,
        "image": image,
        "env": variables,
        "securityContext": _CONTAINER_SECURITY,
        "resources": {"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}},
    }


def _pod(name: str, container: dict[str, Any], volumes: list[dict[str, Any]]) -> dict[str, Any]:
    body = _named("v1", "Pod", name)
    body["metadata"]["labels"] = {"handover": name}
    body["spec"] = {
        "securityContext": _POD_SECURITY,
        "automountServiceAccountToken": False,
        "restartPolicy": "Never",  # a second start would forget what went wrong in the first
        "containers": [container],
        "volumes": volumes,
    }
    return body
