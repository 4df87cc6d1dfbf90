"""The server: verified before it gets traffic, watched afterwards, restored when somebody changes it."""

from __future__ import annotations

import pytest
from simulation.endings import failed
from simulation.fake_cluster import NAMESPACE
from simulation.scene import NAME, Scene, a_scene, a_spec, is_ready, is_stalled, stage_is

from embedding_operator.resource.labels import SERVING_LABEL
from embedding_operator.resource.pipeline import PIPELINE
from embedding_stages.contract import Artefact, Stage


def ready() -> Scene:
    return a_scene().run(is_ready)


def services(scene: Scene) -> list[str]:
    return [raw["metadata"]["name"] for raw in scene.cluster.find("Service")]


def server(scene: Scene) -> str:
    name: str = scene.cluster.find("Deployment")[0]["metadata"]["name"]
    return name


def test_metrics_outside_the_tolerance_get_no_traffic() -> None:
    scene = a_scene()
    scene.world.served_offset = -0.1
    scene.run(is_stalled)
    assert scene.condition("Verified") == "False OutsideTolerance"
    assert scene.condition("Ready") == "False OutsideTolerance"
    assert scene.status.phase == "Blocked"
    assert scene.resource["status"]["verification"]["withinTolerance"] is False
    assert NAME not in services(scene)
    assert "served" not in scene.resource["status"] or not scene.status.served.active_fingerprint
    writes = scene.writes()
    scene.settle(30)
    assert scene.writes() == writes


def test_a_wider_tolerance_accepts_the_same_measurement() -> None:
    scene = a_scene()
    scene.world.served_offset = -0.1
    scene.run(is_stalled)
    scene.edit(a_spec(tolerance={"atOne": "0.2", "atFiveAndAbove": "0.2"}))
    scene.run(is_ready)
    assert len(scene.ran(Stage.VERIFY)) == 1
    assert scene.states()["verify"] == "Reused"


@pytest.mark.parametrize("accepted", ["0.95", "0.983"])
def test_vectors_that_differ_get_no_traffic_until_the_manifest_accepts_them(accepted: str) -> None:
    """Whatever the metrics say: a server may serve the base model, or cut texts short."""
    scene = a_scene()
    scene.world.canary_cosine = 0.983
    scene.run(is_stalled)
    assert scene.condition("Ready") == scene.condition("Verified") == "False VectorsDiffer"
    assert "spec.tolerance.minCosine" in scene.message("Ready")
    assert NAME not in services(scene)
    scene.edit(a_spec(tolerance={"minCosine": accepted}))
    scene.run(is_ready)
    assert len(scene.ran(Stage.VERIFY)) == len(scene.ran(Stage.FINETUNE)) == 1
    assert scene.states()["verify"] == "Reused"
    writes = scene.writes()
    scene.settle(30)
    assert scene.writes() == writes


def test_vectors_of_a_quantized_export_may_lie_as_far_apart_as_the_export_may() -> None:
    scene = a_scene(stages={"export": {"quantization": "int8"}})
    scene.world.canary_cosine = 0.93
    scene.run(is_ready)
    scene.edit(a_spec(stages={"export": {"quantization": "int8"}}, tolerance={"minCosine": "0.95"}))
    scene.run(is_stalled)
    assert scene.condition("Verified") == "False VectorsDiffer"
    assert "0.930000, below 0.95" in scene.message("Verified")
    assert scene.message("Verified").endswith("it serves clients since an earlier revision and goes on")


def test_what_serves_already_goes_on_and_is_not_said_to_get_no_traffic() -> None:
    scene = a_scene(tolerance={"atOne": "0.2", "atFiveAndAbove": "0.2"})
    scene.world.served_offset = -0.1
    scene.run(is_ready)
    scene.edit(a_spec())
    scene.run(is_stalled)
    assert scene.message("Verified").endswith("it serves clients since an earlier revision and goes on")
    assert scene.resource["status"]["served"]["url"]
    scene.edit(a_spec(stages={"finetune": {"epochs": 5}}))
    scene.run(is_stalled)
    assert scene.message("Verified").endswith("the revision gets no traffic")


def test_a_refused_measurement_is_made_again_after_an_edit_that_does_not_accept_it() -> None:
    scene = a_scene()
    scene.world.served_offset = -0.1
    scene.run(is_stalled)
    scene.world.served_offset = 0.0  # the server's fault has passed
    scene.edit(a_spec(tolerance={"atOne": "0.02"}))
    scene.run(is_ready)
    assert len(scene.ran(Stage.VERIFY)) == 2


