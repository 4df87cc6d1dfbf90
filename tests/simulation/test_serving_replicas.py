"""Replicas of the server: whose number counts, the manifest's or an autoscaler's."""

from __future__ import annotations

from typing import Any

import pytest
from simulation.endings import BAD_INPUT
from simulation.fake_cluster import NAMESPACE
from simulation.scene import Scene, a_scene, a_spec, is_ready, is_stalled
from simulation.test_serving import ready, server

from embedding_stages.contract import Stage


def test_more_replicas_are_not_a_server_that_is_late() -> None:
    scene = a_scene(stages={"deploy": {"timeoutSeconds": 60}}).run(is_ready).settle(30)
    scene.edit(a_spec(stages={"deploy": {"timeoutSeconds": 60, "replicas": 2}}))
    scene.run(is_ready)
    assert "StartTimeout" not in scene.events()
    assert "Degraded" not in [status["phase"] for status in scene.history]


def test_an_autoscaler_of_the_resource_makes_no_revision_and_takes_no_ready_away() -> None:
    """It writes spec.stages.deploy.replicas by the scale subresource, every minute or so."""
    scene = a_scene(stages={"deploy": {"replicas": 1}}).run(is_ready).settle(30)
    calls, seen, told = len(scene.cluster.calls), len(scene.history), len(scene.events())
    for wanted in (3, 2, 5, 1):
        scene.edit(a_spec(stages={"deploy": {"replicas": wanted}}))
        scene.settle(15)
        assert replicas(scene) == wanted
        assert f"{wanted} of {wanted} replicas" in scene.message("Deployed")
        assert scene.resource["status"]["served"]["replicas"] == wanted
    later = scene.history[seen:]
    assert {status["phase"] for status in later} == {"Ready"}
    assert {item["status"] for status in later for item in status["conditions"] if item["type"] == "Ready"} == {"True"}
    assert {status["revision"] for status in later} == {1}
    assert scene.events()[told:] == []
    assert {call.verb for call in scene.cluster.calls[calls:]} <= {"get", "list", "apply", "status", "event"}


def test_a_candidate_that_waits_for_an_index_is_scaled_and_nothing_is_degraded() -> None:
    def asked(number: int, epochs: int) -> dict[str, Any]:
        return a_spec(stages={"deploy": {"strategy": "Shadow", "replicas": number}, "finetune": {"epochs": epochs}})

    scene = Scene(asked(1, 3)).run(is_ready)
    scene.edit(asked(1, 5))
    scene.run(lambda scene: bool(scene.status.served.next_url)).settle(3)
    seen, told = len(scene.history), len(scene.events())
    for wanted in (3, 2):
        scene.edit(asked(wanted, 5))
        scene.settle(15)
        assert f"{wanted} of {wanted} replicas" in scene.message("Deployed")
    later = scene.history[seen:]
    assert {status["phase"] for status in later} == {"Verifying"}
    assert {status["served"]["nextURL"] for status in later} == {scene.status.served.next_url}
    assert scene.events()[told:] == []


def test_pods_that_an_autoscaler_asks_for_in_vain_are_said() -> None:
    scene = a_scene(stages={"deploy": {"replicas": 1, "timeoutSeconds": 60}}).run(is_ready).settle(30)
    scene.world.refuses_pods = "exceeded quota: team"
    scene.edit(a_spec(stages={"deploy": {"replicas": 3, "timeoutSeconds": 60}}))
    scene.settle(5)
    assert scene.condition("Deployed") == "True Scaling"
    scene.run(lambda scene: scene.status.phase == "Degraded")
    assert "1 of 3 replicas are available" in scene.message("Deployed")
    assert "exceeded quota: team" in scene.message("Deployed")
    scene.world.refuses_pods = ""
    scene.run(is_ready)


def test_an_autoscaler_does_not_hide_a_rolling_update_that_is_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = a_scene(stages={"deploy": {"replicas": 2}}).run(is_ready).settle(30)
    monkeypatch.setattr(scene.world, "_serve", lambda _pod: None)  # no new pod starts
    for wanted in (2, 3, 5):
        scene.edit(a_spec(stages={"deploy": {"replicas": wanted, "nodeSelector": {"disk": "none"}}}))
        scene.settle(10)
        assert not is_ready(scene), "what answers is not what was asked for"


def scale(scene: Scene, replicas: int) -> None:
    """As an autoscaler of the Deployment does it."""
    name = server(scene)
    scene.cluster.change("Deployment", NAMESPACE, name, lambda raw: raw["spec"].update(replicas=replicas))


def replicas(scene: Scene) -> int:
    return int(scene.cluster.object("Deployment", server(scene))["spec"]["replicas"])


def test_where_the_manifest_says_no_replicas_an_autoscaler_decides() -> None:
    scene = ready()
    for wanted in (3, 2, 5):
        seen = len(scene.history)
        scale(scene, wanted)
        scene.settle(20)
        assert replicas(scene) == wanted
        assert {status["phase"] for status in scene.history[seen:]} <= {"Ready"}
        assert scene.resource["status"]["served"]["replicas"] == wanted
        assert f"{wanted} of {wanted} replicas" in scene.message("Deployed")
    assert "DriftCorrected" not in scene.events()
    scene.edit(a_spec(stages={"deploy": {"nodeSelector": {"disk": "ssd"}}}))  # its pods are replaced
    scene.run(is_ready)
    assert replicas(scene) == 5
    scene.edit(a_spec(stages={"deploy": {"modelName": "another"}}))  # another server
    scene.run(is_ready)
    assert replicas(scene) == 5


def test_replicas_that_the_manifest_says_are_restored_and_those_that_it_takes_back_stay() -> None:
    scene = a_scene(stages={"deploy": {"replicas": 2}}).run(is_ready)
    scale(scene, 5)
    scene.settle(20)
    assert replicas(scene) == 2
    assert "DriftCorrected" in scene.events()
    scene.edit(a_spec())
    scene.run(is_ready).settle(5)
    assert replicas(scene) == 2


def test_beside_a_candidate_that_waits_what_serves_is_scaled_by_its_deployment() -> None:
    def asked(number: int, epochs: int) -> dict[str, Any]:
        return a_spec(stages={"deploy": {"strategy": "Shadow", "replicas": number}, "finetune": {"epochs": epochs}})

    scene = Scene(asked(2, 3)).run(is_ready)
    active = server(scene)
    scene.edit(asked(2, 5))
    scene.run(lambda scene: bool(scene.status.served.next_url)).settle(3)
    scene.cluster.change("Deployment", NAMESPACE, active, lambda raw: raw["spec"].update(replicas=5))
    scene.settle(20)
    assert scene.cluster.object("Deployment", active)["spec"]["replicas"] == 5
    assert scene.status.served.replicas == 5
    assert "DriftCorrected" not in scene.events()


def test_a_scaling_there_and_back_that_nobody_heard_makes_no_revision() -> None:
    def scaled(replicas: int) -> dict[str, Any]:
        return a_spec(stages={"deploy": {"replicas": replicas}, "finetune": {"epochs": 5}})

    scene = a_scene(stages={"deploy": {"replicas": 1}}).run(is_ready).settle(3)
    scene.will(Stage.FINETUNE, BAD_INPUT)
    scene.edit(scaled(1))
    scene.run(is_stalled).settle(3)
    revision, ran = scene.status.revision, len(scene.ran(Stage.FINETUNE))
    scene.edit(scaled(2))  # the operator is away
    scene.edit(scaled(1))
    scene.settle(10)
    assert (scene.status.revision, len(scene.ran(Stage.FINETUNE))) == (revision, ran)
