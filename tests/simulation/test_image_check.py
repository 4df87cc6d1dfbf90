"""Wrong images of later stages are told while the first one runs. No work waits for it, and nothing of it is left."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from simulation.endings import HANG, PENDING
from simulation.fake_cluster import NAMESPACE, Call
from simulation.scene import IMAGES, NAME, Scene, a_scene, a_spec, is_ready, is_stalled
from simulation.test_refused_passes import refusing

from embedding_operator.cluster.errors import ClusterError, Forbidden, QuotaExceeded, Rejected, Unavailable
from embedding_operator.decide import training
from embedding_operator.decide.plan import Defaults
from embedding_operator.resource.api import KIND, SpecError
from embedding_operator.resource.labels import IMAGE_CHECK_LABEL
from embedding_operator.resource.pipeline import PIPELINE
from embedding_stages.contract import Stage

Raw = dict[str, Any]
MINE = "registry.test/mine:1"
NOT_FOUND = {"reason": "ErrImagePull", "message": f'failed to resolve reference "{MINE}": {MINE}: not found'}
AWAY = {"reason": "ImagePullBackOff", "message": f'Back-off pulling image "{MINE}": ErrImagePull: i/o timeout'}
OWN = {"finetune": {"image": MINE}}


def checks(scene: Scene) -> list[Raw]:
    """The pods that try images, those that there are now."""
    return [pod for pod in scene.cluster.find("Pod") if IMAGE_CHECK_LABEL in pod["metadata"]["labels"]]


def made(scene: Scene) -> list[str]:
    calls = scene.cluster.calls
    return [call.name for call in calls if (call.verb, call.kind) == ("create", "Pod")]


def images(scene: Scene) -> list[str]:
    (pod,) = checks(scene)
    return [item["image"] for item in pod["spec"]["containers"]]


def later(scene: Scene) -> None:
    """Half an hour."""
    scene.clock.now += timedelta(seconds=1800)
    scene.settle(5)


def wrong(scene: Scene) -> bool:
    return scene.condition("Validated") == "False ImagePullFailed"


def at_sdg(stages: Raw, **unpulled: Raw) -> Scene:
    """While sdg runs, for as long as it is not released."""
    scene = a_scene(stages=stages)
    scene.world.unpulled = {MINE: NOT_FOUND} | unpulled
    return scene.running(Stage.SDG)


def test_every_image_of_a_later_stage_is_tried_once_and_nothing_is_left() -> None:
    scene = a_scene(stages=OWN)
    scene.run(lambda scene: bool(checks(scene)))
    others = (Stage.SDG, Stage.PREP, Stage.EVAL, Stage.EXPORT, Stage.DEPLOY, Stage.VERIFY)
    assert images(scene) == [MINE, *(IMAGES[stage] for stage in others)]
    scene.run(is_ready).settle(20)
    assert checks(scene) == []
    assert len(made(scene)) == 1
    assert "note" not in scene.status.image_check
    scene.edit(a_spec(stages={**OWN, "finetune": {"image": MINE, "epochs": 5}}))
    scene.run(is_ready).settle(20)
    assert len(made(scene)) == 1, "each was seen"
    scene.edit(a_spec(stages={"finetune": {"image": "registry.test/next:1", "epochs": 5}, "inputs": {"retries": 1}}))
    scene.run(is_ready)
    assert len(scene.cluster.created_jobs) == len(set(scene.cluster.created_jobs))


def test_a_wrong_image_is_told_hours_before_its_stage_and_work_goes_on() -> None:
    scene = at_sdg(OWN).run(wrong)
    said = scene.message("Validated")
    for part in ("spec.stages.finetune.image: the image cannot be pulled", "not found", "correct the reference"):
        assert part in said
    assert (scene.status.phase, scene.status.current_stage) == ("Blocked", "sdg")
    assert scene.condition("Stalled") == "absent"
    assert scene.condition("Reconciling") == "True ImagePullFailed"
    scene.settle(10)
    assert scene.events().count("ImagePullFailed") == 1
    assert scene.states()["sdg"] == "Running"
    scene.edit(a_spec(stages={"finetune": {"image": "registry.test/right:1"}}))
    scene.run(lambda scene: not wrong(scene) and scene.status.revision == 2)
    scene.release()
    scene.run(is_ready)
    assert checks(scene) == []
    assert len(scene.attempts(Stage.SDG)) == 1


def test_all_wrong_images_stand_in_one_message() -> None:
    other = {"reason": "InvalidImageName", "message": "couldn't parse image name"}
    denied = {"reason": "ErrImagePull", "message": "pull access denied, repository does not exist"}
    stages = OWN | {"deploy": {"image": "registry.test/server:1"}}
    scene = at_sdg(stages, **{IMAGES[Stage.EVAL]: denied, "registry.test/server:1": other})
    scene.run(lambda scene: "deploy" in scene.message("Validated")).settle(3)
    said = scene.message("Validated")
    assert said.count("the image cannot be pulled") == 3
    assert "spec.stages.eval.image: the image cannot be pulled: pull access denied" in said
    assert "correct registry, tag or stageImages of its chart" in said


def test_an_image_that_comes_after_all_is_no_longer_told() -> None:
    scene = at_sdg(OWN).run(wrong)
    scene.world.unpulled = {}
    scene.run(lambda scene: scene.condition("Validated") == "True Valid")
    assert len(made(scene)) == 1
    scene.settle(3)
    assert checks(scene) == []


def test_a_wrong_image_is_told_for_longer_than_its_pod_lives_and_until_its_stage_gets_it() -> None:
    scene = at_sdg(OWN).run(wrong)
    later(scene)
    assert checks(scene) == []
    assert wrong(scene)
    scene.release()
    scene.run(is_ready)  # the stage's own node has it
    assert len(made(scene)) == 1


def test_a_registry_that_is_away_is_told_after_a_while() -> None:
    scene = at_sdg(OWN, **{MINE: AWAY}).run(lambda scene: bool(checks(scene)))
    began = scene.clock.now
    scene.run(wrong)
    assert 60 < (scene.clock.now - began).total_seconds() < 150
    assert "the image cannot be pulled: i/o timeout" in scene.message("Validated")


@pytest.mark.parametrize("error", [Forbidden, QuotaExceeded, Rejected, Unavailable])
def test_where_the_pod_is_refused_it_is_noted_and_nothing_else(error: type[ClusterError]) -> None:
    scene = a_scene(stages=OWN)
    scene.cluster.hook = refusing("create", "Pod", error, "no pods of that kind", "-images-")
    scene.run(is_ready).settle(5)
    assert "no pods of that kind" in scene.status.image_check["note"]
    assert scene.resource["status"]["imageCheck"] == {"note": scene.status.image_check["note"]}
    assert len(scene.cluster.created_jobs) == len(PIPELINE)
    assert scene.refusals == []
    assert "False" not in {item["status"] for status in scene.history for item in status["conditions"]}


def test_a_pod_that_may_not_be_removed_ends_by_itself_and_stops_nothing() -> None:
    scene = a_scene(stages=OWN)
    scene.cluster.hook = refusing("delete", "Pod", Forbidden, "cannot delete")
    scene.run(is_ready)
    (pod,) = checks(scene)
    assert pod["spec"]["activeDeadlineSeconds"] <= 3600
    scene.settle(3)
    writes = [call for call in scene.cluster.calls if call.writes and call.verb != "delete"]
    scene.settle(10)
    assert [call for call in scene.cluster.calls if call.writes and call.verb != "delete"] == writes


@pytest.mark.parametrize("how", ["gone", "unscheduled", "over"])
def test_a_pod_that_tells_nothing_is_given_up(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    status = {"phase": "Failed" if how == "over" else "Pending"}
    monkeypatch.setattr("simulation.world.pulled", lambda *_: status)
    scene = at_sdg(OWN)
    if how == "gone":
        scene.cluster.remove("Pod", NAMESPACE, checks(scene)[0]["metadata"]["name"])
    if how == "unscheduled":
        later(scene)
    scene.run(lambda scene: scene.status.image_check.get("state") == "Done")
    assert scene.status.image_check["note"]
    scene.release()
    scene.run(is_ready)
    assert (len(made(scene)), checks(scene)) == (1, [])


def test_a_stage_that_waits_for_room_gets_that_of_the_pod() -> None:
    scene = at_sdg(OWN).run(lambda scene: bool(checks(scene)))

    def full(call: Call, when: str) -> None:
        if when == "before" and call.verb == "create" and "-prep-" in call.name and checks(scene):
            raise QuotaExceeded("create", call.kind, NAMESPACE, call.name, "exceeded quota: team")

    scene.cluster.hook = full
    scene.release()
    scene.run(is_ready)
    assert checks(scene) == []


def test_it_is_off_where_the_chart_says_so_and_while_suspended() -> None:
    scene = a_scene(stages=OWN)
    scene.operator.reconciler.defaults = Defaults(images=IMAGES, check_images=False)
    scene.run(is_ready)
    assert (made(scene), scene.status.image_check) == ([], {})
    scene = at_sdg(OWN).run(wrong)
    scene.edit(a_spec(stages=OWN, suspend=True))
    scene.run(lambda scene: checks(scene) == [] and scene.status.phase == "Suspended")


def test_it_comes_after_the_image_of_the_first_stage_and_goes_with_its_resource() -> None:
    scene = a_scene(stages=OWN)
    scene.will(Stage.INPUTS, PENDING)
    scene.settle(10)
    assert made(scene) == []
    scene = at_sdg(OWN).run(wrong)
    scene.cluster.remove(KIND, NAMESPACE, NAME)
    scene.settle_without_resource()
    assert checks(scene) == []


def test_a_revision_of_other_images_removes_the_pod_of_the_one_before() -> None:
    scene = at_sdg(OWN).run(wrong)
    (first,) = (pod["metadata"]["name"] for pod in checks(scene))
    scene.edit(a_spec(stages={"finetune": {"image": "registry.test/other:1"}, "prep": {"margin": "0.9"}}))
    scene.release()
    scene.run(is_ready)
    assert first in made(scene)
    assert checks(scene) == []


def trying() -> Scene:
    """While sdg runs and a pod tries images, of which one does not come."""
    scene = at_sdg(OWN).run(wrong)
    assert checks(scene)
    return scene


def test_a_manifest_that_becomes_invalid_leaves_no_pod() -> None:
    scene = trying()
    scene.edit(a_spec(stages=OWN) | {"evaluation": {"kValues": [10, 5]}})
    scene.run(is_stalled).settle(3)
    assert checks(scene) == []


def test_a_model_that_the_server_does_not_take_leaves_no_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = trying()
    fault = SpecError("spec.stages.deploy.image", "takes another model")

    def refuses(*_: Any) -> None:
        raise fault

    monkeypatch.setattr(training, "check_takes", refuses)
    scene.run(is_stalled).settle(3)
    assert checks(scene) == []


def test_the_chart_may_switch_it_off_while_a_pod_tries_images() -> None:
    scene = trying()
    scene.restart()
    scene.operator.reconciler.defaults = Defaults(images=IMAGES, check_images=False)
    scene.settle(3)
    assert checks(scene) == []
    scene.release()
    scene.run(is_ready).settle(3)
    assert (len(made(scene)), checks(scene)) == (1, [])


def test_what_stops_everything_leaves_no_pod_and_the_images_are_tried_once_it_goes_on() -> None:
    scene = trying()
    scene.cluster.hook = refusing("create", "Job", Forbidden, "cannot create jobs")
    scene.release()
    scene.run(lambda scene: scene.condition("Validated") == "False Forbidden").settle(3)
    assert checks(scene) == []
    scene.cluster.hook = lambda call, when: None
    scene.will(Stage.PREP, HANG)
    scene.run(lambda scene: bool(checks(scene)))
    scene.release()
    scene.run(is_ready).settle(3)
    assert checks(scene) == []


def test_a_revision_that_the_dry_run_refuses_leaves_no_pod_of_the_one_before() -> None:
    scene = trying()
    scene.cluster.hook = refusing("try", "Deployment", Rejected, "denied by a policy")
    scene.edit(a_spec(stages={**OWN, "sdg": {"provider": {"extractive": {}}, "pairsPerDocument": 3}}))
    scene.run(lambda scene: scene.condition("Validated") == "False Rejected").settle(3)
    assert checks(scene) == []
    assert scene.attempts(Stage.SDG), "whose Job goes on"