@pytest.mark.parametrize("backend", ["torch", "onnx"])
def test_a_refused_server_frees_its_gpu_for_the_stage_that_corrects_it(backend: str) -> None:
    server = {"deploy": {"backend": {backend: {}}}}
    scene = a_scene(stages=server)
    scene.world.served_offset = -0.1
    scene.run(is_stalled)
    assert len(scene.cluster.find("Deployment")) == 1
    scene.world.served_offset = 0.0
    scene.edit(a_spec(stages=server | {"finetune": {"epochs": 5}}))
    scene.running(Stage.FINETUNE)
    assert scene.cluster.find("Deployment") == []
    scene.release()
    scene.run(is_ready)


def test_a_verify_that_finds_another_artefact_stops_the_revision() -> None:
    scene = a_scene()
    scene.will(Stage.VERIFY, failed(40, "ArtefactMismatch", "the server says it serves sha256:bad"))
    scene.run(is_stalled)
    assert scene.condition("Verified") == "False ArtefactMismatch"
    assert len(scene.attempts(Stage.VERIFY)) == 1
    scene.edit(a_spec(tolerance={"atOne": "0.2"}))
    scene.run(is_ready)
    assert len(scene.ran(Stage.EXPORT)) == 2  # no earlier answer is believed


def test_a_model_that_was_swapped_on_the_volume_is_not_started_and_an_edit_exports_it_anew() -> None:
    scene = a_scene().run(stage_is(Stage.EXPORT, "Running"))
    scene.run(stage_is(Stage.EXPORT, "Succeeded"))
    path = scene.status.stage(Stage.EXPORT).artefacts[Artefact.SERVING_MODEL].path
    scene.world.volume[path] = "sha256:bad"
    scene.run(lambda scene: scene.condition("Deployed") == "False ArtefactMismatch")
    assert "sha256:bad" in scene.message("Deployed")
    writes = scene.writes()
    scene.settle(20)
    assert scene.writes() == writes
    scene.edit(a_spec(tolerance={"atOne": "0.2"}))
    scene.run(is_ready)
    assert len(scene.ran(Stage.EXPORT)) == 2


def test_a_check_that_fails_to_run_says_nothing_about_the_artefact() -> None:
    scene = a_scene()
    scene.world.server = "no check"
    scene.run(lambda scene: scene.condition("Deployed") == "False CheckFailed")
    assert "exit code 137: OOMKilled" in scene.message("Deployed")
    scene.edit(a_spec(tolerance={"atOne": "0.2"}))
    scene.settle(5)
    scene.world.server = "ready"
    scene.run(is_ready)
    assert len(scene.ran(Stage.EXPORT)) == 1


def test_a_damaged_input_is_made_again_after_an_edit() -> None:
    scene = a_scene().run(stage_is(Stage.PREP, "Succeeded"))
    path = scene.status.stage(Stage.PREP).artefacts[Artefact.TRAINING_SET].path
    scene.world.volume[path] = "sha256:bad"
    scene.run(is_stalled)
    assert scene.condition("Trained") == "False ArtefactMismatch"
    scene.edit(a_spec(tolerance={"atOne": "0.2"}))
    scene.run(is_ready)
    assert len(scene.attempts(Stage.PREP)) == 2


@pytest.mark.parametrize("change", ["replicas", "image"])
def test_a_server_that_somebody_changes_is_restored(change: str) -> None:
    scene = ready()

    def edit(raw: dict[str, object]) -> None:
        spec: dict[str, object] = raw["spec"]  # type: ignore[assignment]
        if change == "replicas":
            spec["replicas"] = 0
        else:
            spec["template"]["spec"]["containers"][0]["image"] = "evil:1"  # type: ignore[index]

    scene.cluster.change("Deployment", NAMESPACE, server(scene), edit)
    scene.turn()
    scene.run(is_ready)
    spec = scene.cluster.find("Deployment")[0]["spec"]
    assert spec["replicas"] == 1
    assert spec["template"]["spec"]["containers"][0]["image"] == "registry.test/deploy:1"
    assert scene.events().count("DriftCorrected") == 1
    assert len(scene.cluster.created_jobs) == len(PIPELINE)


def test_a_server_that_is_gone_is_degraded_until_it_is_back_and_nothing_is_trained_again() -> None:
    scene = ready()
    scene.cluster.mark_deleted("Deployment", NAMESPACE, server(scene))
    scene.world.step()
    seen = len(scene.history)
    scene.run(lambda scene: is_ready(scene) and len(scene.history) > seen)
    assert "Degraded" in [status["phase"] for status in scene.history[seen:]]
    assert len(scene.cluster.created_jobs) == len(PIPELINE)


def test_an_unavailable_server_is_degraded_until_it_answers_again() -> None:
    scene = ready()
    scene.world.server = "down"
    scene.run(lambda scene: scene.status.phase == "Degraded")
    assert scene.condition("Deployed") == "False Unavailable"
    assert scene.condition("Ready") == "False Unavailable"
    assert scene.condition("Stalled") == "absent"
    writes = scene.writes()
    scene.settle(100)
    assert scene.writes() == writes
    scene.world.server = "ready"
    scene.run(is_ready)
    assert len(scene.cluster.created_jobs) == len(PIPELINE)


