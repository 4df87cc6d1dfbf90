"""A candidate waits for the owner of the index, and meanwhile the manifest or the cluster changes."""

from __future__ import annotations

import pytest
from simulation.clients import led_to, servers
from simulation.fake_cluster import NAMESPACE
from simulation.scene import Scene, a_scene, a_spec, is_ready, is_stalled
from simulation.test_handover import NEXT, shadow, waiting, waits

from embedding_operator.resource.labels import SERVING_LABEL
from embedding_stages.contract import Stage


def test_a_candidate_that_is_given_up_leaves_no_word_of_itself() -> None:
    scene = waiting()
    scene.edit(shadow(3))
    scene.run(is_ready).settle(5)
    served = scene.status.served
    assert (served.candidate_vector_space, served.next_url, served.reindex) == ("", "", {})
    assert not led_to(scene, NEXT)
    assert servers(scene) == {led_to(scene)}


def test_no_candidate_is_told_of_while_its_successor_is_trained() -> None:
    scene = waiting()
    scene.edit(shadow(7))
    scene.running(Stage.FINETUNE)
    served = scene.status.served
    assert (served.candidate_vector_space, served.next_url, served.reindex) == ("", "", {})


def test_a_later_revision_of_the_same_space_does_not_hide_that_the_index_is_behind() -> None:
    scene = a_scene().run(is_ready)
    scene.edit(a_spec(stages={"finetune": {"epochs": 5}}))
    scene.run(is_ready)
    before = scene.status.served.reindex
    assert before["required"]
    scene.edit(a_spec(stages={"finetune": {"epochs": 5}, "export": {"precision": "fp16"}}))
    scene.run(is_ready).settle(5)
    assert scene.status.served.reindex == before


def test_clients_that_come_back_to_the_server_that_drains_keep_it() -> None:
    scene = waiting()
    first, space = led_to(scene), scene.status.served.vector_space
    scene.edit(shadow(5, acknowledgedVectorSpace=scene.status.served.candidate_vector_space, drainSeconds=3000))
    scene.run(is_ready).settle(3)
    scene.edit(shadow(3, acknowledgedVectorSpace=space, drainSeconds=3000))
    scene.run(is_ready).settle(100)
    assert (led_to(scene), servers(scene)) == (first, {first})


def test_a_suspended_candidate_stays_offered_and_waits_on_when_it_is_resumed() -> None:
    scene = waiting()
    reached, jobs = (led_to(scene), led_to(scene, NEXT)), list(scene.cluster.created_jobs)
    scene.edit({**shadow(5), "suspend": True})
    scene.settle(10)
    assert (led_to(scene), led_to(scene, NEXT)) == reached
    scene.edit(shadow(5))
    scene.run(waits).settle(5)
    assert (led_to(scene), led_to(scene, NEXT)) == reached
    assert scene.cluster.created_jobs == jobs
    assert scene.events().count("AwaitingAcknowledgement") == 1


def test_an_invalid_manifest_changes_nothing_of_an_offer() -> None:
    scene = waiting()
    reached = led_to(scene), led_to(scene, NEXT)
    scene.edit(shadow(5, pinRevision=77))
    scene.run(is_stalled).settle(10)
    assert (led_to(scene), led_to(scene, NEXT)) == reached
    scene.edit(shadow(5))
    scene.run(waits).settle(5)
    assert (led_to(scene), led_to(scene, NEXT)) == reached


def test_a_candidate_whose_server_was_lost_is_offered_again() -> None:
    scene = waiting()
    reached = led_to(scene), led_to(scene, NEXT)
    for raw in scene.cluster.find("Deployment"):
        if raw["metadata"]["labels"][SERVING_LABEL] == reached[1]:
            scene.cluster.mark_deleted("Deployment", NAMESPACE, raw["metadata"]["name"])
    scene.turn()
    scene.run(waits).settle(10)
    assert (led_to(scene), led_to(scene, NEXT)) == reached
    assert scene.events().count("AwaitingAcknowledgement") == 1


