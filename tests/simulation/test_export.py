"""An export that falls back is served, and says so where people look."""

from __future__ import annotations

from simulation.scene import Scene, a_spec, is_ready

from embedding_operator.resource.conditions import EXPORTED
from embedding_stages.contract import Artefact, Stage

LEFT = "int8 with fp32 was left, fp32 was built instead: smallest cosine 0.97"


def test_a_fall_back_is_told_by_condition_warning_and_event() -> None:
    asked = {"quantization": "int8", "minCosine": 1, "onParityFail": "FallBack"}
    scene = Scene(a_spec(stages={"export": asked})).run(is_ready).settle(3)
    exported = scene.status.condition(EXPORTED)
    assert exported is not None
    assert (exported.status, exported.reason, exported.message) == ("True", "ParityFellBack", LEFT)
    assert [(item.stage, item.message) for item in scene.status.warnings] == [(Stage.EXPORT, LEFT)]
    assert "StageWarned" in scene.events()


def test_quantization_alone_makes_the_export_anew_with_the_training_set() -> None:
    scene = Scene(a_spec()).run(is_ready).settle(3)
    first = scene.digest(Stage.EXPORT, Artefact.SERVING_MODEL)
    scene.edit(a_spec(stages={"export": {"quantization": "int8"}}))
    scene.run(is_ready).settle(40)
    assert scene.digest(Stage.EXPORT, Artefact.SERVING_MODEL) != first
    assert [len(scene.ran(stage)) for stage in (Stage.FINETUNE, Stage.EXPORT)] == [1, 2]
