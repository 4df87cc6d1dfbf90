"""A mesh that puts its containers into every pod, before the operator's own."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from simulation.endings import HANG
from simulation.scene import a_scene, is_ready, stage_is
from simulation.world import World

from embedding_operator.resource.pipeline import PIPELINE
from embedding_stages.contract import Stage

Raw = dict[str, Any]


@dataclass
class Meshed(World):
    """Its kubelet reports a proxy and a container that prepares the network; pods list them first."""

    def _edit(self, raw: Raw, edit: Any) -> None:
        def both(live: Raw) -> None:
            edit(live)
            if live["kind"] == "Pod":
                self._inject(live["status"])

        super()._edit(raw, both)

    def _inject(self, status: Raw) -> None:
        prepared = {"name": "istio-init", "state": {"terminated": {"exitCode": 0}}}
        ended = status["phase"] in ("Succeeded", "Failed")
        state = {"terminated": {"exitCode": 143, "message": "bye"}} if ended else {"running": {}}
        proxy = {"name": "istio-proxy", "imageID": f"sha256:proxy-of-{status['phase']}", "state": state}
        for kind, item in (("initContainerStatuses", prepared), ("containerStatuses", proxy)):
            others = [other for other in status.get(kind, ()) if other["name"] != item["name"]]
            status[kind] = [item, *others]


def test_a_run_with_a_proxy_in_every_pod_is_like_one_without() -> None:
    scene = a_scene()
    scene.world = Meshed(scene.cluster)
    scene.run(is_ready)
    assert len(scene.cluster.created_jobs) == len(PIPELINE)
    assert set(scene.states().values()) == {"Succeeded"}
    scene.settle(10)
    assert is_ready(scene)
    assert "ImageMoved" not in scene.events()


def test_a_proxy_that_never_ends_is_named() -> None:
    scene = a_scene()
    scene.will(Stage.SDG, HANG)
    scene.run(stage_is(Stage.SDG, "Running"))
    pod = next(raw for raw in scene.cluster.find("Pod") if "sdg" in raw["metadata"]["name"])
    now = f"{scene.clock.now:%Y-%m-%dT%H:%M:%SZ}"
    stage = {"name": "stage", "state": {"terminated": {"exitCode": 0, "finishedAt": now}}}
    proxy = {"name": "istio-proxy", "state": {"running": {}}}
    name = pod["metadata"]["name"]
    scene.cluster.change(
        "Pod", pod["metadata"]["namespace"], name, lambda raw: raw["status"].update(containerStatuses=[proxy, stage])
    )
    scene.clock.now += timedelta(minutes=1)
    scene.run(lambda scene: scene.status.stage(Stage.SDG).reason == "SidecarRunning")
    scene.settle(10)
    assert scene.events().count("SidecarRunning") == 1
    assert "istio-proxy" in scene.status.stage(Stage.SDG).message
