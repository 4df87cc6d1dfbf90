"""Which images the chart names, and that the build pushes these."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from apiserver.api import ROOT, Api
from apiserver.chart import operator_container, render, variables

DIGEST = f"sha256:{'0' * 64}"
STAGE_IMAGES = ("sdg", "prep", "finetune", "evaluate", "export", "serve", "serve-torch")


def variable(image: str) -> str:
    return f"IMAGE_{image.upper().replace('-', '_')}"


IMAGES: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "nothing said: names without a host": (
        (),
        {"operator": "embedding-operator/operator:0.1.0", "IMAGE_PREP": "embedding-operator/prep:0.1.0"},
    ),
    "a registry is put before every name": (
        ("--set", "registry=r.example/team"),
        {
            "operator": "r.example/team/embedding-operator/operator:0.1.0",
            "IMAGE_EVALUATE": "r.example/team/embedding-operator/evaluate:0.1.0",
        },
    ),
    "a full reference is taken as it is": (
        ("--set", "registry=r.example", "--set", "stageImages.prep=other/prep@sha256:0"),
        {"IMAGE_PREP": "other/prep@sha256:0", "IMAGE_SDG": "r.example/embedding-operator/sdg:0.1.0"},
    ),
    "a digest wins over a tag": (
        ("--set", "tag=v1", "--set", "image.tag=v2", "--set", f"image.digest={DIGEST}"),
        {"operator": f"embedding-operator/operator@{DIGEST}", "IMAGE_PREP": "embedding-operator/prep:v1"},
    ),
    "one tag moves all images": (
        ("--set", "registry=r.example", "--set", "tag=0.1.0-0a1b2c3d4e5f"),
        {
            name: f"r.example/embedding-operator/{image}:0.1.0-0a1b2c3d4e5f"
            for name, image in {"operator": "operator", **{variable(name): name for name in STAGE_IMAGES}}.items()
        },
    ),
    "a tag of digits": (
        ("--set-string", "tag=20261117"),
        {"operator": "embedding-operator/operator:20261117", "IMAGE_PREP": "embedding-operator/prep:20261117"},
    ),
    "a tag of the operator wins for the operator": (
        ("--set", "tag=v1", "--set", "image.tag=v2"),
        {"operator": "embedding-operator/operator:v2", "IMAGE_SERVE": "embedding-operator/serve:v1"},
    ),
    "a full reference wins over the tag of all images": (
        ("--set", "tag=v1", "--set", "stageImages.serve=other/server:7"),
        {"IMAGE_SERVE": "other/server:7", "IMAGE_SERVE_TORCH": "embedding-operator/serve-torch:v1"},
    ),
    "values of a release that knew no tag of all images": (
        ("--set", "tag=null"),
        {"operator": "embedding-operator/operator:0.1.0", "IMAGE_PREP": "embedding-operator/prep:0.1.0"},
    ),
    "a tag of the operator is not the stages'": (
        ("--set", "image.tag=v2"),
        {"operator": "embedding-operator/operator:v2", "IMAGE_SERVE": "embedding-operator/serve:0.1.0"},
    ),
    "an image of two words": (
        ("--set", "stageImages.serve-torch=other/server:1"),
        {"IMAGE_SERVE_TORCH": "other/server:1", "IMAGE_SERVE": "embedding-operator/serve:0.1.0"},
    ),
}


@pytest.mark.parametrize("row", IMAGES)
def test_images(api: Api, row: str) -> None:
    arguments, expected = IMAGES[row]
    container = operator_container(render(api, *arguments))
    found = {"operator": container["image"], **variables(container)}
    assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize("version", ["", "20261117"], ids=["named by the tree", "named by whoever builds"])
def test_images_are_published_under_the_names_that_the_chart_expects(api: Api, version: str) -> None:
    registry = "registry.example/team"
    tool = [sys.executable, str(ROOT / "hack" / "images"), "names"]
    environment = os.environ | {"REGISTRY": f"{registry}/", "VERSION": version}
    done = subprocess.run(tool, env=environment, capture_output=True, text=True, check=True)
    published = json.loads(done.stdout)
    tag = published["operator"].rpartition(":")[2]

    container = operator_container(render(api, "--set-string", f"registry={registry},tag={tag}"))

    assert container["image"] == published.pop("operator")
    said = {item["name"]: item.get("value") for item in container["env"]}
    assert set(published.values()) == {value for value in said.values() if value and value.startswith(registry)}
