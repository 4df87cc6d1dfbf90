"""Who owns the field that differs: the shapes of `metadata.managedFields` against the paths of objects/compare.py."""

from __future__ import annotations

from typing import Any

import pytest

from embedding_operator.objects.managers import managers_of

POD = "spec.template.spec"


def pod(fields: dict[str, Any]) -> dict[str, Any]:
    return {"f:spec": {"f:template": {"f:spec": fields}}}


CONTAINER = {'k:{"name":"server"}': {".": {}, "f:image": {}, "f:env": {'k:{"name":"A"}': {"f:value": {}}}}}
PORT = {"f:spec": {"f:ports": {'k:{"port":8000,"protocol":"TCP"}': {"f:targetPort": {}}}}}
LABEL = {"f:metadata": {"f:labels": {"f:example.test/team": {}}}}


@pytest.mark.parametrize(
    ("fields", "path", "owned"),
    [
        ({"f:spec": {"f:selector": {}}}, "spec.selector", True),
        ({"f:spec": {"f:replicas": {}}}, "spec.selector", False),
        ({"f:spec": {"f:selectors": {}}}, "spec.selector", False),
        ({"f:spec": {"f:selector": {"f:track": {}}}}, "spec.selector", True),
        (pod({"f:containers": CONTAINER}), f"{POD}.containers[server].image", True),
        (pod({"f:containers": CONTAINER}), f"{POD}.containers[server].command", False),
        (pod({"f:containers": CONTAINER}), f"{POD}.containers[check-artefact].image", False),
        (pod({"f:containers": CONTAINER}), f"{POD}.containers[server].env[A]", True),
        (pod({"f:containers": CONTAINER}), f"{POD}.containers[server].env[B]", False),
        (pod({"f:tolerations": {}}), f"{POD}.tolerations[0].key", True),
        (PORT, "spec.ports[8000].targetPort", True),
        (PORT, "spec.ports[8000]", True),
        (PORT, "spec.ports[9000].targetPort", False),
        (PORT, "spec.ports[9000]", True),
        (LABEL, "metadata.labels.example.test/team", True),
        (LABEL, "metadata.labels.example.test/other", False),
        ({"f:spec": {"k:no json": {}, "v:1": {}}}, "spec.selector", False),
        ({}, "spec.selector", False),
    ],
)
def test_the_owner_of_a_field_is_named(fields: dict[str, Any], path: str, *, owned: bool) -> None:
    managed = [{"manager": "mesh", "fieldsV1": fields}, {"manager": "", "fieldsV1": fields}, {"manager": "no-fields"}]
    assert managers_of(managed, path) == (["mesh"] if owned else [])


def test_each_is_named_once() -> None:
    fields = {"f:spec": {"f:selector": {}}}
    managed = [{"manager": name, "fieldsV1": fields} for name in ("b", "a", "b")]
    assert managers_of(managed, "spec.selector") == ["a", "b"]
