"""Clients are moved to another vector space when the owner of the index says so, and back again without training."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from simulation.clients import led_to, servers
from simulation.fake_cluster import NAMESPACE, Crash
from simulation.golden import Nth, end_state
from simulation.scene import NAME, Scene, a_scene, a_spec, is_ready, is_stalled

from embedding_operator.resource.labels import SERVING_LABEL
from embedding_stages.contract import ENV_VECTOR_SPACE, Stage

NEXT = f"{NAME}-next"


def shadow(epochs: int = 3, **deploy: Any) -> dict[str, Any]:
    return a_spec(stages={"finetune": {"epochs": epochs}, "deploy": {"strategy": "Shadow", **deploy}})


def waits(scene: Scene) -> bool:
    return scene.condition("Verified") == "Unknown AwaitingAcknowledgement"


def waiting() -> Scene:
    """A first revision serves, a second one waits."""
    scene = Scene(shadow()).run(is_ready)
    scene.edit(shadow(5))
    return scene.run(waits).settle(10)


def test_the_first_revision_of_all_waits_for_nobody() -> None:
    scene = Scene(shadow()).run(is_ready)
    assert led_to(scene)
    assert not led_to(scene, NEXT)
    assert len(scene.status.served.vector_space) == 16


def test_a_verified_candidate_is_offered_and_clients_stay_where_they_are() -> None:
    scene = waiting()
    served = scene.status.served
    assert served.next_url == f"http://{NEXT}.{NAMESPACE}:8000/v1/embeddings"
    assert served.url
    assert led_to(scene) != led_to(scene, NEXT)
    assert servers(scene) == {led_to(scene), led_to(scene, NEXT)}
    assert served.candidate_vector_space != served.vector_space
    assert served.reindex["required"] is True
    assert [served.reindex[key] for key in ("passages", "tokens", "seconds")] == [2000, 200_000, 40]
    assert scene.status.phase == "Verifying"
    assert f'acknowledgedVectorSpace: "{served.candidate_vector_space}"' in scene.message("Ready")
    assert scene.condition("Stalled") == "absent"
    writes = scene.writes()
    scene.settle(30)
    assert scene.writes() == writes


def test_the_acknowledgement_moves_clients_in_one_write_and_the_old_server_drains() -> None:
    scene = waiting()
    old, new = led_to(scene), led_to(scene, NEXT)
    scene.edit(shadow(5, acknowledgedVectorSpace=scene.status.served.candidate_vector_space, drainSeconds=600))
    scene.run(is_ready).settle(3)
    assert led_to(scene) == new
    assert not led_to(scene, NEXT)
    assert servers(scene) == {old, new}
    assert scene.status.served.draining_until
    scene.settle(80)
    assert servers(scene) == {new}
    assert not scene.status.served.draining_until
    assert len(scene.ran(Stage.FINETUNE)) == 2


def test_a_candidate_of_the_same_vector_space_needs_nobodys_word() -> None:
    scene = Scene(shadow()).run(is_ready)
    scene.edit(a_spec(stages={"deploy": {"strategy": "Shadow"}, "export": {"precision": "fp16"}}))
    scene.run(is_ready)
    assert scene.status.served.active_revision == 2


def test_an_acknowledgement_of_another_space_names_the_field_and_both_spaces() -> None:
    scene = waiting()
    served = scene.status.served
    scene.edit(shadow(5, acknowledgedVectorSpace="0123456789abcdef"))
    scene.run(is_stalled)
    assert scene.condition("Verified") == "False AcknowledgementMismatch"
    message = scene.message("Verified")
    assert "spec.stages.deploy.acknowledgedVectorSpace: 0123456789abcdef" in message
    assert served.candidate_vector_space in message
    assert served.vector_space in message
    assert led_to(scene) != led_to(scene, NEXT)
    scene.edit(shadow(5, acknowledgedVectorSpace=served.candidate_vector_space))
    scene.run(is_ready)


def test_a_candidate_that_is_replaced_before_it_was_acknowledged_is_not_offered_any_more() -> None:
    scene = waiting()
    old, first = led_to(scene), led_to(scene, NEXT)
    scene.edit(shadow(7))
    scene.turn()
    scene.run(waits).settle(5)
    assert led_to(scene) == old
    assert led_to(scene, NEXT) not in ("", first)
    assert first not in servers(scene)


def pinned(revision: int, **deploy: Any) -> dict[str, Any]:
    return shadow(5, pinRevision=revision, **deploy)


def moved() -> tuple[Scene, str, str]:
    """(scene, vector space of the first revision, of the second, which serves)."""
    scene = waiting()
    first, second = scene.status.served.vector_space, scene.status.served.candidate_vector_space
    scene.edit(shadow(5, acknowledgedVectorSpace=second))
    scene.run(is_ready).settle(60)
    return scene, first, second


def test_a_pinned_revision_serves_again_without_training() -> None:
    scene, first, second = moved()
    assert [item["vectorSpace"] for item in scene.status.history] == [first, second]
    jobs = list(scene.cluster.created_jobs)
    scene.edit(pinned(1, acknowledgedVectorSpace=first))
    scene.run(is_ready).settle(60)
    assert scene.status.served.vector_space == first
    assert scene.status.served.active_revision == 1
    assert {name.split("-")[1] for name in scene.cluster.created_jobs if name not in jobs} <= {"verify"}
    assert scene.states()["finetune"] == "Skipped"
    assert scene.condition("QualityGatePassed") == "True GateDisabled"
    scene.edit(shadow(5, acknowledgedVectorSpace=second))
    scene.run(is_ready)
    assert scene.status.served.vector_space == second
    trained = [request.settings["epochs"] for request in scene.ran(Stage.FINETUNE)]
    assert trained in ([3, 5], [3, 5, 5])  # the folder of the second is found again


def test_a_pinned_revision_waits_for_the_index_like_every_other() -> None:
    scene, first, _ = moved()
    before = led_to(scene)
    scene.edit(pinned(1))
    scene.run(waits).settle(5)
    assert scene.status.served.candidate_vector_space == first
    assert led_to(scene) == before


def test_a_revision_without_a_record_cannot_be_pinned() -> None:
    scene, _, _ = moved()
    before = led_to(scene)
    scene.edit(pinned(9))
    scene.run(is_stalled)
    assert scene.condition("Validated") == "False PinnedRevisionMissing"
    assert "spec.stages.deploy.pinRevision" in scene.message("Validated")
    assert "(1, 2)" in scene.message("Validated")
    assert led_to(scene) == before
    assert scene.status.served.url


def test_a_pinned_revision_whose_artefacts_are_gone_leaves_what_serves() -> None:
    scene, first, _ = moved()
    before = led_to(scene)
    for path in list(scene.world.volume):
        if path.startswith("export/"):
            scene.world.volume[path] = "sha256:gone"
    scene.edit(pinned(1, acknowledgedVectorSpace=first))
    scene.run(lambda scene: scene.condition("Deployed") == "False PinnedRevisionGone").settle(10)
    assert "spec.stages.deploy.pinRevision: revision 1 cannot be served again" in scene.message("Deployed")
    assert led_to(scene) == before


@pytest.mark.parametrize("strategy", ["BlueGreen", "Recreate"])
def test_without_shadow_the_status_says_that_the_index_is_to_be_made_anew_until_that_is_acknowledged(
    strategy: str,
) -> None:
    deploy = {"strategy": strategy}
    scene = a_scene(stages={"deploy": deploy}).run(is_ready)
    scene.edit(a_spec(stages={"deploy": deploy, "finetune": {"epochs": 5}}))
    scene.run(is_ready).settle(3)
    served = scene.status.served
    assert served.reindex["required"] is True
    assert served.vector_space in served.reindex["reason"]
    assert scene.events().count("ReindexRequired") == 1
    done = deploy | {"acknowledgedVectorSpace": served.vector_space}
    scene.edit(a_spec(stages={"deploy": done, "finetune": {"epochs": 5}}))
    scene.run(is_ready)
    assert scene.status.served.reindex == {}


# The whole story, and the same with a fault at each write.


@dataclass
class Story:
    """To a second revision, its acknowledgement, and back: copies of the scene from before each write."""

    first: str = ""  # vector space of the first revision
    second: str = ""
    before: list[tuple[int, Scene]] = field(default_factory=list)  # (chapter, scene)

    def edits(self) -> list[dict[str, Any]]:
        return [
            shadow(5),
            shadow(5, acknowledgedVectorSpace=self.second),
            pinned(1, acknowledgedVectorSpace=self.first),
        ]

    def tell(self, scene: Scene, chapter: int = 0, *, keep: bool = False) -> Scene:
        for number, ends in enumerate((is_ready, waits, is_ready, is_ready)):
            if number < chapter:
                continue
            if number > chapter:
                scene.edit(self.edits()[number - 1])
                self._turn(scene, number, keep=keep)
            while not ends(scene):
                self._turn(scene, number, keep=keep)
            self.first = self.first or scene.status.served.vector_space
            self.second = self.second or scene.status.served.candidate_vector_space
        return scene.settle(15)

    def _turn(self, scene: Scene, chapter: int, *, keep: bool) -> None:
        earlier = scene.fork() if keep else scene
        scene.turn()
        if keep and chapter:  # what comes before the hand-over dies in test_crashes
            self.before += [(chapter, earlier)] * (scene.writes() - earlier.writes())

    def watch(self, scene: Scene, chapter: int) -> Scene:
        """Assert at every status write that the clients' Service reaches an acknowledged vector space."""
        permitted = {self.first} | ({self.second} if chapter >= 2 else set())

        def look(raw: dict[str, Any]) -> None:
            if asked := raw["spec"]["stages"]["deploy"].get("acknowledgedVectorSpace"):
                permitted.add(asked)
            if reached := led_to(scene):
                assert space_of(scene, reached) in permitted

        scene.cluster.on_status.append(look)
        return scene


