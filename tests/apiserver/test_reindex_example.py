"""examples/reindex-job.yaml, shown to a real API server: accepted, admitted, and allowed what it does and no more."""

from __future__ import annotations

import json
from typing import Any

import yaml
from apiserver.api import ROOT, Api, at, example, pod_of, resource

FILE = "reindex-job.yaml"
NAME = "python-docs"  # of the quickstart
RESOURCES = "embeddingfinetunes.embedding-operator.dev"


def _applied(api: Api, namespace: str) -> dict[str, dict[str, Any]]:
    """The example's objects by kind, in a namespace of the test."""
    found = {item["kind"]: item for item in example(FILE)}
    for item in found.values():
        item["metadata"]["namespace"] = namespace
        api.kubectl("apply", "--validate=strict", "-f", "-", stdin=json.dumps(item))
    return found


def _user(found: dict[str, dict[str, Any]], namespace: str) -> str:
    return f"system:serviceaccount:{namespace}:{found['ServiceAccount']['metadata']['name']}"


def test_it_is_short_enough_to_be_read() -> None:
    text = (ROOT / "examples" / FILE).read_text()
    assert len(text.splitlines()) <= 80
    assert max(map(len, text.splitlines())) <= 125


def test_its_objects_are_accepted_and_its_pod_is_admitted_by_the_restricted_standard(api: Api, namespace: str) -> None:
    found = _applied(api, namespace)
    account = found["ServiceAccount"]["metadata"]["name"]
    template = {"metadata": {}, **found["Job"]["spec"]["template"]}
    assert template["spec"]["serviceAccountName"] == account
    assert api.objection(f"/api/v1/namespaces/{namespace}/pods", pod_of(template, "pod", namespace)) == ""


# What it tries -> whether it may.
RIGHTS = {
    ("get", NAME): True,
    ("patch", NAME): True,
    ("update", NAME): False,
    ("delete", NAME): False,
    ("get", "another"): False,
    ("patch", "another"): False,
}


def test_it_may_read_and_patch_the_one_resource_alone(api: Api, namespace: str) -> None:
    user = _user(_applied(api, namespace), namespace)
    allowed = {
        (verb, name): api.attempt(
            "auth", "can-i", verb, f"{RESOURCES}/{name}", "-n", namespace, "--as", user
        ).returncode
        == 0
        for verb, name in RIGHTS
    }
    assert allowed == RIGHTS


def test_what_it_reads_and_patches_are_fields_of_the_resource(api: Api, namespace: str) -> None:
    found = _applied(api, namespace)
    program = found["Job"]["spec"]["template"]["spec"]["containers"][0]["args"][0]
    compile(program, FILE, "exec")
    crd = yaml.safe_load((ROOT / "crds" / "embeddingfinetunes.embedding-operator.dev.yaml").read_text())
    served = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]["served"]
    read = {"nextURL", "url", "candidateVectorSpace", "vectorSpace"}
    assert all(f'"{field}"' in program for field in read)
    assert read <= set(served["properties"])
    field = "stages.deploy.acknowledgedVectorSpace"
    assert all(f'"{word}"' in program for word in field.split("."))
    api.apply(resource(namespace, name=NAME))
    patch = json.dumps({"spec": at(field, "0123456789abcdef")})
    user = ("--as", _user(found, namespace))
    api.kubectl("patch", "eft", NAME, "-n", namespace, *user, "--type=merge", "-p", patch)
    kept = api.get("eft", NAME, namespace)
    assert kept["spec"]["stages"]["deploy"] == {"acknowledgedVectorSpace": "0123456789abcdef"}
