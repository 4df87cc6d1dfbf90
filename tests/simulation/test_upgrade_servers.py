"""What serves goes on over an upgrade of the operator, whatever the later release knows of its image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
from simulation.fake_cluster import NAMESPACE
from simulation.scene import NAME, Scene, a_scene, is_ready, is_stalled
from simulation.upgrades import NIM, as_first_written, edited, jobs, pods_of_servers, release

from embedding_operator.resource.api import KIND
from embedding_operator.resource.labels import TEMPLATE_ANNOTATION
from embedding_stages.contract import Stage, fingerprint_of, servers
from embedding_stages.contract.nim import Takes

__all__ = ["release"]  # the fixture


@pytest.mark.parametrize("autoscaled", [False, True])
def test_a_server_of_an_earlier_release_keeps_its_pods(autoscaled: bool, release: Callable[[Scene], Scene]) -> None:
    scene = a_scene().run(is_ready).settle(2)
    name = scene.cluster.find("Deployment")[0]["metadata"]["name"]
    check = {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "256Mi"}}

    def as_before(raw: dict[str, Any]) -> None:
        spec = raw["spec"]
        spec["template"]["spec"]["initContainers"][0]["resources"] = check
        asked = scene.cluster._applied["Deployment", NAMESPACE, name]["spec"]
        asked["template"]["spec"]["initContainers"][0]["resources"] = check
        asked["replicas"] = 1
        raw["metadata"]["annotations"] = {
            **raw["metadata"]["annotations"],
            TEMPLATE_ANNOTATION: fingerprint_of(asked)[:16],
        }

    scene.cluster.change("Deployment", NAMESPACE, name, as_before)
    for _ in range(5):
        scene.world.step()
    if autoscaled:
        scene.cluster.change("Deployment", NAMESPACE, name, lambda raw: raw["spec"].update(replicas=3))
    before = {pod["metadata"]["name"] for pod in scene.world.pods_of(scene.cluster.find("Deployment")[0])}
    writes = len(scene.history)
    release(scene).settle(5)
    server = scene.cluster.find("Deployment")[0]
    assert before <= {pod["metadata"]["name"] for pod in scene.world.pods_of(server)}
    assert server["spec"]["replicas"] == (3 if autoscaled else 1)
    assert {status["phase"] for status in scene.history[writes:]} <= {"Ready"}


def test_a_server_of_an_unknown_version_goes_on_as_the_generation_that_it_was_verified_as(
    release: Callable[[Scene], Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A release before the tag counted took every NIM for the first generation."""
    shape: dict[str, Any] = {"stages": {"deploy": {"image": "nim:9.9", "backend": {"nim": {}}}}}
    with monkeypatch.context() as earlier:
        earlier.setattr(servers, "version_of", lambda _image: ())
        scene = a_scene(**shape).run(is_ready).settle(2)
    pods, before = pods_of_servers(scene), len(scene.cluster.created_jobs)
    release(scene).settle(3)
    assert is_ready(scene)
    for edit in ({"tolerance": {"atOne": "0.05"}}, {"stages": {"deploy": {"replicas": 2}}}):
        scene.edit(edited(shape, **edit))
        scene.run(is_ready)
    assert pods_of_servers(scene) == pods
    assert jobs(scene, before) == []
    (warning,) = [item.message for item in scene.status.warnings if item.stage is Stage.DEPLOY]
    assert warning.startswith("spec.stages.deploy.backend.nim.generation: ")
    assert "version 9.9" in warning
    assert "goes on as '1'" in warning
    scene.edit(edited(shape, stages={"deploy": {"image": "nim:9.10"}}))  # that one nobody has verified
    scene.run(is_stalled)
    assert scene.message("Validated").startswith("spec.stages.deploy.backend.nim.generation: ")
    assert pods_of_servers(scene) == pods


@pytest.mark.parametrize("strategy", ["BlueGreen", "Recreate"])
@pytest.mark.parametrize("begun", [False, True], ids=["begins after", "begun before"])
def test_a_revision_trained_for_a_server_of_an_unknown_version_is_served_by_it(
    begun: bool, strategy: str, release: Callable[[Scene], Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    deploy = {"image": "nim:9.9", "backend": {"nim": {}}, "strategy": strategy}
    shape: dict[str, Any] = {"stages": {"deploy": deploy}}
    trains = edited(shape, stages={"finetune": {"epochs": 5}})

    def as_before(raw: dict[str, Any]) -> None:
        raw["status"] = as_first_written(raw["status"])
        raw["status"]["resolved"].pop("taken", None)

    with monkeypatch.context() as earlier:
        earlier.setattr(servers, "version_of", lambda _image: ())
        scene = a_scene(**shape).run(is_ready).settle(2)
        if begun:
            scene.edit(trains)
            scene.running(Stage.FINETUNE)
    scene.cluster.change(KIND, NAMESPACE, NAME, as_before)
    release(scene).settle(3)
    scene.edit(trains)
    written = len(scene.history)
    scene.release()
    scene.run(is_ready)
    assert "Blocked" not in {status["phase"] for status in scene.history[written:]}
    assert scene.status.served.active_revision == 2


def test_a_server_that_serves_takes_its_model_whatever_a_later_release_knows(
    release: Callable[[Scene], Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    shape: dict[str, Any] = {"stages": {"deploy": NIM}}
    scene = a_scene(**shape).run(is_ready).settle(2)
    before = len(scene.cluster.created_jobs)
    monkeypatch.setitem(cast("dict[str, Takes]", servers.IMAGES), "nim", Takes(family="llama", vector_size=2048))
    release(scene).settle(3)
    scene.edit(edited(shape, tolerance={"atOne": "0.05"}))
    scene.run(is_ready)
    assert jobs(scene, before) == []
    scene.edit(edited(shape, stages={"finetune": {"epochs": 5}}))
    scene.run(is_ready)
    scene.edit(edited(shape, stages={"deploy": {"image": "team/nim:2.0.1"}}))
    scene.run(is_stalled)
    assert scene.message("Validated").startswith("spec.stages.deploy.image: team/nim:2.0.1 serves llama models")
