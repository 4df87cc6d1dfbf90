"""The server that clients reach was measured again and refused: that is said until another one takes its place."""

from __future__ import annotations

import json
from typing import Any

import pytest
from simulation.clients import a_spec_of
from simulation.endings import BAD_INPUT
from simulation.fake_cluster import NAMESPACE
from simulation.scene import NAME, Scene, a_scene, a_spec, is_ready, is_stalled, stage_is

from embedding_operator.resource.api import KIND
from embedding_stages.contract import Stage

WIDE = {"atOne": "0.2", "atFiveAndAbove": "0.2"}
REFUSED = "False OutsideTolerance"


def refused(**deploy: Any) -> Scene:
    """Revision 1 serves; the tolerance of revision 2 refuses it."""
    scene = a_scene(tolerance=WIDE, stages={"deploy": deploy})
    scene.world.served_offset = -0.1
    scene.run(is_ready)
    scene.edit(a_spec(stages={"deploy": deploy}))
    scene.run(is_stalled)
    assert told(scene) == ("Degraded", REFUSED)
    assert scene.status.served.refused["reason"] == "OutsideTolerance"
    return scene


def told(scene: Scene) -> tuple[str, str]:
    return scene.status.phase, scene.condition("Verified")


def test_it_is_said_while_another_revision_is_made_until_that_one_serves() -> None:
    scene = refused()
    scene.world.served_offset = 0.0
    scene.edit(a_spec_of(5))
    scene.running(Stage.FINETUNE)
    assert told(scene) == ("Degraded", REFUSED)
    assert scene.condition("Ready") == REFUSED
    assert scene.condition("Reconciling").startswith("True")
    assert scene.condition("Stalled") == "absent"
    assert "revision 1, which serves clients, was measured again and refused: " in scene.message("Verified")
    scene.release()
    scene.run(is_ready)
    assert scene.status.served.refused == {}


INVALID = a_spec() | {"tolerance": {"atOne": "-1"}}
EDITS = {
    "not valid": INVALID,
    "suspended": a_spec(suspend=True),
    "of another number of epochs, suspended": a_spec_of(5) | {"suspend": True},
}


@pytest.mark.parametrize("edit", EDITS)
def test_it_is_said_after_an_edit_that_measures_nothing(edit: str) -> None:
    scene = refused()
    scene.edit(EDITS[edit])
    scene.settle(5)
    assert told(scene) == ("Degraded", REFUSED)
    writes = scene.writes()
    scene.settle(30)
    assert scene.writes() == writes


def test_an_edit_back_forgets_it() -> None:
    scene = refused()
    scene.edit(a_spec(tolerance=WIDE))
    scene.run(is_ready)
    assert scene.status.served.refused == {}
    assert len(scene.ran(Stage.VERIFY)) == 2  # that of the smaller tolerance was the second


def test_vectors_that_the_manifest_accepts_no_more_are_said_and_forgotten_likewise() -> None:
    scene = a_scene(tolerance={"minCosine": "0.9"})
    scene.world.canary_cosine = 0.95
    scene.run(is_ready)
    scene.edit(a_spec())
    scene.run(is_stalled)
    assert told(scene) == ("Degraded", "False VectorsDiffer")
    assert scene.status.served.refused["reason"] == "VectorsDiffer"
    scene.edit(a_spec(tolerance={"minCosine": "0.9"}))
    scene.run(is_ready)
    assert scene.status.served.refused == {}
    assert len(scene.ran(Stage.FINETUNE)) == 1


def test_another_measurement_that_is_right_forgets_it() -> None:
    scene = refused()
    scene.world.served_offset = 0.0  # the server's fault has passed
    scene.edit(a_spec(retryToken="once more"))
    scene.run(is_ready)
    assert scene.status.served.refused == {}


def test_it_is_said_beside_what_the_candidate_waits_for() -> None:
    scene = refused(strategy="Shadow")
    scene.world.served_offset = 0.0
    scene.edit(a_spec_of(5, strategy="Shadow"))
    scene.run(lambda scene: bool(scene.status.served.next_url)).settle(5)
    assert told(scene) == ("Degraded", REFUSED)
    assert "revision 1, which serves clients" in scene.message("Verified")
    assert "acknowledgedVectorSpace" in scene.message("Verified")
    space = scene.status.served.candidate_vector_space
    scene.edit(a_spec_of(5, strategy="Shadow", acknowledgedVectorSpace=space))
    scene.run(is_ready)
    assert scene.status.served.refused == {}


