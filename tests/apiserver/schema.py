"""What the rows of the schema's tests are made of, and how a manifest is held to be refused."""

from __future__ import annotations

from typing import Any

from apiserver.api import EFT, Api, resource

SECRET = {"name": "llm", "key": "token"}
OPEN_AI = {"baseURL": "http://llm:8000/v1", "model": "m", "apiKeySecretRef": SECRET}
IMAGE = {"reference": "files:1", "path": "/files", "pullPolicy": "Always"}
Refusal = tuple[dict[str, Any], str, str]  # a patch, the field that is named, what is said about it


def must_refuse(api: Api, namespace: str, refusal: Refusal) -> None:
    patch, field, reason = refusal
    objection = api.objection(EFT.format(namespace), resource(namespace, patch))
    assert field in objection
    assert reason in objection
