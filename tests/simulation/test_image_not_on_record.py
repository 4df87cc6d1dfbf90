"""The tag of a server's image moved, and no status tells of what was measured before."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from simulation.clients import a_spec_of, led_to, servers
from simulation.fake_cluster import NAMESPACE, Call, Crash
from simulation.scene import Scene, is_ready

from embedding_operator.cluster.errors import QuotaExceeded
from embedding_operator.resource.labels import SERVING_LABEL
from embedding_operator.resource.times import stamp
from embedding_stages.contract import Stage


@pytest.mark.parametrize("edited", [False, True], ids=["no edit", "an edit of drainSeconds"])
@pytest.mark.parametrize("on_record", [True, False], ids=["deploy is on record", "nothing is"])
@pytest.mark.parametrize("how", ["new pods", "containers that restart in place"])
def test_a_server_is_not_judged_by_what_measured_another_image(how: str, *, on_record: bool, edited: bool) -> None:
    """The Job of verify was made and is not on record; the operator is away while it measures, and the tag moves."""
    scene = Scene(a_spec_of(3))
    full, crashed = [on_record], [False]

    def hook(call: Call, when: str) -> None:
        making = (call.verb, call.kind) == ("create", "Job") and "-verify-" in call.name
        if making and when == "before" and full[0]:
            raise QuotaExceeded("create", "Job", NAMESPACE, call.name, "exceeded quota")
        crashed[0] |= making and when == "after"
        if (call.verb, when) == ("status", "before") and crashed[0]:
            crashed[0] = False
            raise Crash

    scene.cluster.hook = hook
    if on_record:
        scene.run(lambda scene: scene.status.stage(Stage.VERIFY).reason == "WaitingForQuota").settle(2)
    full[0] = False
    scene.run(lambda scene: scene.crashes > 0)
    assert bool(scene.status.stage(Stage.DEPLOY).image_ids) == on_record
    assert scene.status.stage(Stage.VERIFY).attempt == 0
    _nobody_works(scene)
    scene.world.image_id, scene.world.served_offset = "sha256:moved", -0.3
    for raw in scene.cluster.find("Pod"):
        if SERVING_LABEL not in raw["metadata"]["labels"]:
            continue
        if how == "new pods":
            scene.cluster.remove("Pod", NAMESPACE, raw["metadata"]["name"])
        else:
            scene.cluster.change("Pod", NAMESPACE, raw["metadata"]["name"], lambda pod: _restart(pod, scene))
    _nobody_works(scene)
    if edited and on_record:
        scene.edit(a_spec_of(3, drainSeconds=77))
    scene.settle(40)
    assert len(scene.attempts(Stage.VERIFY)) == 2
    assert scene.condition("Verified") == "False OutsideTolerance"


@pytest.mark.parametrize("strategy", ["BlueGreen", "Recreate"])
def test_a_tag_that_moved_beside_an_edit_is_measured_after_the_way_back(strategy: str) -> None:
    scene = Scene(a_spec_of(3, strategy=strategy)).run(is_ready).settle(3)
    was = led_to(scene)
    scene.edit(a_spec_of(5, strategy=strategy))
    scene.run(lambda scene: scene.status.stage(Stage.DEPLOY).reason == "Starting" and bool(servers(scene) - {was}))
    scene.world.image_id, scene.world.served_offset = "sha256:moved", -0.3
    for raw in scene.cluster.find("Pod"):
        if raw["metadata"]["labels"].get(SERVING_LABEL) == was:
            scene.cluster.remove("Pod", NAMESPACE, raw["metadata"]["name"])
    scene.edit(a_spec_of(3, strategy=strategy))
    scene.settle(60)
    assert scene.condition("Verified") == "False OutsideTolerance"
    assert "ImageMoved" in scene.events()


def _restart(pod: dict[str, Any], scene: Scene) -> None:
    """Its container ended, and the kubelet pulled what the tag stands for by then."""
    for container in pod["status"]["containerStatuses"]:
        container["imageID"] = scene.world.image_id
        container["state"] = {"running": {"startedAt": stamp(scene.clock.now)}}


def _nobody_works(scene: Scene) -> None:
    for _ in range(8):
        scene.step()
        scene.clock.now += timedelta(seconds=10)
