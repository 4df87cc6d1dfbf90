"""The record of a pinned revision is gone."""

from __future__ import annotations

import pytest
from simulation.clients import a_spec_of, led_to, servers
from simulation.fake_cluster import NAMESPACE
from simulation.scene import NAME, Scene, is_ready


@pytest.mark.parametrize("lost", [("ConfigMap",), ("ConfigMap", "Deployment")], ids=["record", "record and server"])
def test_a_pinned_revision_serves_on_without_its_record(lost: tuple[str, ...]) -> None:
    scene = Scene(a_spec_of(3)).run(is_ready).settle(3)
    was = led_to(scene)
    scene.edit(a_spec_of(5))
    scene.run(is_ready).settle(20)
    scene.edit(a_spec_of(5, pinRevision=1))
    scene.run(is_ready).settle(20)
    for kind in lost:
        for raw in scene.cluster.find(kind):
            if kind == "Deployment" or raw["metadata"]["name"] == f"{NAME}-revision-1":
                scene.cluster.remove(kind, NAMESPACE, raw["metadata"]["name"])
    scene.settle(3)
    scene.run(is_ready).settle(5)
    assert is_ready(scene)
    assert led_to(scene) == was
    assert was in servers(scene)
    seen = len(scene.history)
    scene.edit(a_spec_of(5, pinRevision=1, drainSeconds=77))
    scene.settle(10)
    assert {status["phase"] for status in scene.history[seen:]} == {"Ready"}
    assert was in servers(scene)


def test_a_pinned_revision_without_its_record_outlives_a_suspension() -> None:
    scene = Scene(a_spec_of(3)).run(is_ready).settle(3)
    scene.edit(a_spec_of(5))
    scene.run(is_ready).settle(8)
    pinned = a_spec_of(5, pinRevision=1)
    scene.edit(pinned)
    scene.run(is_ready).settle(8)
    scene.cluster.remove("ConfigMap", NAMESPACE, f"{NAME}-revision-1")
    scene.edit({**pinned, "suspend": True})
    scene.settle(5)
    assert scene.status.phase == "Suspended"
    scene.edit(pinned)
    scene.run(is_ready)
