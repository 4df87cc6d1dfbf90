"""What an edit runs again, what it reuses, and who serves meanwhile."""

from __future__ import annotations

from typing import Any

import pytest
from simulation.clients import led_to, servers
from simulation.endings import failed
from simulation.scene import NAME, Scene, a_scene, a_spec, is_ready, is_stalled, stage_is

from embedding_stages.contract import Artefact, ExitCode, Stage

BUNDLE = "spec.baseModel.source.huggingFace.caBundle"
UNTRUSTED = failed(ExitCode.BAD_INPUT, "HubCertificateUntrusted", "the hub's certificate is not trusted", BUNDLE)
EPOCHS = a_spec(stages={"finetune": {"epochs": 5}})
GPU_SERVER = {"deploy": {"backend": {"torch": {}}}}


def ready() -> Scene:
    return a_scene().run(is_ready)


def runs(scene: Scene) -> list[str]:
    """Stages of the containers that ran, in order."""
    return [request.stage.value for request in scene.world.requests]


def test_an_edited_stage_and_what_follows_run_again_and_the_rest_is_reused() -> None:
    scene = ready()
    before = len(scene.world.requests)
    scene.edit(EPOCHS)
    scene.run(is_ready)
    assert runs(scene)[before:] == ["finetune", "eval", "export", "verify"]
    assert scene.states() | {"inputs": "Reused", "sdg": "Reused", "prep": "Reused"} == scene.states()
    assert [scene.status.stage(stage).reused_from for stage in (Stage.SDG, Stage.PREP)] == [1, 1]
    assert scene.status.revision == 2
    assert scene.events().count("Ready") == 2


def test_the_old_revision_serves_until_the_new_one_is_verified() -> None:
    scene = ready()
    old = led_to(scene)
    scene.edit(EPOCHS)
    scene.run(stage_is(Stage.VERIFY, "Running"))
    assert led_to(scene) == old
    assert len(servers(scene)) == 2
    assert old in servers(scene)
    moves = [old]
    while not is_ready(scene):
        scene.turn()
        assert led_to(scene) in servers(scene)
        moves += [led_to(scene)] if led_to(scene) != moves[-1] else []
    scene.settle(5)
    assert len(moves) == 2
    assert servers(scene) == {moves[-1]}
    assert [raw["metadata"]["name"] for raw in scene.cluster.find("Service")] == [NAME, f"{NAME}-{moves[-1][:8]}"]


def test_with_recreate_the_old_server_goes_first() -> None:
    scene = a_scene(stages=GPU_SERVER).run(is_ready)
    old = servers(scene)
    scene.edit(a_spec(stages=GPU_SERVER | {"finetune": {"epochs": 5}}))
    while not is_ready(scene):
        scene.turn()
        assert len(servers(scene)) <= 1
    assert servers(scene) != old


def a_hub(**said: Any) -> dict[str, Any]:
    return {"name": "tiny", "source": {"huggingFace": {"revision": "0" * 40, **said}}}


def test_certificates_cure_a_hub_that_was_not_trusted_and_other_ones_run_nothing() -> None:
    scene = a_scene(baseModel=a_hub())
    scene.will(Stage.INPUTS, UNTRUSTED)
    scene.run(is_stalled)
    assert runs(scene) == ["inputs"]
    scene.edit(a_spec(baseModel=a_hub(caBundle={"name": "pki"})))
    scene.run(is_ready)
    before = len(scene.world.requests)
    scene.edit(a_spec(baseModel=a_hub(caBundle={"name": "newer-pki"})))
    scene.settle(5)
    assert (scene.status.revision, is_ready(scene)) == (3, True)
    assert runs(scene)[before:] == []


def test_an_edit_and_back_trains_nothing_again() -> None:
    scene = ready()
    wanted = led_to(scene)
    scene.edit(EPOCHS)
    scene.run(is_ready)
    assert led_to(scene) != wanted
    before = len(scene.world.requests)
    scene.edit(a_spec())
    scene.run(is_ready)
    assert led_to(scene) == wanted
    # What was done is recognised by its finished Job. It was not compared yet with what served in between.
    assert runs(scene)[before:] == ["eval", "verify"]


