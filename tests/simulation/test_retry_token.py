"""spec.retryToken: what failed, and the verification, once more, without another edit."""

from __future__ import annotations

import pytest
from simulation.endings import BAD_INPUT
from simulation.scene import a_scene, a_spec, is_ready, is_stalled

from embedding_stages.contract import Stage


def test_another_retry_token_runs_what_failed_again_and_nothing_else() -> None:
    scene = a_scene()
    scene.will(Stage.PREP, BAD_INPUT)
    scene.run(is_stalled)
    before = len(scene.cluster.created_jobs)
    scene.edit(a_spec(retryToken="monday"))
    scene.run(is_ready)
    again = [name.split("-")[1] for name in scene.cluster.created_jobs[before:]]
    assert again == ["prep", "finetune", "eval", "export", "verify"]


@pytest.mark.parametrize(
    ("tokens", "verified"),
    [
        (["monday"], 2),
        (["monday", "tuesday"], 3),
        (["monday", "monday"], 2),
        (["monday", None], 2),
        (["monday", None, "monday"], 2),
        (["monday", None, "tuesday"], 3),
        ([None], 1),
    ],
)
def test_another_retry_token_verifies_what_is_ready_again(tokens: list[str | None], verified: int) -> None:
    scene = a_scene().run(is_ready)
    before = len(scene.cluster.created_jobs)
    for number, token in enumerate(tokens):
        scene.edit(a_spec(tolerance={"atOne": f"0.0{number + 3}"}, **({"retryToken": token} if token else {})))
        scene.run(is_ready)
    assert len(scene.attempts(Stage.VERIFY)) == verified
    assert {name.split("-")[1] for name in scene.cluster.created_jobs[before:]} <= {"verify"}


def test_a_retry_token_that_comes_while_it_runs_asks_once() -> None:
    scene = a_scene().run(is_ready)
    scene.edit(a_spec(retryToken="monday", stages={"finetune": {"epochs": 5}}))
    scene.running(Stage.FINETUNE)
    scene.edit(a_spec(retryToken="monday"))
    scene.run(is_ready).settle(3)
    assert len(scene.attempts(Stage.VERIFY)) == 2


def test_a_measurement_that_was_out_of_tolerance_is_made_again_by_a_token() -> None:
    scene = a_scene()
    scene.world.served_offset = 0.3
    scene.run(is_stalled)
    scene.world.served_offset = 0.0
    scene.edit(a_spec(retryToken="monday"))
    scene.run(is_ready)
    assert len(scene.attempts(Stage.VERIFY)) == 2
