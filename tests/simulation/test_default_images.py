"""A default image that cannot be pulled: the cure that is told works, once the chart is corrected."""

from __future__ import annotations

from typing import Any

import pytest
from simulation.scene import IMAGES, Scene, a_scene, a_spec, is_ready

from embedding_operator.decide.plan import Defaults
from embedding_operator.resource.api import TORCH_SERVER
from embedding_stages.contract import Stage

RIGHT = {name: image.replace("registry.test/", "registry.right/") for name, image in IMAGES.items()}
JOBS = [stage for stage in Stage if stage is not Stage.DEPLOY]
SERVERS: dict[str, tuple[dict[str, Any], str]] = {
    "onnx": ({}, RIGHT[Stage.DEPLOY]),
    "torch": ({"backend": {"torch": {}}}, RIGHT[TORCH_SERVER]),
}


def corrected(scene: Scene) -> Scene:
    scene.restart()
    scene.operator.reconciler.defaults = Defaults(images=RIGHT)
    return scene


@pytest.mark.parametrize("stage", JOBS)
def test_a_job_that_waits_takes_the_image_that_the_manifest_names_then(stage: Stage) -> None:
    scene = a_scene()
    scene.world.gone = (IMAGES[stage],)
    scene.run(lambda scene: scene.status.stage(stage).reason == "ImagePullFailed")
    assert "correct registry, tag or stageImages of its chart" in scene.message("Ready")
    assert f"and here name the right one in spec.stages.{stage}.image" in scene.message("Ready")
    # The sections of a_spec(), where a stage's own would replace them.
    sections = {**a_spec()["stages"].get(stage.value, {}), "image": RIGHT[stage]}
    corrected(scene).edit(a_spec(stages={**a_spec()["stages"], stage.value: sections}))
    scene.run(is_ready)
    assert [request.image for request in scene.ran(stage)] == [RIGHT[stage]]


@pytest.mark.parametrize("stage", JOBS)
def test_a_job_that_has_failed_takes_what_the_chart_was_corrected_to(stage: Stage) -> None:
    scene = a_scene()
    scene.world.gone = (IMAGES[stage],)
    scene.run(lambda scene: scene.status.stage(stage).state == "Failed", turns=900)
    corrected(scene).edit(a_spec(retryToken="corrected"))
    scene.run(is_ready)
    assert [request.image for request in scene.ran(stage)] == [RIGHT[stage]]


@pytest.mark.parametrize("server", SERVERS)
def test_a_server_takes_the_image_that_the_manifest_names_then(server: str) -> None:
    deploy, image = SERVERS[server]
    scene = a_scene(stages={"deploy": deploy})
    scene.world.gone = (IMAGES[Stage.DEPLOY], IMAGES[TORCH_SERVER])
    scene.run(lambda scene: scene.status.stage(Stage.DEPLOY).reason == "ImagePullFailed")
    assert "image in spec.stages.deploy.image" in scene.message("Ready")
    corrected(scene).edit(a_spec(stages={"deploy": {**deploy, "image": image}}))
    scene.run(is_ready)