@pytest.mark.parametrize("turns", range(0, 28, 3))
def test_an_edit_and_back_at_any_time_ends_like_no_edit(turns: int) -> None:
    scene = a_scene().settle(turns)
    scene.edit(EPOCHS)
    scene.settle(turns % 4)
    scene.edit(a_spec())
    scene.run(is_ready)
    plain = ready()
    assert led_to(scene) == led_to(plain)
    trained = [request.settings["epochs"] for request in scene.ran(Stage.FINETUNE)]
    assert trained.count(3) == 1


@pytest.mark.parametrize("turns", range(0, 28, 3))
def test_an_edit_at_any_time_ends_like_the_edited_manifest_from_the_start(turns: int) -> None:
    scene = a_scene().settle(turns)
    scene.edit(EPOCHS)
    scene.run(is_ready)
    fresh = Scene(EPOCHS).run(is_ready)
    assert led_to(scene) == led_to(fresh)
    model = Stage.EXPORT, Artefact.SERVING_MODEL  # the reports may be about another comparison
    assert scene.digest(*model) == fresh.digest(*model)
    assert len(scene.ran(Stage.SDG)) == 1


def test_an_edit_of_a_running_stage_removes_its_job_before_the_next_is_made() -> None:
    scene = a_scene().running(Stage.FINETUNE)
    scene.edit(EPOCHS)
    scene.run(is_ready)
    calls = [
        (call.verb, call.name)
        for call in scene.cluster.calls
        if call.writes and call.kind == "Job" and "finetune" in call.name
    ]
    first, second = scene.attempts(Stage.FINETUNE)
    assert calls == [("create", first), ("delete", first), ("create", second)]


def test_an_edit_and_back_while_a_stage_runs_uses_no_name_twice() -> None:
    scene = a_scene().running(Stage.FINETUNE)
    scene.edit(EPOCHS)
    scene.run(lambda scene: len(scene.attempts(Stage.FINETUNE)) == 2)
    scene.edit(a_spec())
    scene.run(is_ready)
    names = scene.attempts(Stage.FINETUNE)
    assert len(set(names)) == len(names) == 3


def test_an_edit_that_does_not_touch_the_running_stage_lets_it_run_on() -> None:
    scene = a_scene().running(Stage.FINETUNE)
    scene.edit(a_spec(tolerance={"atOne": "0.2"}))
    scene.settle(10)
    assert scene.states()["finetune"] == "Running"
    scene.release()
    scene.run(is_ready)
    assert len(scene.attempts(Stage.FINETUNE)) == 1
    assert len(scene.attempts(Stage.INPUTS)) == 1


def test_an_edit_of_an_earlier_stage_stops_a_later_one_that_runs() -> None:
    scene = a_scene().running(Stage.EVAL)
    scene.edit(EPOCHS)
    scene.run(stage_is(Stage.FINETUNE, "Running"))
    assert [raw["metadata"]["name"] for raw in scene.cluster.find("Job") if "eval" in raw["metadata"]["name"]] == []
    scene.run(is_ready)


@pytest.mark.parametrize(
    "sections",
    [
        {"tolerance": {"atOne": "0.5"}},
        {"runPolicy": {"startDeadlineSeconds": 99}},
        {"imagePullSecrets": [{"name": "registry"}]},
        {"stages": {"finetune": {"retries": 9, "timeoutSeconds": 5, "nodeSelector": {"gpu": "h100"}}}},
        {"stages": {"deploy": {"replicas": 2}}},
        {"stages": {"deploy": {"resources": {"requests": {"cpu": "2"}}}}},
    ],
    ids=str,
)
def test_an_edit_of_how_and_not_of_what_runs_nothing_again(sections: dict[str, Any]) -> None:
    scene = ready()
    before, wanted = len(scene.world.requests), led_to(scene)
    scene.edit(a_spec(**sections))
    scene.run(is_ready)
    assert runs(scene)[before:] == []
    assert led_to(scene) == wanted
    assert len(servers(scene)) == 1
    assert "DriftCorrected" not in scene.events()


