"""What people are told in moments that nobody likes: a gap, a suspension, a server that measures otherwise."""

from __future__ import annotations

from typing import Any

import pytest
from simulation.clients import a_spec_of, led_to, servers
from simulation.endings import BAD_INPUT, BUG, DRAINED, LOST, PENDING, SILENT, Ending
from simulation.fake_cluster import NAMESPACE, Call
from simulation.scene import NAME, Scene, a_scene, a_spec, is_ready, stage_is

from embedding_operator.cluster.errors import QuotaExceeded
from embedding_operator.resource.api import KIND
from embedding_operator.resource.labels import SERVING_LABEL
from embedding_operator.resource_metrics import row_of
from embedding_stages.contract import Stage

RECREATE = {"strategy": "Recreate"}
EDITED = a_spec_of(5, **RECREATE)


def in_the_gap() -> Scene:
    scene = Scene(a_spec_of(3, **RECREATE)).run(is_ready).settle(3)
    scene.edit(a_spec_of(5, **RECREATE))
    return scene.run(lambda scene: scene.condition("Deployed") == "Unknown ReplacingRevision")


def test_a_gap_that_ends_by_itself_is_no_failure() -> None:
    scene = in_the_gap()
    assert (scene.status.phase, row_of(scene.status).available) == ("Verifying", False)
    scene.run(is_ready)
    assert row_of(scene.status).available is True
    assert "ActiveUnavailable" not in scene.events()


def _crashes(scene: Scene) -> None:
    scene.world.server = "crash"


def _measures_otherwise(scene: Scene) -> None:
    scene.world.served_offset = -0.3


def _is_suspended(scene: Scene) -> None:
    scene.edit({**a_spec_of(5, **RECREATE), "suspend": True})


def _is_edited_wrongly(scene: Scene) -> None:
    scene.edit(a_spec_of(5, pinRevision=77, **RECREATE))


def _has_no_quota(scene: Scene) -> None:
    def full(call: Call, when: str) -> None:
        if (call.verb, call.kind, when) == ("apply", "Deployment", "before") and scene.resource["spec"] == EDITED:
            raise QuotaExceeded("apply", "Deployment", NAMESPACE, call.name, "exceeded quota: gpus")

    scene.cluster.hook = full


def _has_no_quota_for_pods(scene: Scene) -> None:
    scene.world.refuses_pods = 'pods "x" is forbidden: exceeded quota: gpus, requested: 1, used: 8, limited: 8'


def _waits_to_be_acknowledged(scene: Scene) -> None:
    scene.edit(a_spec_of(5, strategy="Shadow"))


def _fails_to_train(scene: Scene) -> None:
    scene.will(Stage.FINETUNE, BAD_INPUT)
    scene.edit(a_spec_of(7, **RECREATE))


@pytest.mark.parametrize(
    ("happens", "condition"),
    [
        (_crashes, "Deployed"),
        (_measures_otherwise, "Verified"),
        (_is_suspended, "Deployed"),
        (_is_edited_wrongly, "Deployed"),
        (_fails_to_train, "Trained"),
        (_has_no_quota, "Deployed"),
        (_has_no_quota_for_pods, "Deployed"),
        (_waits_to_be_acknowledged, "Verified"),
    ],
)
def test_a_gap_that_nothing_ends_is_told_with_its_cure(happens: Any, condition: str) -> None:
    scene = in_the_gap()
    happens(scene)
    scene.settle(40)
    assert (scene.status.phase, row_of(scene.status).available) == ("Degraded", False)
    assert not scene.condition(condition).startswith("True")
    assert "spec.stages.deploy.pinRevision: 1" in scene.message(condition)
    assert scene.events().count("ActiveUnavailable") == 1
    writes = len(scene.history)
    scene.settle(20)
    assert len(scene.history) == writes
    scene.world.server, scene.world.served_offset, scene.world.refuses_pods = "ready", 0.0, ""
    scene.cluster.hook = lambda call, when: None
    scene.edit(a_spec_of(5, pinRevision=1, **RECREATE))
    scene.run(is_ready)
    assert servers(scene) == {led_to(scene)}


def test_what_clients_reach_and_measures_otherwise_is_degraded() -> None:
    scene = a_scene().run(is_ready).settle(3)
    scene.world.image_id, scene.world.served_offset = "sha256:moved", -0.3
    for pod in scene.cluster.find("Pod"):
        if SERVING_LABEL in pod["metadata"]["labels"]:
            scene.world._remove(pod)
    scene.settle(40)
    assert scene.condition("Verified") == "False OutsideTolerance"
    assert scene.status.served.url
    assert scene.status.phase == "Degraded"