def test_a_candidate_that_is_refused_too_is_what_is_told() -> None:
    scene = refused()
    scene.edit(a_spec_of(5))
    scene.run(is_stalled)
    assert told(scene) == ("Degraded", REFUSED)
    assert scene.message("Verified").endswith("the revision gets no traffic")
    assert scene.status.served.refused["reason"] == "OutsideTolerance"


def test_of_a_server_that_strategy_recreate_has_removed_nothing_is_remembered() -> None:
    scene = refused(strategy="Recreate")
    scene.world.served_offset = 0.0
    scene.edit(a_spec_of(5, strategy="Recreate"))
    scene.run(is_ready)
    assert scene.status.served.refused == {}


@pytest.mark.parametrize("edit", ["not valid", "suspended"])
def test_so_is_a_server_whose_canaries_differ(edit: str) -> None:
    scene = a_scene(verification={"intervalSeconds": 60}).run(is_ready).settle(20)
    scene.cluster.swapped = "other weights"
    scene.run(lambda scene: told(scene) == ("Degraded", "False CanariesDiffer"))
    scene.edit(EDITS[edit] | {"verification": {"intervalSeconds": 60}})
    scene.settle(5)
    assert told(scene) == ("Degraded", "False CanariesDiffer")


@pytest.mark.parametrize("edit", [a_spec_of(5), a_spec(retryToken="once more")], ids=["another revision", "once more"])
def test_a_measurement_that_fails_is_told_before_it(edit: dict[str, Any]) -> None:
    scene = refused()
    scene.will(Stage.VERIFY, *[BAD_INPUT] * 4)
    scene.edit(edit)
    scene.run(stage_is(Stage.VERIFY, "Failed")).settle(3)
    assert told(scene) == ("Degraded", "False CorpusEmpty")
    assert scene.condition("Ready") == "False CorpusEmpty"


def test_a_stage_that_fails_is_what_stalls() -> None:
    scene = refused()
    scene.will(Stage.FINETUNE, *[BAD_INPUT] * 4)
    scene.edit(a_spec_of(5))
    scene.run(stage_is(Stage.FINETUNE, "Failed")).settle(3)
    assert told(scene) == ("Degraded", REFUSED)
    assert scene.condition("Stalled") == scene.condition("Ready").replace("False", "True") == "True CorpusEmpty"


def test_an_acknowledgement_of_another_space_is_an_event_beside_it() -> None:
    scene = refused(strategy="Shadow")
    scene.world.served_offset = 0.0
    before = len(scene.events())
    scene.edit(a_spec_of(5, strategy="Shadow", acknowledgedVectorSpace="0123456789abcdef"))
    scene.run(lambda scene: bool(scene.status.served.next_url)).settle(5)
    assert "AcknowledgementMismatch" in scene.events()[before:]
    assert told(scene) == ("Degraded", "False AcknowledgementMismatch")


def test_the_cure_is_one_that_works_beside_another_revision() -> None:
    scene = refused()
    assert "widen spec.tolerance" in scene.message("Verified")
    scene.world.served_offset = 0.0
    scene.edit(a_spec_of(5))
    scene.running(Stage.FINETUNE)
    assert "widen spec.tolerance" not in scene.message("Verified")
    assert "spec.stages.deploy.pinRevision: 1" in scene.message("Verified")
    scene.edit(a_spec_of(5, pinRevision=1))
    scene.run(is_ready)
    assert scene.status.served.refused == {}


@pytest.mark.parametrize("odd", ["text", 5, [1], True, {"reason": 5}, {"reason": None, "message": None}, {"x": "y"}])
def test_what_somebody_made_of_it_ends_no_pass(odd: object) -> None:
    scene = a_scene().run(is_ready).settle(3)

    def bend(raw: dict[str, Any]) -> None:
        record = json.loads(raw["status"]["record"])
        record["served"] |= {"refused": odd, "canaries": odd}
        raw["status"]["record"] = json.dumps(record)

    scene.cluster.change(KIND, NAMESPACE, NAME, bend)
    scene.edit(a_spec_of(5))
    scene.settle(5).run(is_ready)
    assert scene.status.served.refused == {}


@pytest.mark.parametrize("forked", [False, True])
def test_a_conflict_of_the_status_is_looked_into(forked: bool) -> None:
    scene = a_scene().run(is_ready).settle(5)
    scene = scene.fork() if forked else scene
    scene.deaf_to = KIND
    scene.cluster.change(KIND, NAMESPACE, NAME, lambda raw: raw["metadata"].update(annotations={"a": "b"}))
    scene.world.server = "down"
    scene.settle(20)
    assert scene.status.phase == "Degraded"
