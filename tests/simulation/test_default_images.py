"""A default image that cannot be pulled: what the chart is corrected to is taken, and nothing that works is touched."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from simulation import pods
from simulation.clients import led_to
from simulation.fake_cluster import Crash
from simulation.golden import Nth
from simulation.scene import IMAGES, Scene, a_scene, a_spec, is_ready, stage_is

from embedding_operator.decide.plan import Defaults
from embedding_operator.resource.api import TORCH_SERVER
from embedding_operator.resource.labels import SERVING_LABEL
from embedding_stages.contract import Stage
from embedding_stages.contract.versions import CODE_VERSIONS

WRONG = "registry.test/"
RIGHT = {name: image.replace(WRONG, "registry.right/") for name, image in IMAGES.items()}
AT_CHART = "it is the operator's default image: correct registry, tag or stageImages"
JOBS = [stage for stage in Stage if stage is not Stage.DEPLOY]
VLLM = {"image": "team/vllm:1", "backend": {"vllm": {}}}
SERVERS: dict[str, tuple[dict[str, Any], str]] = {
    "onnx": ({}, RIGHT[Stage.DEPLOY]),
    "torch": ({"backend": {"torch": {}}}, RIGHT[TORCH_SERVER]),
    "vllm": (VLLM, "team/vllm:1"),
}


def correct(scene: Scene, **more: Any) -> Scene:
    """The chart is corrected, and the operator starts with other default images."""
    scene.restart()
    scene.operator.reconciler.defaults = Defaults(images=RIGHT, **more)
    return scene


def told(reason: str, kind: str) -> Any:
    return lambda scene: scene.condition(kind) == f"False {reason}"


def server_images(scene: Scene) -> list[tuple[str, str]]:
    """(of the check, of the server) of each Deployment."""
    pods = [raw["spec"]["template"]["spec"] for raw in scene.cluster.find("Deployment")]
    return [(pod["initContainers"][0]["image"], pod["containers"][0]["image"]) for pod in pods]


def pods_go(scene: Scene) -> None:
    """The node of the server's pods goes away, and no registry has their image any more."""
    scene.world.gone = (WRONG,)
    for pod in scene.cluster.find("Pod"):
        if SERVING_LABEL in pod["metadata"]["labels"]:
            scene.world._remove(pod)


def waits_for_its_image(stage: Stage, **sections: Any) -> Scene:
    scene = a_scene(**sections)
    scene.world.gone = (IMAGES[stage],)
    return scene.run(lambda scene: scene.status.stage(stage).reason == "ImagePullFailed")


def test_a_wrong_registry_is_cured_by_the_chart_alone() -> None:
    scene = a_scene(stages={stage.value: {"retries": 0} for stage in JOBS if stage is not Stage.SDG})
    scene.world.gone = (WRONG,)
    scene.run(told("ImagePullFailed", "DataReady")).run(told("ImagePullFailed", "Validated")).settle(3)
    assert AT_CHART in scene.message("DataReady")
    assert AT_CHART in scene.message("Validated")
    correct(scene).run(is_ready)
    assert {request.image for request in scene.world.requests} == {RIGHT[stage] for stage in JOBS}
    assert {stage: len(scene.attempts(stage)) for stage in JOBS} == dict.fromkeys(JOBS, 1) | {Stage.INPUTS: 2}
    assert server_images(scene) == [(RIGHT[Stage.DEPLOY], RIGHT[Stage.DEPLOY])]
    assert (scene.status.revision, dict(scene.status.last_failure)) == (1, {})
    assert scene.events().count("DefaultImageTaken") >= 1


def test_a_wrong_image_of_a_later_stage_is_no_longer_told_and_the_others_keep_theirs() -> None:
    scene = a_scene()
    scene.world.gone = (IMAGES[Stage.FINETUNE],)
    scene.running(Stage.SDG).run(told("ImagePullFailed", "Validated"))
    correct(scene).run(lambda scene: scene.condition("Validated") == "True Valid").settle(3)
    assert scene.condition("Validated") == "True Valid"
    scene.release()
    scene.run(is_ready)
    assert [request.image for request in scene.ran(Stage.FINETUNE)] == [RIGHT[Stage.FINETUNE]]
    assert len(scene.attempts(Stage.FINETUNE)) == 1
    assert scene.ran(Stage.EVAL)[0].image == IMAGES[Stage.EVAL]