def test_a_candidate_that_measures_otherwise_leaves_what_serves_alone() -> None:
    scene = a_scene().run(is_ready).settle(3)
    scene.world.served_offset = -0.3
    scene.edit(a_spec_of(5))
    scene.settle(60)
    assert scene.condition("Verified") == "False OutsideTolerance"
    assert scene.status.phase == "Blocked"


@pytest.mark.parametrize(
    ("gates", "quality", "said"),
    [
        ({}, None, "the model passed its gates; "),
        ({"onFail": "Warn"}, 0.5, "WorseThanBase: "),
        ({"enabled": False}, 0.5, "spec.gates.enabled is false"),
    ],
)
def test_ready_says_of_gates_what_is_true(gates: dict[str, Any], quality: float | None, said: str) -> None:
    scene = a_scene(gates=gates) if gates else a_scene()
    if quality is not None:
        scene.world.tuned_quality = quality
    scene.run(is_ready)
    assert scene.message("Ready").startswith(said)
    assert scene.message("Ready").endswith("measured the same as the evaluated one, within tolerance")


@pytest.mark.parametrize("when", ["at the start", "while it trains", "once it serves"])
def test_a_suspension_is_told_with_its_cure(when: str) -> None:
    scene = a_scene() if when != "at the start" else Scene(a_spec(suspend=True))
    if when == "while it trains":
        scene.running(Stage.FINETUNE)
    if when == "once it serves":
        scene.run(is_ready)
    scene.edit(a_spec(suspend=True))
    scene.settle(5)
    assert (scene.status.phase, scene.status.progress) == ("Suspended", "Suspended")
    assert scene.condition("Ready") == "Unknown Suspended"
    assert "spec.suspend is true: set it to false to go on" in scene.message("Ready")
    assert ("revision 1 goes on serving" in scene.message("Ready")) == (when == "once it serves")
    scene.edit(a_spec())
    scene.run(is_ready)


@pytest.mark.parametrize("edit", ["first", "edited"])
def test_a_refused_measurement_is_an_event(edit: str) -> None:
    scene = a_scene()
    if edit == "edited":
        scene.run(is_ready).settle(3)
    scene.world.served_offset = -0.3
    if edit == "edited":
        scene.edit(a_spec_of(5))
    scene.run(lambda scene: scene.condition("Ready") == "False OutsideTolerance").settle(20)
    assert scene.events().count("OutsideTolerance") == 1


def test_progress_tells_what_a_stage_waits_for() -> None:
    scene = a_scene()
    scene.will(Stage.FINETUNE, DRAINED, PENDING)
    scene.run(lambda scene: scene.condition("Ready") == "Unknown GPUUnschedulable")
    assert scene.status.progress == "GPUUnschedulable"
    assert stage_is(Stage.FINETUNE, "Waiting")(scene)


@pytest.mark.parametrize("ending", [SILENT, LOST, BUG, Ending("exit", exit_code=1)], ids=["silent", "lost", "bug", "1"])
@pytest.mark.parametrize("own_image", [False, True], ids=["ours", "an image of the user's"])
def test_a_failure_without_a_field_says_what_to_do(ending: Ending, *, own_image: bool) -> None:
    scene = a_scene(stages={"prep": {"image": "python:3.11"}}) if own_image else a_scene()
    scene.will(Stage.PREP, *[ending] * 6)
    scene.run(lambda scene: scene.status.stage(Stage.PREP).state == "Failed", turns=400)
    assert "spec.retryToken" in scene.message("Ready")
    assert "status.lastFailure" in scene.message("Ready")
    assert ("spec.stages.prep.image names python:3.11" in scene.message("Ready")) == own_image


def test_a_measurement_outside_the_tolerance_says_what_to_do() -> None:
    scene = a_scene()
    scene.world.served_offset = -0.3
    scene.run(lambda scene: scene.condition("Ready") == "False OutsideTolerance")
    for field in ("spec.tolerance", "spec.retryToken"):
        assert field in scene.message("Ready")


def test_a_workspace_that_was_left_behind_can_be_kept() -> None:
    """As after `kubectl delete --cascade=orphan`."""
    scene = a_scene().run(is_ready)
    for ref, raw in list(scene.cluster.objects.items()):
        if (raw["metadata"].get("ownerReferences") or [{}])[0].get("kind") == KIND:
            scene.cluster.change(*ref, lambda raw: raw["metadata"].pop("ownerReferences"))
    scene.cluster.remove(KIND, NAMESPACE, NAME)
    scene.cluster.remove("Service", NAMESPACE, NAME)
    scene.operator.hear()
    scene.create(a_spec())
    scene.run(lambda scene: "PersistentVolumeClaim" in scene.message("Ready"))
    assert f"name it in spec.storage.existingClaim ({NAME}-workspace)" in scene.message("Ready")
