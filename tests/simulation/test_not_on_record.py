"""What was done in a pass whose status was lost, when the next pass is about something else by then."""

from __future__ import annotations

from typing import Any

import pytest
from simulation.endings import HANG
from simulation.fake_cluster import Call, Crash
from simulation.scene import Scene, a_scene, a_spec, is_ready

from embedding_operator.cluster.errors import Conflict, Unavailable
from embedding_operator.resource.api import KIND
from embedding_stages.contract import Stage

LOST = [
    Conflict("update", KIND, "", "", "somebody was faster"),
    Unavailable("update", KIND, "", "", "away"),
    Crash(),
]
IDS = ["conflict", "away", "crash"]


class LosesAfterCreating:
    """A hook that loses the status of the pass that creates a stage's Job, in the moment of an edit."""

    def __init__(self, scene: Scene, stage: Stage, error: BaseException, edit: dict[str, Any]) -> None:
        self.scene, self.stage, self.error, self.edit = scene, stage, error, edit
        self.created = self.lost = ""

    def __call__(self, call: Call, when: str) -> None:
        if (call.verb, call.kind, when) == ("create", "Job", "after") and f"-{self.stage}-" in call.name:
            self.created = call.name
        elif (call.verb, when) == ("status", "before") and self.created and not self.lost:
            self.lost = self.created
            self.scene.edit(self.edit)
            raise self.error


@pytest.mark.parametrize("error", LOST, ids=IDS)
@pytest.mark.parametrize(
    ("stage", "edit"),
    [
        (Stage.FINETUNE, {"finetune": {"epochs": 5}}),
        (Stage.SDG, {"sdg": {"provider": {"extractive": {}}, "pairsPerDocument": 9}}),
    ],
    ids=["finetune", "sdg"],
)
def test_the_job_of_an_edit_that_was_taken_back_ends(stage: Stage, edit: dict[str, Any], error: BaseException) -> None:
    scene = a_scene().run(is_ready).settle(3)
    scene.will(stage, *[HANG] * 3)
    scene.cluster.hook = hook = LosesAfterCreating(scene, stage, error, a_spec())
    scene.edit(a_spec(stages=edit))
    scene.run(lambda _: bool(hook.lost)).run(is_ready).settle(5)
    assert hook.lost not in [raw["metadata"]["name"] for raw in scene.cluster.find("Job")]