def test_an_edited_document_runs_everything_again_once_the_manifest_asks_for_a_new_look() -> None:
    scene = ready()
    old = led_to(scene)
    before = len(scene.world.requests)
    scene.world.corpus = "second edition"
    scene.edit(a_spec(tolerance={"atOne": "0.2"}))
    scene.run(is_ready)
    assert runs(scene)[before:] == []
    scene.edit(a_spec(corpus={"source": {"configMap": {"name": "docs"}}, "version": "2"}))
    scene.run(is_ready)
    assert runs(scene)[before:] == ["inputs", "sdg", "prep", "finetune", "eval", "export", "verify"]
    assert led_to(scene) != old


def test_what_the_servers_pod_looks_like_follows_the_manifest_both_ways() -> None:
    def pod(scene: Scene) -> dict[str, Any]:
        found: dict[str, Any] = scene.cluster.find("Deployment")[0]["spec"]["template"]["spec"]
        return found

    scene = a_scene(stages={"deploy": {"nodeSelector": {"disk": "ssd"}, "runtimeClassName": "nvidia"}}).run(is_ready)
    assert pod(scene)["nodeSelector"] == {"disk": "ssd"}
    scene.edit(a_spec())
    scene.run(is_ready)
    assert "nodeSelector" not in pod(scene)
    assert "runtimeClassName" not in pod(scene)
    assert "DriftCorrected" not in scene.events()


def test_a_server_of_a_refused_revision_does_not_outlive_the_next_edit() -> None:
    scene = ready()
    old = led_to(scene)
    scene.world.served_offset = -0.3
    scene.edit(EPOCHS)
    scene.run(lambda scene: scene.condition("Verified") == "False OutsideTolerance")
    refused = next(name for name in servers(scene) if name != old)
    scene.world.served_offset = 0.0
    scene.edit(a_spec(stages={"finetune": {"epochs": 6}}))
    scene.run(stage_is(Stage.VERIFY, "Running"))
    assert refused not in servers(scene)
    assert old in servers(scene)
    scene.run(is_ready).settle(5)
    assert len(servers(scene)) == 1


def test_another_backend_serves_the_checkpoint_and_back_again() -> None:
    """What was exported for the first is found again."""
    scene = ready()
    scene.edit(a_spec(stages={"deploy": {"backend": {"torch": {}}}}))
    scene.run(is_ready).settle(3)
    assert scene.states()["export"] == "Skipped"
    assert len(servers(scene)) == 1
    scene.edit(a_spec())
    scene.run(is_ready).settle(3)
    assert scene.states()["export"] in ("Reused", "Succeeded")
    assert len(servers(scene)) == 1


def test_leaving_out_the_export_stops_the_export_that_runs() -> None:
    scene = a_scene(stages={"deploy": {"image": "nim:1", "backend": {"nim": {}}}})
    scene.running(Stage.EXPORT)
    scene.edit(a_spec(stages={"deploy": {"image": "nim:2", "backend": {"nim": {"generation": 2}}}}))
    scene.run(is_ready).settle(3)
    assert all("export" not in raw["metadata"]["name"] for raw in scene.cluster.find("Job"))


@pytest.mark.parametrize("stage", [Stage.INPUTS, Stage.FINETUNE, Stage.VERIFY])
def test_suspending_stops_the_running_job_and_resuming_goes_on_with_it(stage: Stage) -> None:
    scene = a_scene().running(stage)
    scene.edit(a_spec(suspend=True))
    scene.settle(5)
    assert scene.status.phase == "Suspended"
    assert scene.condition("Reconciling") == "absent"
    assert scene.world.pods_of(scene.cluster.object("Job", scene.attempts(stage)[0])) == []
    writes = scene.writes()
    scene.settle(60)
    assert scene.writes() == writes
    scene.edit(a_spec())
    scene.run(is_ready)
    assert len(scene.attempts(stage)) == 1


def test_suspending_a_ready_resource_keeps_its_endpoint() -> None:
    scene = ready()
    old = led_to(scene)
    scene.edit(a_spec(suspend=True))
    scene.settle(5)
    assert scene.status.phase == "Suspended"
    assert led_to(scene) == old
    assert len(servers(scene)) == 1
    assert scene.status.served.active_fingerprint.startswith(old)
