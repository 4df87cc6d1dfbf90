"""An upgrade of the operator trains nothing anew, and neither does the next edit of a field that no stage reads."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

import pytest
from simulation.endings import BAD_INPUT, HANG, SILENT, Ending
from simulation.fake_cluster import NAMESPACE, Call, Crash
from simulation.scene import IMAGES, NAME, Scene, a_scene, a_spec, is_ready, is_stalled, stage_is

from embedding_operator.decide.plan import Defaults
from embedding_operator.resource.api import KIND
from embedding_operator.resource.folding import written_out
from embedding_operator.resource.labels import IMAGE_CHECK_LABEL, SERVING_LABEL, TEMPLATE_ANNOTATION
from embedding_stages.contract import Stage, fingerprint_of, servers
from embedding_stages.contract import settings as table
from embedding_stages.contract.declare import setting
from embedding_stages.contract.nim import Takes
from embedding_stages.contract.versions import CODE_VERSIONS

NEXT_IMAGES: Mapping[str, str] = {name: image.replace(":1", ":2") for name, image in IMAGES.items()}
AFTER_FINETUNE = ["finetune", "eval", "export", "verify"]
NIM = {"image": "nim:1", "backend": {"nim": {}}}
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


@dataclass(frozen=True, slots=True, kw_only=True)
class NextFinetune(table.Finetune):
    """One setting more, at the value by which training goes on as before, and a default that moved."""

    warmupSteps: int = setting(50, low=0, says="Moved.")
    loraRank: int = setting(0, low=0, since="0.2", says="New.")


@dataclass(frozen=True, slots=True, kw_only=True)
class NextSdg(table.Sdg):
    """A setting whose default is another value than the one that means as before."""

    overlap: int = setting(1, before=0, low=0, since="0.2", says="New.")


@pytest.fixture
def release(monkeypatch: pytest.MonkeyPatch) -> Callable[[Scene], Scene]:
    """Restart the operator as a later release: new images, two new settings, a moved default."""

    def upgrade(scene: Scene) -> Scene:
        monkeypatch.setattr(table, "OF_STAGE", {**OF_STAGE, Stage.FINETUNE: NextFinetune, Stage.SDG: NextSdg})
        scene.restart()
        scene.operator.reconciler.defaults = Defaults(images=NEXT_IMAGES)
        return scene

    return upgrade


OF_STAGE = table.OF_STAGE


def edited(shape: Mapping[str, Any], **sections: Any) -> dict[str, Any]:
    """The manifest of a shape with an edit; `stages` is merged setting by setting."""
    stages = {name: dict(body) for name, body in shape.get("stages", {}).items()}
    for name, body in sections.pop("stages", {}).items():
        stages[name] = stages.get(name, {}) | body
    return a_spec(**{**shape, **sections, "stages": stages})


def pods_of_servers(scene: Scene) -> list[Any]:
    """Images and environment of what every Deployment runs."""
    pods = [raw["spec"]["template"]["spec"] for raw in scene.cluster.find("Deployment")]
    return [[(part["image"], part.get("env")) for part in (*pod["initContainers"], *pod["containers"])] for pod in pods]


def jobs(scene: Scene, before: int) -> list[str]:
    """Stages of the Jobs that were made since."""
    return [name.split("-")[1] for name in scene.cluster.created_jobs[before:]]


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


@pytest.mark.parametrize("autoscaled", [False, True])
def test_a_server_of_an_earlier_release_keeps_its_pods(autoscaled: bool, release: Callable[[Scene], Scene]) -> None:
    scene = a_scene().run(is_ready).settle(2)
    name = scene.cluster.find("Deployment")[0]["metadata"]["name"]
    check = {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "256Mi"}}

    def as_before(raw: dict[str, Any]) -> None:
        spec = raw["spec"]
        spec["template"]["spec"]["initContainers"][0]["resources"] = check
        asked = scene.cluster._applied["Deployment", NAMESPACE, name]["spec"]
        asked["template"]["spec"]["initContainers"][0]["resources"] = check
        asked["replicas"] = 1
        raw["metadata"]["annotations"] = {
            **raw["metadata"]["annotations"],
            TEMPLATE_ANNOTATION: fingerprint_of(asked)[:16],
        }

    scene.cluster.change("Deployment", NAMESPACE, name, as_before)
    for _ in range(5):
        scene.world.step()
    if autoscaled:
        scene.cluster.change("Deployment", NAMESPACE, name, lambda raw: raw["spec"].update(replicas=3))
    before = {pod["metadata"]["name"] for pod in scene.world.pods_of(scene.cluster.find("Deployment")[0])}
    writes = len(scene.history)
    release(scene).settle(5)
    server = scene.cluster.find("Deployment")[0]
    assert before <= {pod["metadata"]["name"] for pod in scene.world.pods_of(server)}
    assert server["spec"]["replicas"] == (3 if autoscaled else 1)
    assert {status["phase"] for status in scene.history[writes:]} <= {"Ready"}


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


def as_first_written(status: dict[str, Any]) -> dict[str, Any]:
    """A status in the form of release 0.1, which wrote everything out."""
    first = written_out(status)
    for key in ("ndcg@10", "warnings"):
        first.pop(key, None)
    return {**first, "uplift": "+20.0% [+10.0, +30.0] n=100"}


@pytest.mark.parametrize("edit", [None, {"tolerance": {"atOne": "0.05"}}], ids=["untouched", "edited"])
def test_a_status_that_the_first_release_wrote_is_taken_up(edit: dict[str, Any] | None) -> None:
    scene = a_scene()
    scene.world.canary_cosine = None  # nobody asked for canaries then
    scene.run(is_ready).settle(2)
    before, jobs_before = scene.status, len(scene.cluster.created_jobs)
    scene.cluster.change(KIND, NAMESPACE, NAME, lambda raw: raw.update(status=as_first_written(raw["status"])))
    scene.restart()
    if edit is not None:
        scene.edit(a_spec(**edit))
    scene.settle(5)
    assert is_ready(scene)
    assert jobs(scene, jobs_before) == []
    assert (scene.status.ndcg, scene.status.uplift) == (before.ndcg, before.uplift)
    if edit is None:
        assert scene.status == before


@pytest.mark.parametrize("stage", [Stage.SDG, Stage.FINETUNE, Stage.VERIFY])
def test_a_run_that_the_first_release_began_is_ended(stage: Stage) -> None:
    scene = a_scene().running(stage)
    scene.cluster.change(KIND, NAMESPACE, NAME, lambda raw: raw.update(status=as_first_written(raw["status"])))
    scene.restart()
    scene.release()
    scene.run(is_ready)
    assert {len(scene.attempts(item)) for item in Stage if item is not Stage.DEPLOY} == {1}


def test_recreate_does_not_judge_what_was_served_before_there_were_gates() -> None:
    deploy: dict[str, Any] = {"strategy": "Recreate"}
    scene = a_scene(stages={"deploy": deploy}, gates={"onFail": "Warn"})
    scene.world.tuned_quality = 0.4
    scene.run(is_ready).settle(3)

    def as_before(raw: dict[str, Any]) -> None:
        status = as_first_written(raw["status"])
        for key in ("history", "evaluationSet"):
            del status[key]
        evaluated = next(entry for entry in status["stages"] if entry["name"] == "eval")
        del evaluated["details"]["comparisons"]
        raw["status"] = status

    scene.cluster.change(KIND, NAMESPACE, NAME, as_before)
    scene.edit(a_spec(stages={"deploy": deploy | {"modelName": "other"}}))
    scene.run(is_ready)
    assert scene.condition("QualityGatePassed") == "True GateDisabled"


def test_a_server_of_an_unknown_version_goes_on_as_the_generation_that_it_was_verified_as(
    release: Callable[[Scene], Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A release before the tag counted took every NIM for the first generation."""
    shape: dict[str, Any] = {"stages": {"deploy": {"image": "nim:9.9", "backend": {"nim": {}}}}}
    with monkeypatch.context() as earlier:
        earlier.setattr(servers, "version_of", lambda _image: ())
        scene = a_scene(**shape).run(is_ready).settle(2)
    pods, before = pods_of_servers(scene), len(scene.cluster.created_jobs)
    release(scene).settle(3)
    assert is_ready(scene)
    for edit in ({"tolerance": {"atOne": "0.05"}}, {"stages": {"deploy": {"replicas": 2}}}):
        scene.edit(edited(shape, **edit))
        scene.run(is_ready)
    assert pods_of_servers(scene) == pods
    assert jobs(scene, before) == []
    (warning,) = [item.message for item in scene.status.warnings if item.stage is Stage.DEPLOY]
    assert warning.startswith("spec.stages.deploy.backend.nim.generation: ")
    assert "version 9.9" in warning
    assert "goes on as '1'" in warning
    scene.edit(edited(shape, stages={"deploy": {"image": "nim:9.10"}}))  # that one nobody has verified
    scene.run(is_stalled)
    assert scene.message("Validated").startswith("spec.stages.deploy.backend.nim.generation: ")
    assert pods_of_servers(scene) == pods