def space_of(scene: Scene, label: str) -> str:
    """What a server was told of itself."""
    server = next(raw for raw in scene.cluster.find("Deployment") if raw["metadata"]["labels"][SERVING_LABEL] == label)
    (container,) = server["spec"]["template"]["spec"]["containers"]
    return str(next(item["value"] for item in container["env"] if item["name"] == ENV_VECTOR_SPACE))


def end_of(scene: Scene) -> Any:
    """What is left: objects, what is served, conditions. Not whether a stage's answer was taken once or found again."""
    objects, status = json.loads(end_state(scene))
    conditions = [(item["type"], item["status"], item["reason"]) for item in status["conditions"]]
    return objects, status["served"], status["history"], status["phase"], conditions


def test_a_crash_at_any_write_of_a_hand_over_ends_the_same_and_mixes_no_spaces() -> None:
    story = Story()
    wanted = end_of(story.tell(Scene(shadow()), keep=True))
    assert len(story.before) > 40
    for number, (chapter, before) in enumerate(story.before, start=story.before[0][1].writes()):
        for when in ("before", "after") if number % 4 == 0 else ("after",):
            scene = story.watch(before.fork(), chapter)
            scene.cluster.hook = Nth(number + 1 - scene.writes(), when, Crash())
            story.tell(scene, chapter)
            assert scene.crashes == 1, f"{when} write {number}"
            assert end_of(scene) == wanted, f"{when} write {number}"
            assert len(scene.ran(Stage.FINETUNE)) == 2
            assert len(scene.ran(Stage.EXPORT)) == 2
