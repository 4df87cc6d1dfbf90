"""Images of the server that change under their tag: pods that come with another one are measured once they answer."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from simulation.fake_cluster import NAMESPACE
from simulation.scene import Scene, a_scene, a_spec, is_ready
from simulation.world import World

from embedding_operator.resource.labels import SERVING_LABEL
from embedding_operator.resource.times import parse_time

MOVED = "sha256:moved"


def pods_of_servers(scene: Scene) -> list[dict[str, Any]]:
    return [raw for raw in scene.cluster.find("Pod") if SERVING_LABEL in raw["metadata"]["labels"]]


def restart_servers(scene: Scene) -> None:
    """Their pods go, and others come, with what the tag stands for by now."""
    for raw in pods_of_servers(scene):
        scene.cluster.remove("Pod", NAMESPACE, raw["metadata"]["name"])


def image_of(pod: dict[str, Any]) -> str:
    return str((pod["status"].get("containerStatuses") or [{}])[0].get("imageID", ""))


def minutes(scene: Scene, number: int) -> None:
    began = scene.clock.now
    while scene.clock.now - began < timedelta(minutes=number):
        scene.turn()


def scale_deployment(scene: Scene, replicas: int) -> None:
    """As an autoscaler of the Deployment does, where the manifest names no number."""
    name = scene.cluster.find("Deployment")[0]["metadata"]["name"]
    scene.cluster.change("Deployment", NAMESPACE, name, lambda raw: raw["spec"].update(replicas=replicas))


@pytest.mark.parametrize("room", [3, 2])
def test_an_image_that_comes_with_a_scaling_is_measured(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = a_scene(stages={"deploy": {"replicas": 1}}).run(is_ready).settle(3)
    serve = World._serve

    def while_there_is_room(world: World, pod: dict[str, Any]) -> None:
        fits = [raw["metadata"]["name"] for raw in pods_of_servers(scene)][:room]
        if pod["metadata"]["name"] in fits and pod["status"]["phase"] != "Running":  # who runs keeps his image
            serve(world, pod)

    monkeypatch.setattr(World, "_serve", while_there_is_room)
    scene.world.image_id, scene.world.served_offset = MOVED, -0.3
    scene.edit(a_spec(stages={"deploy": {"replicas": 3}}))
    began = scene.clock.now
    while scene.clock.now - began < timedelta(minutes=10):
        scene.turn()
    assert "ImageMoved" in scene.events()
    assert not is_ready(scene)


def test_an_image_that_comes_with_a_scaling_is_measured_once_it_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kubelet tells of it minutes before, when its container starts: measured then, only the old pods answer."""
    loads_for(monkeypatch, timedelta(minutes=2))
    scene = a_scene(stages={"deploy": {"replicas": 1}}).run(is_ready).settle(3)
    scene.world.image_id = MOVED
    scene.edit(a_spec(stages={"deploy": {"replicas": 2}}))
    began = scene.clock.now
    while scene.clock.now - began < timedelta(minutes=30):
        scene.turn()
    assert len(pods_of_servers(scene)) == 2
    assert not is_ready(scene)


def loads_for(patch: pytest.MonkeyPatch, time: timedelta) -> None:
    """A server's container runs at once, and answers when it has loaded the model; with a moved image otherwise."""
    serve, work = World._serve, World._work

    def answers(world: World, pod: dict[str, Any]) -> bool:
        state = (pod["status"].get("containerStatuses") or [{}])[0].get("state", {})
        began = parse_time((state.get("running") or {}).get("startedAt"))
        return pod["status"]["phase"] == "Running" and began is not None and world.cluster.clock() - began >= time

    def answering(world: World, pods: list[dict[str, Any]]) -> int:
        return sum(answers(world, pod) for pod in pods)

    def keep_image(world: World, pod: dict[str, Any]) -> None:
        if pod["status"]["phase"] != "Running":
            serve(world, pod)

    def measure(world: World, request: Any) -> Any:
        servers = [raw for raw in world.cluster.find("Pod") if SERVING_LABEL in raw["metadata"]["labels"]]
        moved = [raw for raw in servers if image_of(raw) == MOVED]
        world.served_offset = -0.3 if any(answers(world, raw) for raw in moved) else 0.0
        return work(world, request)

    patch.setattr(World, "_answering", answering)
    patch.setattr(World, "_serve", keep_image)
    patch.setattr(World, "_work", measure)


@pytest.mark.parametrize("replicas", [None, 2])
def test_an_image_of_a_pod_that_is_put_out_while_it_loads_is_measured_with_the_next(
    replicas: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pod stays for a while as one that has failed, and answers nobody."""
    loads_for(monkeypatch, timedelta(minutes=2))
    by_template = World._by_template

    def there(world: World, deployment: dict[str, Any]) -> Any:
        return tuple(
            [pod for pod in pods if pod["status"]["phase"] != "Failed"] for pods in by_template(world, deployment)
        )

    monkeypatch.setattr(World, "_by_template", there)
    scene = a_scene(stages={"deploy": {"replicas": 1}} if replicas else {}).run(is_ready).settle(3)
    scene.world.image_id = MOVED
    if replicas:
        scene.edit(a_spec(stages={"deploy": {"replicas": 2}}))
    else:
        scale_deployment(scene, 2)
    minutes(scene, 1)
    (loading,) = (raw for raw in pods_of_servers(scene) if image_of(raw) == MOVED)
    scene.cluster.change(
        "Pod", NAMESPACE, loading["metadata"]["name"], lambda raw: raw["status"].update(phase="Failed")
    )
    minutes(scene, 30)
    assert not is_ready(scene)


def test_an_image_of_most_pods_is_measured_beside_one_that_never_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = a_scene().run(is_ready).settle(3)
    silent: list[str] = []
    serve, answering = World._serve, World._answering

    def serve_once(world: World, pod: dict[str, Any]) -> None:
        if pod["status"]["phase"] == "Pending":
            silent.extend([] if silent else [pod["metadata"]["name"]])
            serve(world, pod)

    def answers(world: World, pods: list[dict[str, Any]]) -> int:
        return answering(world, [pod for pod in pods if pod["metadata"]["name"] not in silent])

    monkeypatch.setattr(World, "_serve", serve_once)
    monkeypatch.setattr(World, "_answering", answers)
    scene.world.image_id, scene.world.served_offset = MOVED, -0.3
    scale_deployment(scene, 4)
    minutes(scene, 30)
    assert scene.cluster.find("Deployment")[0]["status"]["availableReplicas"] == 3
    assert "ImageMoved" in scene.events()
    assert not is_ready(scene)
