"""The chart, rendered by Helm and put into the tests' API server."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from typing import Any

import yaml
from apiserver.api import ROOT, Api

CHART = ROOT / "charts" / "embedding-operator"
KUBERNETES = ("--kube-version", "1.34.4")


def template(
    api: Api, *arguments: str, release: str = "embedding-operator", namespace: str = "embedding-operator"
) -> subprocess.CompletedProcess[str]:
    return api.program("helm", "template", release, str(CHART), "--namespace", namespace, *KUBERNETES, *arguments)


def render(
    api: Api, *arguments: str, release: str = "embedding-operator", namespace: str = "embedding-operator"
) -> list[dict[str, Any]]:
    done = template(api, *arguments, release=release, namespace=namespace)
    assert done.returncode == 0, done.stderr
    return [item for item in yaml.safe_load_all(done.stdout) if item]


def the(kind: str, objects: list[dict[str, Any]]) -> dict[str, Any]:
    """The only object of that kind."""
    (found,) = (item for item in objects if item["kind"] == kind)
    return found


def operator_container(objects: list[dict[str, Any]]) -> dict[str, Any]:
    (found,) = the("Deployment", objects)["spec"]["template"]["spec"]["containers"]
    return dict(found)


def variables(container: Mapping[str, Any]) -> dict[str, str]:
    """As the pod sees them; what is taken from the pod itself is its field's path."""
    return {
        item["name"]: item["valueFrom"]["fieldRef"]["fieldPath"] if "valueFrom" in item else item.get("value", "")
        for item in container["env"]
    }


def install(api: Api, *arguments: str, namespace: str) -> str:
    """Everything but the CRD, which is there already; the user name of the ServiceAccount."""
    api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    done = template(api, "--set", "crds.install=false", *arguments, namespace=namespace)
    assert done.returncode == 0, done.stderr
    api.kubectl("apply", "-f", "-", stdin=done.stdout)
    account = the("ServiceAccount", [item for item in yaml.safe_load_all(done.stdout) if item])["metadata"]
    return f"system:serviceaccount:{account['namespace']}:{account['name']}"