@pytest.mark.parametrize("name", [NAME, "measured"])
def test_a_service_that_is_gone_or_bent_comes_back(name: str) -> None:
    scene = ready()
    service = NAME if name == NAME else server(scene)
    wanted = scene.cluster.object("Service", service)["spec"]["selector"]
    scene.cluster.change(
        "Service", NAMESPACE, service, lambda raw: raw["spec"]["selector"].update({SERVING_LABEL: "x"})
    )
    scene.turn()
    scene.run(is_ready)
    assert scene.cluster.object("Service", service)["spec"]["selector"] == wanted
    scene.cluster.remove("Service", NAMESPACE, service)
    scene.turn()
    scene.run(is_ready).settle(2)
    assert scene.cluster.object("Service", service)["spec"]["selector"] == wanted


def test_a_server_that_never_answers_fails_at_its_timeout_and_says_so_once() -> None:
    scene = a_scene(stages={"deploy": {"timeoutSeconds": 60}})
    scene.world.server = "down"
    scene.run(lambda scene: scene.condition("Deployed") == "False StartTimeout")
    assert "spec.stages.deploy.timeoutSeconds" in scene.message("Deployed")
    writes = scene.writes()
    scene.settle(60)
    assert scene.writes() == writes
    assert scene.events().count("StartTimeout") == 1
    scene.world.server = "ready"
    scene.run(is_ready)


def test_a_server_that_crashes_is_failed_and_does_not_flap() -> None:
    scene = a_scene()
    scene.world.server = "crash"
    scene.run(lambda scene: scene.condition("Deployed") == "False ServerCrashed")
    assert "no such profile" in scene.message("Deployed")
    scene.settle(30)
    assert scene.events().count("ServerCrashed") == 1
    seen = [item["status"] for status in scene.history for item in status["conditions"] if item["type"] == "Deployed"]
    assert seen[seen.index("False") :].count("Unknown") == 0
    scene.world.server = "ready"
    scene.run(is_ready)


def test_a_new_revision_whose_server_fails_leaves_the_old_one_serving() -> None:
    scene = ready()
    old = server(scene)
    scene.edit(a_spec(stages={"deploy": {"image": "server:2"}}))
    scene.world.server = "crash"
    scene.settle(40)
    assert scene.cluster.object("Service", NAME)["metadata"]["labels"][SERVING_LABEL].startswith(old[-8:])
    assert scene.status.phase == "Degraded"
    assert scene.condition("Ready").startswith("False")


def restart(scene: Scene) -> None:
    """The pod goes, and its Deployment makes another."""
    pod = scene.world.pods_of(scene.cluster.find("Deployment")[0])[0]
    scene.cluster.remove("Pod", NAMESPACE, pod["metadata"]["name"])
    scene.settle(6)
    scene.run(is_ready)


@pytest.mark.parametrize("edit", [False, True])
def test_a_server_whose_tag_moved_is_measured_again(edit: bool) -> None:
    scene = ready()
    restart(scene)
    assert len(scene.ran(Stage.VERIFY)) == 1
    scene.world.image_id = "sha256:moved"
    if edit:
        scene.edit(a_spec(tolerance={"atOne": "0.2"}))
    restart(scene)
    assert len(scene.ran(Stage.VERIFY)) == 2
    assert scene.events().count("ImageMoved") == 1
    restart(scene)
    assert len(scene.ran(Stage.VERIFY)) == 2


def test_an_image_that_comes_back_is_measured_again() -> None:
    """It may be the one that was refused, kept on a node."""
    scene = ready()
    for number, image in enumerate(("sha256:moved", "sha256:abc", "sha256:moved"), start=2):
        scene.world.image_id = image
        restart(scene)
        assert len(scene.ran(Stage.VERIFY)) == number


def test_one_image_under_two_names_is_the_same_server() -> None:
    scene = ready()
    scene.world.image_id = "mirror.example/server@sha256:abc"
    restart(scene)
    assert len(scene.ran(Stage.VERIFY)) == 1
    assert "ImageMoved" not in scene.events()


def test_a_server_whose_tag_moved_to_one_that_measures_otherwise_is_no_longer_ready() -> None:
    scene = ready()
    scene.world.image_id, scene.world.served_offset = "sha256:moved", -0.3
    pod = scene.world.pods_of(scene.cluster.find("Deployment")[0])[0]
    scene.cluster.remove("Pod", NAMESPACE, pod["metadata"]["name"])
    scene.run(is_stalled)
    assert scene.condition("Ready") == "False OutsideTolerance"
