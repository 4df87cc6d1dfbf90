"""Pods of one artefact are replaced when only how they run changes: clients should not notice."""

from __future__ import annotations

from typing import Any

import pytest
from simulation.fake_cluster import NAMESPACE
from simulation.scene import Scene, a_scene, a_spec, is_ready

from embedding_operator.resource.labels import SERVING_LABEL
from embedding_stages.contract import Stage

MORE_CPU = {"deploy": {"resources": {"requests": {"cpu": "2"}}}}


def available(scene: Scene) -> int:
    """Replicas behind the clients' Service."""
    serving = scene.status.served.active_fingerprint[:16]
    found = (raw for raw in scene.cluster.find("Deployment") if raw["metadata"]["labels"][SERVING_LABEL] == serving)
    return sum(raw["status"].get("availableReplicas", 0) for raw in found)


@pytest.mark.parametrize(
    "stages", [MORE_CPU, {"deploy": {"nodeSelector": {"a": "b"}}}, {"deploy": {"timeoutSeconds": 99}}], ids=str
)
def test_clients_have_a_server_at_every_moment(stages: dict[str, Any]) -> None:
    scene = a_scene().run(is_ready)
    before = {pod["metadata"]["name"] for pod in scene.world.pods_of(scene.cluster.find("Deployment")[0])}
    scene.edit(a_spec(stages=stages))
    while not is_ready(scene):
        scene.turn()
        assert available(scene) >= 1
    after = {pod["metadata"]["name"] for pod in scene.world.pods_of(scene.cluster.find("Deployment")[0])}
    assert not before & after
    assert "Degraded" not in [status["phase"] for status in scene.history]
    assert len(scene.ran(Stage.VERIFY)) == 1


def test_it_is_not_ready_before_every_old_pod_is_gone() -> None:
    scene = a_scene().run(is_ready)
    old = scene.world.pods_of(scene.cluster.find("Deployment")[0])[0]["metadata"]["name"]
    scene.world.server = "loading"
    scene.edit(a_spec(stages=MORE_CPU))
    scene.settle(20)
    assert not is_ready(scene)
    assert ("Pod", NAMESPACE, old) in scene.cluster.objects
    scene.world.server = "ready"
    scene.run(is_ready)
    assert ("Pod", NAMESPACE, old) not in scene.cluster.objects


def test_a_server_that_is_restored_after_long_is_neither_late_nor_ready_meanwhile() -> None:
    scene = a_scene(stages={"deploy": {"timeoutSeconds": 60}}).run(is_ready).settle(30)

    def other_image(raw: dict[str, Any]) -> None:
        raw["spec"]["template"]["spec"]["containers"][0]["image"] = "other:1"

    name = scene.cluster.find("Deployment")[0]["metadata"]["name"]
    scene.cluster.change("Deployment", NAMESPACE, name, other_image)
    scene.turn()
    assert scene.condition("Ready") == "Unknown RollingOut"
    scene.run(is_ready)
    assert scene.events().count("DriftCorrected") == 1
    assert "StartTimeout" not in scene.events()


def test_a_gpu_is_freed_before_it_is_asked_for_again() -> None:
    torch = {"backend": {"torch": {}}}
    scene = a_scene(stages={"deploy": torch}).run(is_ready)
    scene.edit(a_spec(stages={"deploy": torch | {"nodeSelector": {"gpu": "h100"}}}))
    while not is_ready(scene):
        scene.turn()
        assert len(scene.world.pods_of(scene.cluster.find("Deployment")[0])) <= 1


@pytest.mark.parametrize("strategy", ["Recreate", "BlueGreen"])
def test_the_next_server_begins_with_as_many_pods_as_somebody_scaled_the_last_one_to(strategy: str) -> None:
    deploy = {"strategy": strategy}
    scene = a_scene(stages={"deploy": deploy}).run(is_ready).settle(3)
    name = scene.cluster.find("Deployment")[0]["metadata"]["name"]
    scene.cluster.change("Deployment", NAMESPACE, name, lambda raw: raw["spec"].update(replicas=3))
    scene.settle(5)
    scene.edit(a_spec(stages={"deploy": deploy, "finetune": {"epochs": 5}}))
    scene.run(is_ready).settle(40)
    assert [raw["spec"]["replicas"] for raw in scene.cluster.find("Deployment")] == [3]
    assert scene.resource["status"]["served"]["replicas"] == 3