@pytest.mark.parametrize("strategy", ["BlueGreen", "Recreate"])
@pytest.mark.parametrize("begun", [False, True], ids=["begins after", "begun before"])
def test_a_revision_trained_for_a_server_of_an_unknown_version_is_served_by_it(
    begun: bool, strategy: str, release: Callable[[Scene], Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    deploy = {"image": "nim:9.9", "backend": {"nim": {}}, "strategy": strategy}
    shape: dict[str, Any] = {"stages": {"deploy": deploy}}
    trains = edited(shape, stages={"finetune": {"epochs": 5}})

    def as_before(raw: dict[str, Any]) -> None:
        raw["status"] = as_first_written(raw["status"])
        raw["status"]["resolved"].pop("taken", None)

    with monkeypatch.context() as earlier:
        earlier.setattr(servers, "version_of", lambda _image: ())
        scene = a_scene(**shape).run(is_ready).settle(2)
        if begun:
            scene.edit(trains)
            scene.running(Stage.FINETUNE)
    scene.cluster.change(KIND, NAMESPACE, NAME, as_before)
    release(scene).settle(3)
    scene.edit(trains)
    written = len(scene.history)
    scene.release()
    scene.run(is_ready)
    assert "Blocked" not in {status["phase"] for status in scene.history[written:]}
    assert scene.status.served.active_revision == 2


def test_a_server_that_serves_takes_its_model_whatever_a_later_release_knows(
    release: Callable[[Scene], Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    shape: dict[str, Any] = {"stages": {"deploy": NIM}}
    scene = a_scene(**shape).run(is_ready).settle(2)
    before = len(scene.cluster.created_jobs)
    monkeypatch.setitem(cast("dict[str, Takes]", servers.IMAGES), "nim", Takes(family="llama", vector_size=2048))
    release(scene).settle(3)
    scene.edit(edited(shape, tolerance={"atOne": "0.05"}))
    scene.run(is_ready)
    assert jobs(scene, before) == []
    scene.edit(edited(shape, stages={"finetune": {"epochs": 5}}))
    scene.run(is_ready)
    scene.edit(edited(shape, stages={"deploy": {"image": "team/nim:2.0.1"}}))
    scene.run(is_stalled)
    assert scene.message("Validated").startswith("spec.stages.deploy.image: team/nim:2.0.1 serves llama models")


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


def without_what_is_resolved(*names: str) -> Callable[[dict[str, Any]], None]:
    """As a release wrote the record that did not know these parts."""

    def strip(raw: dict[str, Any]) -> None:
        record = json.loads(raw["status"]["record"])
        for name in names:
            record["resolved"].pop(name, None)
        raw["status"]["record"] = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    return strip


def test_an_upgrade_writes_nothing_to_thousands_that_are_ready() -> None:
    scene = a_scene(limits={"gpuSeconds": 99999}).run(is_ready).settle(5)
    scene.cluster.change(KIND, NAMESPACE, NAME, without_what_is_resolved("measured", "limits"))
    scene.restart()
    written = len(scene.history)
    scene.settle(5)
    assert len(scene.history) == written


@pytest.mark.parametrize("upgraded", [False, True])
def test_an_image_that_moved_after_a_gap_is_measured_in_a_run_of_its_own(upgraded: bool) -> None:
    hour = 3600
    scene = a_scene(runPolicy={"activeDeadlineSeconds": hour}).running(Stage.EXPORT)
    scene.clock.now += timedelta(seconds=hour - 60)
    scene.release()
    scene.world.step()
    scene.run(is_ready).settle(5)
    if upgraded:
        scene.cluster.change(KIND, NAMESPACE, NAME, without_what_is_resolved("measured"))
        scene.restart()
        scene.settle(5)
    scene.clock.now += timedelta(days=30)
    scene.world.server = "loading"  # as while its node is drained
    scene.settle(5)
    scene.world.server, scene.world.image_id = "ready", "sha256:def"
    scene.will(Stage.VERIFY, HANG)
    for pod in scene.cluster.find("Pod"):
        if SERVING_LABEL in pod["metadata"]["labels"]:
            scene.world._remove(pod)
    scene.settle(30)
    scene.release()
    scene.run(is_ready)