@pytest.mark.parametrize("raised", [False, True], ids=["same code", "another code version"])
@pytest.mark.parametrize("stage", JOBS)
def test_a_job_that_waits_is_made_anew(stage: Stage, raised: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = waits_for_its_image(stage)
    if raised:
        monkeypatch.setitem(CODE_VERSIONS, stage, CODE_VERSIONS[stage] + 1)
    correct(scene, check_images=False).run(is_ready)
    assert [request.image for request in scene.ran(stage)] == [RIGHT[stage]]
    assert len(scene.attempts(stage)) == 2
    assert scene.status.resolved["stages"][stage.value]["codeVersion"] == CODE_VERSIONS[stage]
    others = [other for other in JOBS if other is not stage]
    assert {other: len(scene.attempts(other)) for other in others} == dict.fromkeys(others, 1)


@pytest.mark.parametrize("first", ["the chart", "the edit"])
def test_an_edit_beside_the_correction_makes_no_third_job(first: str) -> None:
    scene = waits_for_its_image(Stage.FINETUNE)
    if first == "the chart":
        correct(scene)
    scene.edit(a_spec(tolerance={"atOne": "0.05"}))
    if first == "the edit":
        correct(scene.settle(3))
    scene.run(is_ready)
    assert [request.image for request in scene.ran(Stage.FINETUNE)] == [RIGHT[Stage.FINETUNE]]
    assert len(scene.attempts(Stage.FINETUNE)) == 2


def test_a_stage_that_gave_up_says_what_begins_it_again() -> None:
    scene = waits_for_its_image(Stage.FINETUNE)
    scene.clock.now += timedelta(seconds=1900)
    scene.run(stage_is(Stage.FINETUNE, "Failed"))
    said = scene.message("Trained")
    assert AT_CHART in said
    assert said.endswith("; another spec.retryToken tries again")
    correct(scene).settle(5)
    assert scene.states()["finetune"] == "Failed"
    scene.edit(a_spec(retryToken="x"))
    scene.run(is_ready)


@pytest.mark.parametrize("image", ["stage", "source"])
def test_an_image_that_the_manifest_names_is_cured_by_the_manifest(image: str) -> None:
    mine, right = "team/mine:1", "team/right:1"

    def naming(reference: str) -> dict[str, Any]:
        if image == "stage":
            return {"stages": {"inputs": {"image": reference}}}
        return {"corpus": {"source": {"image": {"reference": reference, "path": "/docs"}}}}

    scene = a_scene(**naming(mine))
    scene.world.gone = (mine,)
    scene.run(told("ImagePullFailed", "DataReady"))
    assert "correct the reference" in scene.message("DataReady")
    correct(scene).settle(5)
    assert len(scene.attempts(Stage.INPUTS)) == 1
    scene.edit(a_spec(**naming(right)))
    scene.run(is_ready)


@pytest.mark.parametrize("late", [False, True], ids=["at once", "after the start timeout"])
@pytest.mark.parametrize("server", SERVERS)
def test_a_server_that_never_started_takes_the_corrected_images(server: str, late: bool) -> None:
    scene, right = a_server_without_images(server), SERVERS[server][1]
    assert f"{AT_CHART}.serve of its chart" in scene.message("Deployed")
    if late:
        scene.clock.now += timedelta(seconds=3700)
        scene.run(told("StartTimeout", "Deployed"))
    since = len(scene.history)
    correct(scene).run(is_ready)
    assert server_images(scene) == [(RIGHT[Stage.DEPLOY], right)]
    assert scene.status.stage(Stage.DEPLOY).image == right
    assert len(scene.attempts(Stage.VERIFY)) == 1
    assert scene.status.revision == 1
    assert "DriftCorrected" not in scene.events()
    late_again = [status for status in scene.history[since + 2 :] if "StartTimeout" in str(status["conditions"])]
    assert late_again == []


def a_server_without_images(server: str) -> Scene:
    scene = a_scene(stages={"deploy": SERVERS[server][0]})
    scene.world.gone = (IMAGES[Stage.DEPLOY], IMAGES[TORCH_SERVER])
    return scene.run(told("ImagePullFailed", "Deployed"))


def without_its_node() -> Scene:
    scene = a_scene().run(is_ready).settle(3)
    pods_go(scene)
    return scene.run(told("Unavailable", "Deployed"))


@pytest.mark.parametrize(
    "waits",
    [lambda: waits_for_its_image(Stage.PREP), lambda: a_server_without_images("torch"), without_its_node],
    ids=["a stage", "a server", "a server that clients reach"],
)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_crash_at_any_write_of_it_changes_nothing_in_the_end(waits: Callable[[], Scene], when: str) -> None:
    start = waits()
    whole = correct(start.fork())
    before = whole.writes()
    whole.run(is_ready).settle(3)
    for number in range(1, whole.writes() - before + 1):
        scene = correct(start.fork())
        scene.cluster.hook = Nth(number, when, Crash())
        while not scene.crashes:
            scene.turn()
        correct(scene).run(is_ready).settle(3)
        assert server_images(scene) == server_images(whole), f"write {number}"
        assert [len(scene.ran(stage)) for stage in JOBS] == [len(whole.ran(stage)) for stage in JOBS]
        assert "DriftCorrected" not in scene.events()


@pytest.mark.parametrize("moved", [False, True], ids=["the same digest", "another digest"])
@pytest.mark.parametrize("first", ["the chart", "the node"])
def test_a_server_that_clients_reach_comes_back_with_the_new_default(first: str, moved: bool) -> None:
    scene = a_scene(runPolicy={"activeDeadlineSeconds": 3600}).run(is_ready).settle(3)
    was = led_to(scene)
    scene.clock.now += timedelta(days=30)
    scene.settle(3)
    if first == "the chart":
        written = len(scene.history)
        correct(scene).settle(5)
        assert len(scene.history) == written
        assert server_images(scene) == [(IMAGES[Stage.DEPLOY], IMAGES[Stage.DEPLOY])]
    pods_go(scene)
    if moved:
        scene.world.image_id = "sha256:def"
    if first == "the node":
        scene.run(lambda scene: scene.status.phase == "Degraded").settle(5)
        correct(scene)
    scene.run(lambda scene: len(scene.ran(Stage.VERIFY)) == 2).run(is_ready).settle(5)
    assert server_images(scene) == [(RIGHT[Stage.DEPLOY], RIGHT[Stage.DEPLOY])]
    assert led_to(scene) == was
    assert [request.image for request in scene.ran(Stage.VERIFY)] == [IMAGES[Stage.VERIFY], RIGHT[Stage.VERIFY]]
    assert {len(scene.attempts(stage)) for stage in JOBS if stage is not Stage.VERIFY} == {1}
    assert scene.status.revision == 1


def test_what_it_measures_then_is_judged() -> None:
    scene = correct(a_scene().run(is_ready).settle(3)).settle(2)
    pods_go(scene)
    scene.world.served_offset = -0.3
    scene.run(told("OutsideTolerance", "Verified"))
    assert scene.status.phase == "Degraded"


def test_a_new_default_with_another_code_version_is_a_server_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = a_scene().run(is_ready).settle(3)
    was = led_to(scene)
    monkeypatch.setitem(CODE_VERSIONS, Stage.DEPLOY, CODE_VERSIONS[Stage.DEPLOY] + 1)
    correct(scene).settle(3)
    assert is_ready(scene)
    pods_go(scene)
    scene.run(lambda scene: led_to(scene) != was).run(is_ready).settle(20)
    assert server_images(scene) == [(RIGHT[Stage.DEPLOY], RIGHT[Stage.DEPLOY])]
    assert len(scene.ran(Stage.VERIFY)) == 2


def test_clients_that_reach_nothing_are_told_so_after_an_edit_too() -> None:
    scene = a_scene().run(is_ready).settle(3)
    pods_go(scene)
    scene.run(told("Unavailable", "Deployed")).settle(3)
    assert scene.status.phase == "Degraded"
    scene.edit(a_spec(retryToken="x"))
    scene.run(told("ImagePullFailed", "Deployed")).settle(3)
    assert (scene.status.phase, scene.status.served.url) == ("Degraded", "")
    correct(scene).run(is_ready)
    assert scene.status.phase == "Ready"


@pytest.mark.parametrize("server", ["onnx", "vllm"])
def test_a_server_of_which_a_pod_runs_keeps_its_images(server: str) -> None:
    deploy = SERVERS[server][0] | {"replicas": 2}
    scene = a_scene(stages={"deploy": deploy}).run(is_ready).settle(3)
    images = server_images(scene)
    lasts, goes = scene.world.pods_of(scene.cluster.find("Deployment")[0])
    scene.world.gone = (WRONG,)
    scene.world._remove(goes)
    correct(scene).run(told("Unavailable", "Deployed")).settle(10)
    assert server_images(scene) == images
    assert lasts["metadata"]["uid"] in [pod["metadata"]["uid"] for pod in scene.cluster.find("Pod")]
    said = scene.message("Deployed")
    assert "kept while a pod of this server runs: bring it back to its registry" in said
    assert AT_CHART not in said
    scene.world.gone = ()
    scene.run(is_ready)


def test_a_registry_that_is_away_for_a_moment_moves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pods, "NOT_FOUND", "i/o timeout")
    scene = correct(a_scene().run(is_ready).settle(3)).settle(2)
    images = server_images(scene)
    pods_go(scene)
    scene.run(told("Unavailable", "Deployed")).settle(3)
    assert server_images(scene) == images
    scene.clock.now += timedelta(seconds=90)
    scene.run(is_ready)
    assert server_images(scene) != images


@pytest.mark.parametrize("raised", [False, True], ids=["same code", "another code version"])
def test_a_look_at_the_sources_takes_it_where_it_reads_them_alike(
    raised: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = a_scene(schedule={"cron": "0 3 * * 1"}).run(is_ready).settle(3)
    if raised:
        monkeypatch.setitem(CODE_VERSIONS, Stage.INPUTS, CODE_VERSIONS[Stage.INPUTS] + 1)
    correct(scene).settle(3)
    scene.world.gone = (WRONG,)
    scene.clock.now += timedelta(weeks=1)
    scene.settle(30)
    assert is_ready(scene)
    images = [request.image for request in scene.ran(Stage.INPUTS)]
    assert images == [IMAGES[Stage.INPUTS], *([] if raised else [RIGHT[Stage.INPUTS]])]
    assert scene.status.schedule.result == ("" if raised else "Unchanged")