@pytest.mark.parametrize("strategy", ["BlueGreen", "Recreate"])
def test_another_strategy_moves_clients_to_what_waited(strategy: str) -> None:
    scene = waiting()
    offered = led_to(scene, NEXT)
    scene.edit(shadow(5, strategy=strategy))
    scene.run(is_ready).settle(60)
    assert (led_to(scene), led_to(scene, NEXT), servers(scene)) == (offered, "", {offered})


def test_what_is_refused_after_it_was_offered_is_not_offered_any_more() -> None:
    scene = waiting()
    offered = led_to(scene, NEXT)
    scene.world.image_id, scene.world.served_offset = "sha256:moved", 0.2
    for raw in scene.cluster.find("Pod"):
        if raw["metadata"]["labels"].get(SERVING_LABEL) == offered:
            scene.cluster.remove("Pod", NAMESPACE, raw["metadata"]["name"])
    scene.run(lambda scene: scene.condition("Verified") == "False OutsideTolerance").settle(5)
    assert not led_to(scene, NEXT)
    assert not scene.status.served.next_url


def test_what_serves_is_watched_while_a_newer_revision_waits() -> None:
    watched = {"verification": {"intervalSeconds": 60}}
    scene = Scene({**shadow(), **watched}).run(is_ready).settle(5)
    scene.edit({**shadow(5), **watched})
    scene.run(waits)
    scene.cluster.swapped = "other weights"
    scene.run(lambda scene: scene.status.phase == "Degraded")
    assert scene.condition("Verified") == "False CanariesDiffer"
    assert "spec.stages.deploy.pinRevision" in scene.message("Verified")
    scene.cluster.swapped = ""
    scene.run(waits)


def test_a_server_that_has_drained_goes_also_beside_an_invalid_manifest() -> None:
    scene = waiting()
    new = led_to(scene, NEXT)
    scene.edit(shadow(5, acknowledgedVectorSpace=scene.status.served.candidate_vector_space, drainSeconds=600))
    scene.run(is_ready).settle(3)
    scene.edit(shadow(5, pinRevision=77))
    scene.run(is_stalled)
    scene.settle(30)
    assert servers(scene) == {new}


def test_where_recreate_left_no_server_the_index_is_still_of_the_old_space() -> None:
    scene = a_scene(stages={"deploy": {"strategy": "Recreate"}}).run(is_ready).settle(3)
    scene.world.served_offset = 0.2
    scene.edit(a_spec(stages={"deploy": {"strategy": "Recreate"}, "finetune": {"epochs": 5}}))
    scene.run(is_stalled)
    scene.world.served_offset = 0.0
    scene.edit(shadow(7))
    scene.run(waits)
    assert "clients reach no server" in scene.message("Verified")
    scene.edit(shadow(7, acknowledgedVectorSpace=scene.status.served.candidate_vector_space))
    scene.run(is_ready)


def test_nobody_is_sent_to_a_strangers_service() -> None:
    scene = Scene(shadow()).run(is_ready).settle(5)
    meta = {"name": NEXT, "namespace": NAMESPACE}
    scene.cluster.add(
        {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"selector": {"theirs": "yes"}}}
    )
    scene.edit(shadow(5))
    scene.run(lambda scene: scene.condition("Validated") == "False ForeignObject").settle(5)
    assert scene.status.served.next_url == ""
    assert "AwaitingAcknowledgement" not in scene.events()
    scene.cluster.remove("Service", NAMESPACE, NEXT)
    scene.run(waits).settle(5)
    assert led_to(scene, NEXT)
    assert scene.status.served.next_url
    assert scene.events().count("AwaitingAcknowledgement") == 1


def test_another_server_of_the_same_model_is_offered_when_it_is_verified() -> None:
    scene = waiting()
    old, offered = led_to(scene), led_to(scene, NEXT)
    scene.edit(shadow(5, modelName="handbook-5"))
    scene.run(lambda scene: offered not in servers(scene))
    assert not led_to(scene, NEXT)
    assert not scene.status.served.next_url
    scene.run(waits).settle(5)
    assert led_to(scene) == old
    assert servers(scene) == {old, led_to(scene, NEXT)}
