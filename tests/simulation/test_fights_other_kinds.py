"""What others change back for ever of what does not serve: Services of several nodes, claims, ConfigMaps, Jobs."""

from __future__ import annotations

from simulation.fights import MOST_AN_HOUR, NOT_CORRECTED, Raw, an_hour, applies, of, policy, select_canary
from simulation.scene import NAME, Scene, a_scene, a_spec, is_ready, stage_is

from embedding_operator.resource.labels import QUEUE_LABEL, SERVING_LABEL
from embedding_stages.contract import Stage


def is_rendezvous(raw: Raw) -> bool:
    return SERVING_LABEL not in raw["metadata"]["labels"]


def test_pods_of_several_nodes_that_are_kept_apart_say_who_does_it() -> None:
    spec = a_spec(stages={"finetune": {"nodes": 2}}, storage={"accessModes": ["ReadWriteMany"]})
    scene = Scene(spec)
    scene.world.progress = {}
    scene.running(Stage.FINETUNE)
    policy(scene, "Service", of(is_rendezvous, select_canary))
    scene.run(lambda scene: scene.condition("Trained") == NOT_CORRECTED, turns=30)
    assert "spec.selector is changed by mesh" in scene.message("Trained")
    before, written, told = applies(scene, "Service"), len(scene.history), len(scene.events())
    scene.settle(40)
    assert applies(scene, "Service") - before <= 5
    assert len(scene.history) - written <= 7
    assert len(scene.events()) == told
    scene.cluster.policies.clear()
    scene.settle(70)
    scene.release()
    scene.run(is_ready)


def test_pods_of_several_nodes_that_have_met_go_on() -> None:
    spec = a_spec(stages={"finetune": {"nodes": 2}}, storage={"accessModes": ["ReadWriteMany"]})
    scene = Scene(spec).running(Stage.FINETUNE)
    policy(scene, "Service", of(is_rendezvous, select_canary))
    scene.run(lambda scene: "DriftNotCorrected" in scene.events(), turns=30)
    assert scene.condition("Trained") == "Unknown Running"


def test_a_claim_that_somebody_keeps_small_is_said_and_stops_nothing() -> None:
    scene = a_scene().run(is_ready).settle(3)
    policy(scene, "PersistentVolumeClaim", lambda raw: raw["spec"]["resources"]["requests"].update(storage="50Gi"))
    scene.edit(a_spec(storage={"size": "100Gi"}))
    scene.run(lambda scene: scene.condition("Validated") == "True DriftNotCorrected", turns=40)
    assert "spec.resources.requests.storage" in scene.message("Validated")
    scene.run(is_ready)
    before = applies(scene, "PersistentVolumeClaim")
    an_hour(scene)
    assert applies(scene, "PersistentVolumeClaim") - before <= MOST_AN_HOUR
    assert scene.events().count("DriftNotCorrected") == 1
    scene.cluster.policies.clear()
    scene.run(lambda scene: scene.condition("Validated") == "True Valid", turns=400)


def test_a_contract_that_somebody_changes_is_written_ever_less_often_and_said() -> None:
    scene = a_scene(verification={"intervalSeconds": 60}).run(is_ready).settle(5)

    def spoil(raw: Raw) -> None:
        if raw["metadata"]["name"] == f"{NAME}-contract":
            raw["data"] = dict.fromkeys(raw["data"], "by the policy")

    policy(scene, "ConfigMap", spoil)
    scene.run(lambda scene: scene.condition("Validated") == "True DriftNotCorrected", turns=400)
    assert f"ConfigMap {NAME}-contract does not stay" in scene.message("Validated")
    before = applies(scene, "ConfigMap")
    an_hour(scene)
    assert applies(scene, "ConfigMap") - before <= 2 * MOST_AN_HOUR  # each time without canaries, and with them
    assert scene.events().count("DriftNotCorrected") == 1


def test_a_record_that_somebody_changes_is_written_once() -> None:
    scene = a_scene()
    scene.cluster.policies["ConfigMap"] = lambda raw: raw.update(data=dict.fromkeys(raw["data"], "by the policy"))
    scene.run(is_ready).settle(5)
    before = applies(scene, "ConfigMap")
    an_hour(scene)
    assert applies(scene, "ConfigMap") == before


def test_another_queue_that_a_policy_gives_a_job_is_left() -> None:
    scene = a_scene(scheduling={"queueName": "ours"})

    def queue(raw: Raw) -> None:
        raw["metadata"]["labels"][QUEUE_LABEL] = "theirs"
        raw["spec"]["suspend"] = True

    scene.cluster.policies["Job"] = queue
    scene.run(stage_is(Stage.INPUTS, "Waiting")).settle(5)
    calls = [call for call in scene.cluster.calls if call.writes and call.kind == "Job"]
    scene.settle(40)
    assert [call for call in scene.cluster.calls if call.writes and call.kind == "Job"] == calls
    assert [call.verb for call in calls] == ["create"]
