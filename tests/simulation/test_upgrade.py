"""An upgrade of the operator trains nothing anew, and neither does the next edit of a field that no stage reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from simulation.endings import BAD_INPUT, HANG, SILENT, Ending
from simulation.fake_cluster import Call, Crash
from simulation.scene import IMAGES, Scene, a_scene, a_spec, is_ready, stage_is
from simulation.upgrades import NEXT_IMAGES, NIM, edited, jobs, pods_of_servers, release

from embedding_operator.decide.plan import Defaults
from embedding_operator.resource.labels import IMAGE_CHECK_LABEL
from embedding_stages.contract import Stage
from embedding_stages.contract.versions import CODE_VERSIONS

__all__ = ["release"]  # the fixture

AFTER_FINETUNE = ["finetune", "eval", "export", "verify"]
SHAPES: dict[str, dict[str, Any]] = {
    "onnx": {},
    "torch": {"stages": {"deploy": {"backend": {"torch": {}}}}},
    "nim": {"stages": {"deploy": NIM}},
    "an image of its own": {"stages": {"finetune": {"image": f"team/finetune@sha256:{'0a' * 32}"}}},
    "a labelled set": {"evaluation": {"beir": {"pvc": {"claimName": "labelled"}}}},
}
OF_A_SHAPE = 10
EDITS: list[dict[str, Any]] = [
    {},  # suspended and back
    {"stages": {"deploy": {"replicas": 2}}},
    {"tolerance": {"atOne": "0.05"}},
    {"imagePullSecrets": [{"name": "registry"}]},
    {"stages": {"finetune": {"retries": 5, "nodeSelector": {"gpu": "h100"}}}},
]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_fleet_takes_an_upgrade_and_its_edits(shape: str, release: Callable[[Scene], Scene]) -> None:
    manifest = SHAPES[shape]
    ready = a_scene(**manifest).run(is_ready).settle(2)
    servers = pods_of_servers(ready)
    for number in range(OF_A_SHAPE):
        scene = ready.fork()
        before = len(scene.cluster.created_jobs)
        release(scene).settle(2)
        assert jobs(scene, before) == []
        if number % len(EDITS) == 0:
            scene.edit(edited(manifest, suspend=True))
            scene.settle(2)
        scene.edit(edited(manifest, **EDITS[number % len(EDITS)]))
        scene.run(is_ready)
        assert jobs(scene, before) == []
        assert pods_of_servers(scene) == servers
    scene.edit(edited(manifest, stages={"finetune": {"epochs": 5}}))
    scene.run(is_ready)
    wanted = [name for name in AFTER_FINETUNE if name != "export" or scene.states()["export"] != "Skipped"]
    assert jobs(scene, before) == wanted
    trained = scene.ran(Stage.FINETUNE)[-1]
    assert trained.settings["warmupSteps"] == 50  # an edited section takes the new release's defaults
    assert trained.image == manifest.get("stages", {}).get("finetune", {}).get("image", NEXT_IMAGES[Stage.FINETUNE])


def test_a_stage_that_runs_anew_for_its_inputs_keeps_its_settings_and_takes_the_new_image(
    release: Callable[[Scene], Scene],
) -> None:
    scene = release(a_scene().run(is_ready))
    scene.edit(a_spec(stages={"prep": {"hardNegatives": 6}}))
    scene.run(is_ready)
    trained = scene.ran(Stage.FINETUNE)[-1]
    assert (trained.settings["warmupSteps"], trained.settings["loraRank"]) == (5, 0)
    assert trained.image == NEXT_IMAGES[Stage.FINETUNE]
    assert len(scene.ran(Stage.SDG)) == 1


def test_what_runs_at_the_upgrade_goes_on(release: Callable[[Scene], Scene]) -> None:
    scene = release(a_scene().running(Stage.FINETUNE)).settle(3)
    scene.release()
    scene.run(is_ready)
    assert {name: len(scene.attempts(Stage(name))) for name in AFTER_FINETUNE} == dict.fromkeys(AFTER_FINETUNE, 1)
    assert scene.ran(Stage.EVAL)[0].image == IMAGES[Stage.EVAL]  # frozen with the revision


def test_a_code_version_that_is_raised_runs_the_stage_anew_only_where_it_has_to_run(
    release: Callable[[Scene], Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = a_scene().run(is_ready)
    monkeypatch.setitem(CODE_VERSIONS, Stage.FINETUNE, 2)
    before = len(scene.cluster.created_jobs)
    release(scene).settle(5)
    scene.edit(a_spec(tolerance={"atOne": "0.05"}))
    scene.run(is_ready)
    assert jobs(scene, before) == []
    scene.edit(a_spec(stages={"finetune": {"seed": 1}}))
    scene.run(is_ready)
    assert jobs(scene, before) == AFTER_FINETUNE
    assert scene.status.resolved["stages"]["finetune"]["codeVersion"] == 2


def test_an_edit_and_back_never_takes_an_older_look_at_the_documents() -> None:
    scene = a_scene().run(is_ready)
    scene.edit(a_spec(corpus={"source": {"configMap": {"name": "docs"}}, "version": "2"}))
    scene.run(is_ready)
    scene.edit(a_spec())
    scene.run(is_ready)
    assert len(scene.attempts(Stage.INPUTS)) == 3


def test_another_version_of_the_corpus_looks_at_everything_again() -> None:
    scene = a_scene().run(is_ready)
    before = len(scene.cluster.created_jobs)
    scene.edit(a_spec(corpus={"source": {"configMap": {"name": "docs"}}, "version": "2"}))
    scene.run(is_ready)
    assert jobs(scene, before) == ["inputs"]
    scene.world.corpus = "second edition"
    scene.edit(a_spec(corpus={"source": {"configMap": {"name": "docs"}}, "version": "3"}))
    scene.run(is_ready)
    assert jobs(scene, before) == ["inputs", "inputs", "sdg", "prep", "finetune", "eval", "export", "verify"]


def test_a_pass_that_dies_after_a_renewed_stage_got_its_job_makes_no_second_one(
    release: Callable[[Scene], Scene],
) -> None:
    scene = release(a_scene().run(is_ready))
    scene.edit(a_spec(stages={"prep": {"hardNegatives": 6}}))
    scene.running(Stage.PREP)
    deaths = []

    def dies_once(call: Call, when: str) -> None:
        if (call.verb, call.kind, when) == ("create", "Job", "after") and "finetune" in call.name and not deaths:
            deaths.append(call.name)
            raise Crash

    scene.cluster.hook = dies_once
    scene.release()
    scene.run(lambda scene: bool(deaths))
    scene.operator.reconciler.defaults = Defaults(images=NEXT_IMAGES)  # the process that restarted is the new release
    scene.run(is_ready)
    assert scene.attempts(Stage.FINETUNE)[1:] == deaths
    assert scene.ran(Stage.FINETUNE)[-1].image == NEXT_IMAGES[Stage.FINETUNE]


@pytest.mark.parametrize("ending", [BAD_INPUT, SILENT])
def test_a_stage_that_failed_takes_the_new_image_at_the_next_edit(
    ending: Ending, release: Callable[[Scene], Scene]
) -> None:
    scene = a_scene()
    scene.will(Stage.FINETUNE, ending, ending)
    scene.run(stage_is(Stage.FINETUNE, "Failed"))
    scene.world.endings[Stage.FINETUNE].clear()
    release(scene).settle(3)
    scene.edit(a_spec(tolerance={"atOne": "0.05"}))
    scene.run(is_ready)
    assert scene.ran(Stage.FINETUNE)[-1].image == NEXT_IMAGES[Stage.FINETUNE]


def test_what_is_tried_out_and_pulled_early_is_what_runs_later(release: Callable[[Scene], Scene]) -> None:
    scene = release(a_scene().run(is_ready).settle(2))
    tried, pulled = set[str](), set[str]()
    real = scene.cluster.try_out

    def try_out(manifest: Mapping[str, Any], **named: Any) -> None:
        spec = manifest.get("spec", {})
        pod = spec.get("template", {}).get("spec", spec)
        tried.update(part["image"] for part in (*pod.get("initContainers", ()), *pod.get("containers", ())))
        real(manifest, **named)

    scene.cluster.try_out = try_out  # type: ignore[method-assign]
    scene.will(Stage.FINETUNE, HANG)
    scene.edit(a_spec(stages={"finetune": {"epochs": 5}}))
    for _ in range(20):
        scene.turn()
        for pod in scene.cluster.find("Pod"):
            if IMAGE_CHECK_LABEL in pod["metadata"]["labels"]:
                pulled |= {part["image"] for part in pod["spec"]["containers"]}
    wanted = {NEXT_IMAGES[stage] for stage in (Stage.FINETUNE, Stage.EVAL, Stage.EXPORT, Stage.DEPLOY, Stage.VERIFY)}
    assert tried == wanted
    assert pulled == wanted - {NEXT_IMAGES[Stage.FINETUNE]}
